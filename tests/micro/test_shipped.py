"""The micro models that come with the package: that they are the ones their card is about."""

from __future__ import annotations

import math
from typing import Any

import pytest

from st_reasoning.attention import probe_attention
from st_reasoning.backbone import audit, convert, load_causal_lm, open_model
from st_reasoning.backbone.inputs import stored_dtype
from st_reasoning.config import parse, to_mapping
from st_reasoning.files import read_json
from st_reasoning.micro import CARD, FIGURES, HERE, MODELS, backbone_name
from st_reasoning.micro.card import card
from st_reasoning.micro.checksums import check_files, shipped_files
from st_reasoning.micro.figures import held_out_problems, held_out_texts, perplexity
from st_reasoning.micro.make import MicroRecipe
from st_reasoning.study.shipped import find_recipe
from st_reasoning.variants import VARIANT_RECORD
from st_reasoning.variants.accuracy import accuracy

VARIANTS = [model for model in MODELS if model != "base"]


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    found: dict[str, Any] = read_json(HERE / FIGURES)
    return found


@pytest.fixture(scope="module")
def recipe(figures: dict[str, Any]) -> MicroRecipe:
    return parse(MicroRecipe, figures["recipe"], where=FIGURES)


def test_files_are_the_ones_the_figures_are_of_safetensors_only_and_small() -> None:
    check_files(HERE)
    files = shipped_files(HERE)
    assert sum(file.stat().st_size for file in files) <= 16_000_000
    assert {file.suffix for file in files} == {".json", ".jinja", ".md", ".safetensors"} & {f.suffix for f in files}
    assert [(HERE / model / "model.safetensors").is_file() for model in MODELS] == [True] * 4


def test_card_and_recipe_are_those_of_the_figures(figures: dict[str, Any], recipe: MicroRecipe) -> None:
    assert (HERE / CARD).read_text(encoding="utf-8") == card(figures)
    assert to_mapping(MicroRecipe.read(find_recipe("micro-models"))) == to_mapping(recipe)


def test_all_four_are_given_the_same() -> None:
    for model in VARIANTS:
        assert audit(backbone_name("base"), backbone_name(model)).differences == ()
    assert stored_dtype(backbone_name("base")) == "float32"


@pytest.mark.parametrize("model", MODELS)
def test_each_becomes_an_embedder(model: str) -> None:
    assert probe_attention(convert(backbone_name(model))).attention == "bidirectional"
    assert probe_attention(open_model(backbone_name(model))).attention == "causal"


@pytest.mark.parametrize("model", VARIANTS)
def test_each_variant_solves_ten_points_more_than_the_base(figures: dict[str, Any], model: str) -> None:
    for kind in figures["taught"][model]:
        before, after = (figures["models"][name]["kinds"][kind] for name in ("base", model))
        assert before["problems"] == after["problems"] >= 300
        assert after["greedy"] >= before["greedy"] + 0.10


def test_no_record_names_a_folder_of_the_machine_they_were_made_on() -> None:
    for model, parent in MODELS.items():
        record = read_json(HERE / model / VARIANT_RECORD)
        assert record["base"] == (backbone_name(parent) if parent else None)


# Computed again from the weights


@pytest.mark.parametrize("model", MODELS)
def test_perplexity_is_the_recorded_one_and_far_below_the_unigrams(
    model: str, figures: dict[str, Any], recipe: MicroRecipe
) -> None:
    pytest.importorskip("reasoning_gym", reason="draws the texts: pip install 'st-reasoning[demo]'")
    recorded = figures["models"][model]["perplexity"]
    texts = held_out_texts(recipe.general.corpus, recipe.examination)
    families = ("aiw", "chain_sum", "syllogism")
    some = [text for text in texts if text.family in families]
    found = perplexity(*load_causal_lm(backbone_name(model)), some)
    for family in families:
        for who in ("model", "unigram"):
            # The same texts and weights: what is left is rounding on another machine.
            assert found["families"][family][who] == pytest.approx(recorded["families"][family][who], rel=1e-3)
    assert recorded["model"] < recorded["unigram"] / 5


@pytest.mark.parametrize("model", MODELS)
def test_accuracy_is_the_recorded_one(model: str, figures: dict[str, Any], recipe: MicroRecipe) -> None:
    pytest.importorskip("reasoning_gym", reason="draws the problems: pip install 'st-reasoning[demo]'")
    kind, asked = figures["taught"]["rlvr"][0], recipe.examination
    recorded = figures["models"][model]["kinds"][kind]
    problems = held_out_problems(recipe.general.corpus, tuple(recipe.taught.values()), asked)[kind]
    found = accuracy(
        *load_causal_lm(backbone_name(model)), problems, max_new_tokens=asked.max_new_tokens, samples=1,
        batch_size=100, progress=False,
    )  # fmt: skip
    # The same problems and weights: rounding on another machine may turn a token of a few of them.
    assert found["greedy"] == pytest.approx(recorded["greedy"], abs=0.02)
    share = recorded["sampled"]
    # One sample of each: two shares of a binomial differ by sqrt(2 p (1 - p) / n) at most; four of these: 6 in 100,000.
    spread = math.sqrt(2 * share * (1 - share) / found["problems"])
    assert abs(found["sampled"] - share) <= 4 * spread + 1 / found["problems"]
