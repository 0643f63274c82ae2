"""The micro models made from nothing, on a tiny recipe: corpus, tokenizer, pretraining, variants, figures, card."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from st_reasoning.backbone import audit, load_causal_lm
from st_reasoning.cli import main
from st_reasoning.config import parse
from st_reasoning.errors import InputError
from st_reasoning.files import read_json
from st_reasoning.micro import CARD, CHECKSUMS, FIGURES, MODELS
from st_reasoning.micro.checksums import check_files
from st_reasoning.micro.corpus import OTHER_FAMILIES, Document, Part, documents
from st_reasoning.micro.figures import last_lines, perplexity
from st_reasoning.micro.make import PHASES, MicroRecipe, make_micro
from st_reasoning.micro.pretraining import BaseRecipe, packed, pretrain
from st_reasoning.micro.tokenizer import END, train_tokenizer
from st_reasoning.problems.gsm import ROUNDED_TEMPLATES, Problem, draw_problem, gsm_templates, held_out_templates
from st_reasoning.problems.verified import FAMILIES, MARK, VerifiedProblem, is_held_out
from st_reasoning.study.shipped import find_recipe
from st_reasoning.variants import VARIANT_RECORD
from st_reasoning.variants.accuracy import Completion

pytest.importorskip("trl", reason="trains: pip install 'st-reasoning[variants]'")
pytest.importorskip("reasoning_gym", reason="draws the texts: pip install 'st-reasoning[demo]'")

SUMS = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
SHAPE = {"vocabulary": 400, "width": 32, "layers": 2, "heads": 2, "key_value_heads": 1, "inner_width": 48}
TINY = {
    "general": {
        "corpus": {
            "chain_sum": {"documents": 120, "settings": SUMS, "marked": 0.5},
            "syllogism": {"documents": 40},
        },
        "shape": {**SHAPE, "longest": 128},
        "block": 96,
        "batch_size": 8,
        "epochs": 6,
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "save_every": 20,
    },
    "sums": {
        "corpus": {"chain_sum": {"documents": 60, "settings": SUMS}}, "block": 96, "batch_size": 8, "data_seed": 1,
        "warmup_steps": 0,
    },
    "base": {
        "corpus": {"chain_sum": {"documents": 40, "settings": SUMS, "marked": 0.5, "otherwise": "solution"}},
        "block": 96, "batch_size": 8, "data_seed": 2, "warmup_steps": 0,
    },
    "sft": {
        "families": {"chain_sum": SUMS}, "examples": 64, "batch_size": 16, "check_examples": 8, "check_new_tokens": 4,
        "learning_rate": 1e-2,
    },
    "rlvr": {
        "families": {"chain_sum": SUMS}, "problems": 16, "steps": 2, "group": 4, "batch_size": 8, "check_problems": 8,
        "max_new_tokens": 16,
    },
    "rlvr_prolonged": {
        "families": {"chain_sum": SUMS}, "problems": 16, "steps": 3, "group": 4, "batch_size": 8, "check_problems": 8,
        "max_new_tokens": 16,
    },
    "examination": {"taught": 10, "untaught": 4, "samples": 2, "max_new_tokens": 16, "texts": 5},
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny() -> MicroRecipe:
    return parse(MicroRecipe, TINY, where="tiny")


@pytest.fixture(scope="module")
def made(tiny: MicroRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("micro") / "models"
    make_micro(tiny, output)
    return output


# The corpus


@pytest.mark.parametrize("family", [*FAMILIES, *OTHER_FAMILIES])
def test_each_family_has_texts_on_both_sides_of_the_split_and_none_on_both(family: str) -> None:
    trained, held_out = (documents({family: Part(15)}, seed=3, held_out=side) for side in (False, True))
    questions = [{document.text.split("\n")[0] for document in side} for side in (trained, held_out)]
    assert [len(side) for side in questions] == [15, 15]
    assert questions[0].isdisjoint(questions[1])
    if family != "gsm_symbolic":
        assert [{is_held_out(question) for question in side} for side in questions] == [{False}, {True}]
    assert trained == documents({family: Part(15)}, seed=3)
    assert all(len(document.text.split("\n")) > 1 for document in trained)


def test_word_problems_come_from_templates_that_may_be_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: set[int] = set()

    def noted(template: int, seed: int) -> Problem:
        drawn.add(template)
        return draw_problem(template, seed)

    monkeypatch.setattr("st_reasoning.micro.corpus.draw_problem", noted)
    documents({"gsm_symbolic": Part(200)}, seed=1)
    assert drawn == set(gsm_templates()) - held_out_templates() - ROUNDED_TEMPLATES
    drawn.clear()
    documents({"gsm_symbolic": Part(100)}, seed=1, held_out=True)
    assert drawn == held_out_templates() - ROUNDED_TEMPLATES


def test_the_answers_mark_is_as_frequent_as_asked() -> None:
    parts = {"chain_sum": Part(400, SUMS | {"max_terms": 3}, 0.7)}
    marked = sum(MARK in document.text for document in documents(parts, seed=0)) / 400
    assert abs(marked - 0.7) < 4 * math.sqrt(0.7 * 0.3 / 400)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(InputError, match="unknown family 'sylogism'"):
        documents({"sylogism": Part(1)}, seed=0)
    with pytest.raises(InputError, match="gsm_symbolic: expected no settings"):
        documents({"gsm_symbolic": Part(1, {"size": 3})}, seed=0)
    with pytest.raises(InputError, match="ask for fewer"):
        documents({"chain_sum": Part(500, SUMS)}, seed=0)
    with pytest.raises(InputError, match="marked between 0 and 1"):
        Part(1, marked=2)


# Tokenizer and rows


def test_any_text_goes_through_the_tokenizer_unchanged_and_digits_are_tokens() -> None:
    texts = [document.text for document in documents({"chain_sum": Part(100), "syllogism": Part(50)}, seed=0)]
    tokenizer = train_tokenizer(texts, vocabulary=400, longest=128)
    assert len(tokenizer) == 400
    for text in (*texts[:20], "  two  spaces\n\n\ttab", "x=-3+47*y", "naïve 日本 🙂", "#### 12"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert tokenizer.eos_token_id not in ids
    assert tokenizer.tokenize("1889 + 24") == ["1", "8", "8", "9", "Ġ+Ġ", "2", "4"]
    assert tokenizer.convert_ids_to_tokens(tokenizer.eos_token_id) == END
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_rows_hold_whole_documents_and_too_long_ones_are_left_out() -> None:
    assert packed([[1, 1], [2, 2, 2], [3], [4] * 6, [5] * 5], 5) == [[1, 1, 2, 2, 2], [3], [5] * 5]


# The models


def test_all_four_are_ordinary_llms_of_one_kind(made: Path, tiny: MicroRecipe) -> None:
    assert not list(made.rglob("*.bin"))
    check_files(made)
    for model, parent in MODELS.items():
        record = read_json(made / model / VARIANT_RECORD)
        assert record["base"] == (f"package:st_reasoning/micro/{parent}" if parent else None)
        assert str(made) not in (made / model / VARIANT_RECORD).read_text() + (made / model / CARD).read_text()
        assert audit(str(made / "base"), str(made / model)).differences == ()
    general, _ = read_json(made / "base" / VARIANT_RECORD)["earlier"]
    losses = general["losses"]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert not list(made.glob("*.checkpoints"))


def test_figures_and_card_say_what_the_weights_do(made: Path, tiny: MicroRecipe) -> None:
    figures = read_json(made / FIGURES)
    base = figures["models"]["base"]
    (kind,) = figures["taught"]["sft"]
    assert kind == "chain_sum (min_terms 2, max_terms 2, min_digits 1, max_digits 1)"
    assert base["perplexity"]["model"] < base["perplexity"]["unigram"]
    assert base["kinds"][kind]["problems"] == 10
    card = (made / CARD).read_text(encoding="utf-8")
    assert f"| all | 10 | {base['perplexity']['unigram']:.1f} | {base['perplexity']['model']:.2f} |" in card
    solved = figures["models"]["sft"]["kinds"][kind]
    assert f"**{100 * solved['greedy']:.1f} / {100 * solved['sampled']:.1f}**" in card
    assert "package:st_reasoning/micro/rlvr-prolonged" in card
    assert sum("losses" in read_json(made / model / VARIANT_RECORD) for model in MODELS) == 2


def test_a_second_call_makes_nothing_and_another_recipe_what_it_changes(
    made: Path, tiny: MicroRecipe, tmp_path: Path
) -> None:
    said: list[str] = []
    make_micro(tiny, made, say=said.append)
    assert said[:6] == [f"{model}: made before" for model in (*PHASES, *MODELS)]
    before = load_file(made / "sft" / "model.safetensors")
    said.clear()
    longer = dataclasses.replace(tiny.rlvr_prolonged, steps=4)
    make_micro(dataclasses.replace(tiny, rlvr_prolonged=longer), made, say=said.append)
    assert said[2:6] == ["base: made before", "sft: made before", "rlvr: made before", "rlvr-prolonged ..."]
    assert len(read_json(made / "rlvr-prolonged" / VARIANT_RECORD)["rewards"]) == 4
    after = load_file(made / "sft" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    make_micro(tiny, made)  # as other tests expect it


def test_changed_or_missing_files_are_named(made: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    check_files(copy)
    weights = copy / "sft" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    (copy / "base" / "config.json").unlink()
    with pytest.raises(InputError, match=r"base/config.json, sft/model.safetensors"):
        check_files(copy)
    (copy / CHECKSUMS).unlink()
    with pytest.raises(InputError, match="has no SHA256SUMS"):
        check_files(copy)


def test_a_pretraining_that_was_stopped_ends_with_the_same_weights(
    tiny: MicroRecipe, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trl

    original = trl.SFTTrainer.training_step

    def until_step_26(self, *args, **kwargs):
        if self.state.global_step == 25:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(trl.SFTTrainer, "training_step", until_step_26)
    with pytest.raises(KeyboardInterrupt):
        pretrain(tiny.general, tmp_path / "general")
    assert not (tmp_path / "general").exists()
    monkeypatch.setattr(trl.SFTTrainer, "training_step", original)
    record = pretrain(tiny.general, tmp_path / "general")
    assert record["resumed_at"] == 20
    first, second = (load_file(folder / "general" / "model.safetensors") for folder in (made, tmp_path))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_right_last_line_counts_without_the_mark_too() -> None:
    said = ["3 + 4 = 7\n#### 7", "3 + 4 = 7\n7", "#### 8", "7 7", ""]
    written = [*(Completion(text, ended=True) for text in said), Completion("#### 7", ended=False)]
    problems = [VerifiedProblem("chain_sum", "3 + 4 =", "", "7")] * len(written)
    assert last_lines(written, problems) == {"last_line_right": 2 / 6, "marked": 2 / 6}


def test_the_perplexity_is_that_of_the_definition(made: Path) -> None:
    model, tokenizer = load_causal_lm(str(made / "base"))
    texts = [Document("a", "3 + 4 =\n7"), Document("b", "All cats are dogs")]
    found = perplexity(model, tokenizer, texts)
    losses, tokens = [], []
    for text in texts:
        ids = torch.tensor([[*tokenizer(text.text)["input_ids"], tokenizer.eos_token_id]])
        with torch.inference_mode():
            # transformers' own loss: the mean over all but the first token.
            losses.append(float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1))
        tokens += ids[0, 1:].tolist()
    assert found["model"] == pytest.approx(math.exp(sum(losses) / len(tokens)), rel=1e-5)
    shares = [count / len(tokens) for count in Counter(tokens).values()]
    assert found["unigram"] == pytest.approx(math.prod(share**-share for share in shares))
    assert found["families"]["a"]["texts"] == 1


# The command and the recipes


def test_the_command_makes_them_and_says_what_they_solve(tmp_path: Path, made: Path) -> None:
    import yaml

    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(TINY))
    # Made before: the command asks them and writes their card anew.
    found = CliRunner().invoke(main, ["variants", "micro", str(recipe), "--output", str(made)])
    assert found.exit_code == 0, found.output
    assert "rlvr-prolonged: " in found.output
    assert "of 10 held-out chain_sum" in found.output
    recipe.write_text("bases: {}")
    found = CliRunner().invoke(main, ["variants", "micro", str(recipe), "--output", str(tmp_path / "other")])
    assert found.exit_code == 2
    assert "unknown key 'bases'" in found.output


def test_the_shipped_recipe_is_the_repositorys() -> None:
    recipe = MicroRecipe.read(find_recipe("micro-models"))
    assert recipe.rlvr_prolonged.steps >= 3 * recipe.rlvr.steps


def test_a_folder_with_other_things_is_left_alone(tiny: MicroRecipe, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other things"):
        make_micro(tiny, tmp_path)
    assert (tmp_path / "base" / "notes.txt").read_text() == "mine"


def test_wrong_values_are_refused_at_their_place() -> None:
    with pytest.raises(InputError, match=r"unknown key 'document' in tiny, general, corpus, chain_sum"):
        parse(MicroRecipe, {**TINY, "general": {"corpus": {"chain_sum": {"document": 3}}}}, where="tiny")
    with pytest.raises(InputError, match=r"block must be at most shape.longest \(512\), got 600"):
        BaseRecipe(corpus={}, block=600)
    other = parse(MicroRecipe, {**TINY, "sft": {"families": {"gcd": {}}}}, where="tiny")
    with pytest.raises(InputError, match=r"variants are trained on gcd; expected families of general\.corpus"):
        make_micro(other, Path("never-written"))
