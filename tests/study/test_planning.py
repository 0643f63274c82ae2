"""``study --plan``: what is there, what the rest costs, and what cannot be known; nothing is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from st_reasoning.backbone import load_causal_lm
from st_reasoning.cli import main
from st_reasoning.config import write_resolved
from st_reasoning.errors import InputError
from st_reasoning.study import Corpus, Pair, Reasoning, StudyRecipe
from st_reasoning.study.contents import Contents
from st_reasoning.study.cost import Costs, size_of
from st_reasoning.study.graph import run_steps
from st_reasoning.study.planning import plan
from st_reasoning.study.run import plan_study
from st_reasoning.study.shipped import find_recipe
from st_reasoning.training import DataSet, Generated, TrainingRecipe
from st_reasoning.variants import RLVRRecipe, SFTRecipe
from tests.models import make_llama

TASK = "GSMSymbolicSolutionRetrieval"
TRAINING = TrainingRecipe(
    data=(DataSet("gsm", "Find.", generated=Generated("gsm_symbolic", 16)),), hard_negatives=1, batch_size=8
)


@pytest.fixture
def recipe(tiny_llm: Path) -> StudyRecipe:
    pairs = (
        Pair("sft", str(tiny_llm), Reasoning(sft=SFTRecipe(examples=8))),
        Pair("rlvr", str(tiny_llm), Reasoning(rlvr=RLVRRecipe(steps=2))),
    )
    return StudyRecipe(pairs, TRAINING, (TASK,), seeds=(0,), hrsa=Corpus(templates=3, per_template=6))


def test_weights_are_counted_without_reading_any(tiny_llm: Path, tmp_path: Path) -> None:
    model, _ = load_causal_lm(str(tiny_llm))
    size = size_of(str(tiny_llm))
    table = model.get_input_embeddings().weight.numel()
    assert size.all == model.num_parameters()
    assert size.all - size.body == model.get_output_embeddings().weight.numel()
    assert size.body - size.body_active == table
    tied = make_llama(tmp_path / "tied", tie_word_embeddings=True)
    assert size_of(str(tied)).all == size_of(str(tied)).active == size.all - table


def test_a_plan_knows_what_is_done_and_what_the_rest_costs(recipe: StudyRecipe, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = plan(recipe, out, tflops=1e-3)
    assert not out.exists()
    assert json.loads(json.dumps(found)) == found
    assert found["notes"] == []
    steps = {step["name"]: step for step in found["steps"]}
    train = steps["train/tiny-llama/seed-0"]
    # A forward and a backward pass over every token, and another forward pass: the batch is more than 4096 tokens.
    assert train["flops"] == pytest.approx(8 * train["tokens"] * size_of(recipe.pairs[0].base).body_active)
    counted = Costs(recipe, Contents(recipe))._count(_texts(recipe))
    assert train["tokens"] == pytest.approx(sum(counted))
    assert train["hours"] == pytest.approx(train["flops"] / 1e9 / 3600 + 10 / 3600)
    assert steps["evaluate/tiny-llama/untrained"]["tokens"] == pytest.approx(41934 / 4)  # mteb's own statistics
    assert found["total"] == found["remaining"]
    assert found["total"]["flops"] == pytest.approx(sum(step["flops"] for step in found["steps"]))

    run_steps([step for step in plan_study(recipe, out) if step.name == "texts"], out / "steps")
    after = plan(recipe, out, tflops=1e-3)
    assert after["remaining"]["steps"] == found["remaining"]["steps"] - 1
    assert [step["name"] for step in after["steps"] if step["state"] == "done"] == ["texts"]


def _texts(recipe: StudyRecipe) -> list[str]:
    (data,) = Contents(recipe).data.datasets.values()
    return [
        text
        for row in data
        for text in (f"Instruction: Find.\nQuery: {row['query']}", row["positive"], row["negative_1"])
    ]


def test_passes_that_are_done_again_cost_more(recipe: StudyRecipe) -> None:
    def flops(**changes: object) -> float:
        changed = replace(recipe, training=replace(TRAINING, **changes))  # type: ignore[arg-type]
        costs = Costs(changed, Contents(changed))
        return costs._train("tiny-llama").flops

    usual = flops(mini_batch_tokens=None)
    assert flops(mini_batch_tokens=64) == pytest.approx(usual * 8 / 6)
    assert flops(mini_batch_tokens=None, gradient_checkpointing=True) == pytest.approx(usual * 8 / 6)
    assert flops(mini_batch_tokens=None, epochs=3.0) == pytest.approx(3 * usual)
    assert flops(mini_batch_tokens=None, max_steps=1) == pytest.approx(usual / 2)


def test_disk_counts_states_and_checkpoints(recipe: StudyRecipe) -> None:
    size = size_of(recipe.pairs[0].base)
    config = load_causal_lm(recipe.pairs[0].base)[0].config
    assert size.states == (config.num_hidden_layers + 1) * config.hidden_size
    costs = Costs(recipe, Contents(recipe))
    both = 2 * size.states  # the arms have one shape
    assert costs._compare(recipe.pairs[0].name).scratch == pytest.approx(4 * costs._compared * both)
    saving = replace(recipe, training=replace(TRAINING, save_every=1, max_steps=6))
    curve = replace(saving, hrsa=replace(recipe.hrsa, curve=True))
    passing, kept = (Costs(each, Contents(each))._train("tiny-llama") for each in (saving, curve))
    assert passing.scratch == 2 * 12 * size.body
    steps = kept.tokens / Costs(curve, Contents(curve))._tokens_of_an_example / TRAINING.batch_size
    assert (kept.scratch, kept.disk - passing.disk) == (0, pytest.approx(round(steps) * 12 * size.body))


def test_what_is_not_at_hand_is_said(recipe: StudyRecipe, tmp_path: Path) -> None:
    data = (DataSet("own", path=str(tmp_path / "none.jsonl")),)
    away = replace(
        recipe,
        pairs=(Pair("away", "org/model-0.5B-Base", Reasoning(backbone="org/unsized")),),
        training=replace(TRAINING, data=data, max_steps=3, max_seq_length=10),
        hrsa=Corpus(texts=str(tmp_path / "none.jsonl")),
    )
    found = plan(away, tmp_path / "out", tflops=1.0)
    notes = "\n".join(found["notes"])
    assert "org/model-0.5B-Base is taken to have 0.5B weights, by its name" in notes
    assert "cannot load the backbone 'org/unsized'" in notes
    assert "none.jsonl" in notes
    steps = {step["name"]: step for step in found["steps"]}
    train = steps["train/model-0.5B-Base/seed-0"]
    assert train["tokens"] == 3 * 8 * 3 * 10  # steps, examples, texts, longest
    assert train["flops"] == 6 * train["tokens"] * 5e8
    assert "its texts are taken to be of max_seq_length" in " ".join(train["unknown"])
    assert steps["train/unsized/seed-0"]["unknown"]
    with pytest.raises(InputError, match="unknown task"):
        plan(replace(recipe, tasks=("GSMSymbolicSolutionRetreival",)), tmp_path / "out")


def test_the_command_shows_a_table_or_json(recipe: StudyRecipe, tmp_path: Path) -> None:
    write_resolved(tmp_path / "study.yaml", recipe)
    command = ["study", str(tmp_path / "study.yaml"), "--output", str(tmp_path / "out"), "--plan", "--tflops", "1"]
    shown = CliRunner().invoke(main, command, catch_exceptions=False)
    assert shown.exit_code == 0
    assert "1 TFLOP/s (as given)" in shown.output
    answered = CliRunner().invoke(main, [*command, "--json"], catch_exceptions=False)
    assert json.loads(answered.stdout)["remaining"]["steps"] == len(json.loads(answered.stdout)["steps"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--executor", "here", "--jobs", "4"], "here runs one step after the other"),
        (["--gpus", "1"], "are for --executor slurm"),
        (["--jobs", "2", "--hours", "3"], "are for --executor slurm"),
        (["--tflops", "1"], "is for --plan"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options: list[str], said: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["study", "--output", str(tmp_path / "out"), *options])
    assert done.exit_code == 2
    assert said in done.output
    assert not (tmp_path / "out").exists()


def test_shipped_recipes_have_names() -> None:
    assert find_recipe("paper-study").is_file()
    assert find_recipe("some/where.yaml") == Path("some/where.yaml")
    with pytest.raises(InputError, match="unknown recipe 'papr-study': did you mean 'paper-study'"):
        find_recipe("papr-study")


def test_the_study_of_the_paper_is_the_papers() -> None:
    study = StudyRecipe.read(Path("recipes/paper-study.yaml"))
    assert study.training == TrainingRecipe.read(Path("recipes/paper.yaml"))
    assert [pair.method for pair in study.pairs] == ["SFT", "RLVR", "RLVR", "RLVR", "RLVR"]
    assert study.seeds == (0, 1, 2)
    assert study.benchmarks == ("ReasoningStudy(paper)",)
    found = plan(study, Path("never-written"), tflops=100.0)
    assert found["total"]["steps"] == 5 + 10 + 30 + 40 + 20  # audits, conversions, trainings, evaluations, comparisons
    assert found["total"]["flops"] > 0
