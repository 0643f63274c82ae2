"""The study's gate: a pair whose arms are not given the same is refused before anything is spent, unless waived."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from st_reasoning.errors import InputError
from st_reasoning.files import read_json
from st_reasoning.study import Corpus, Pair, Reasoning, StudyRecipe, run_study
from st_reasoning.study.graph import run_steps
from st_reasoning.study.plan import Step, keys
from st_reasoning.study.report import render
from st_reasoning.study.run import plan_study
from st_reasoning.training import DataSet, Generated, TrainingRecipe
from st_reasoning.variants import SFTRecipe
from tests.models import make_llama

TASK = "GSMSymbolicSolutionRetrieval"


def recipe(*pairs: Pair, **training: Any) -> StudyRecipe:
    return StudyRecipe(
        pairs=pairs,
        training=TrainingRecipe(
            data=(DataSet("gsm", "Find the solution.", generated=Generated("gsm_symbolic", 8)),),
            hard_negatives=1, batch_size=8, max_seq_length=64, learning_rate=1e-3, **training,
        ),
        tasks=(TASK,),
        seeds=(0,),
        hrsa=Corpus(templates=3, per_template=6),
    )  # fmt: skip


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture(scope="module")
def unequal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other weights, no chat template, and padding on the left."""
    folder = make_llama(tmp_path_factory.mktemp("unequal") / "unequal", seed=1, chat=False)
    edit(folder / "tokenizer_config.json", padding_side="left")
    return folder


def named(base: Path, reasoning: Path, *waive: str) -> Pair:
    return Pair("pair", str(base), Reasoning(backbone=str(reasoning)), waive=waive)


def only(steps: list[Step], *names: str) -> list[Step]:
    return [step for step in steps if step.name in names]


def test_an_unequal_pair_is_refused_and_nothing_is_written(tiny_llm: Path, unequal: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError) as refused:
        run_study(recipe(named(tiny_llm, unequal)), out)
    assert "waive: [chat_template, padding_side]" in str(refused.value)
    with pytest.raises(InputError, match=r"the same: padding_side \(right against left\)") as refused:
        run_study(recipe(named(tiny_llm, unequal, "chat_template")), out)
    assert "chat_template (" not in str(refused.value)
    assert not out.exists()


def test_an_unknown_waiver_is_refused_with_the_recipe(tiny_llm: Path, unequal: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown finding 'paddingside' in waive of the pair 'pair': did you mean"):
        named(tiny_llm, unequal, "paddingside")
    path = tmp_path / "study.yaml"
    path.write_text(
        f"pairs: [{{name: a, base: {tiny_llm}, reasoning: {{backbone: {unequal}}}, waive: [pad_tokn]}}]\n"
        f"tasks: [{TASK}]\n"
        "training: {data: [{name: gsm, instruction: Find., generated: {family: gsm_symbolic, examples: 8}}]}\n"
    )
    with pytest.raises(InputError, match="did you mean 'pad_token'"):
        StudyRecipe.read(path)
    path.write_text(path.read_text().replace("pad_tokn", "pad_token"))
    assert StudyRecipe.read(path).pairs[0].waive == ("pad_token",)


def test_what_was_waived_is_in_the_study_and_on_the_page(tiny_llm: Path, unequal: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    hostile = tmp_path / "hostile"
    shutil.copytree(unequal, hostile)
    edit(hostile / "tokenizer_config.json", bos_token="<script>", padding_side="left")
    waived = ("chat_template", "padding_side", "special_tokens", "vocabulary", "dtype", "token_ids")
    study = run_study(recipe(named(tiny_llm, hostile, *waived)), out)
    found = study["pairs"][0]["audit"]
    # A waiver of what does not differ is no difference.
    assert set(found["waived"]) == {f["name"] for f in found["findings"] if not f["equal"]}
    assert {"chat_template", "padding_side", "special_tokens"} <= set(found["waived"])
    assert "dtype" not in found["waived"]
    assert read_json(out / "audit" / "pair.json") == found == read_json(out / "study.json")["pairs"][0]["audit"]
    page = (out / "report.html").read_text()
    lines = [line for line in page.splitlines() if "Waived: " in line]
    for name in found["waived"]:
        assert sum(f"Waived: {name}, " in line for line in lines) == 1
        assert f"Waived: {name}, " in (out / "report.md").read_text().replace("\\_", "_")
    assert len(lines) == len(found["waived"])
    assert any("padding_side, right against left: " in line for line in lines)
    assert any("bos &lt;script&gt;" in line for line in lines)
    assert page.count("<script") == 1  # ours
    found["waived"] = []
    assert "Waived: " not in render(study, out)


def test_a_model_made_here_is_audited_before_any_embedder_is_made(tiny_llm: Path, tmp_path: Path) -> None:
    pair = Pair("tiny-sft", str(tiny_llm), Reasoning(sft=SFTRecipe(examples=8, check_examples=2)))
    steps = plan_study(recipe(pair), tmp_path / "out")
    names = [step.name for step in steps]
    assert names.index("audit/tiny-sft") == names.index("sft/tiny-sft") + 1
    assert names.index("audit/tiny-sft") < min(k for k, name in enumerate(names) if name.startswith("convert/"))
    outcomes = run_steps(only(steps, "sft/tiny-sft", "audit/tiny-sft"), tmp_path / "steps")
    facts = outcomes["audit/tiny-sft"].facts
    assert (facts["equal"], facts["waived"]) == (True, [])
    assert facts["models"] == [str(tiny_llm), str(tmp_path / "out" / "backbones" / "tiny-sft")]


def test_a_fine_tuning_that_changes_the_inputs_stops_its_pair(
    tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fine_tune(recipe: SFTRecipe, backbone: str, output: Path, *, overwrite: bool) -> dict[str, Any]:
        shutil.copytree(tiny_llm, output, dirs_exist_ok=True)
        edit(output / "tokenizer_config.json", padding_side="left")
        return {}

    monkeypatch.setattr("st_reasoning.study.layout.fine_tune", fine_tune)
    out = tmp_path / "out"
    arm = Reasoning(sft=SFTRecipe(examples=8))
    outcomes = run_steps(plan_study(recipe(Pair("tiny-sft", str(tiny_llm), arm)), out), out / "steps")
    states = {name: outcome.state for name, outcome in outcomes.items()}
    assert states.pop("audit/tiny-sft") == "failed"
    assert states.pop("sft/tiny-sft") == states.pop("texts") == "ran"
    assert set(states.values()) == {"skipped"}  # the base arm too: no other pair wants it
    assert "padding_side (right against left)" in outcomes["train/tiny-llama/seed-0"].reason
    assert "'waive: [padding_side]'" in outcomes["evaluate/tiny-sft/seed-0"].reason
    assert not (out / "audit" / "tiny-sft.json").exists()
    assert not (out / "embedders").exists()

    waived = recipe(Pair("tiny-sft", str(tiny_llm), arm, waive=("padding_side",)))
    steps = only(plan_study(waived, out), "sft/tiny-sft", "audit/tiny-sft")
    outcomes = run_steps(steps, out / "steps")
    assert [o.state for o in outcomes.values()] == ["done", "ran"]  # a waiver does not make the fine-tuning run again
    assert outcomes["audit/tiny-sft"].facts["waived"] == ["padding_side"]


def test_a_base_that_another_pair_wants_is_not_stopped(tiny_llm: Path, tmp_path: Path) -> None:
    made = Pair("tiny-sft", str(tiny_llm), Reasoning(sft=SFTRecipe(examples=8)))
    other = Pair("other", str(tiny_llm), Reasoning(backbone=str(make_llama(tmp_path / "other", seed=1))))
    steps = {step.name: step for step in plan_study(recipe(made, other), tmp_path / "out")}
    assert steps["train/tiny-llama/seed-0"].after == ("audit/tiny-sft", "audit/other")
    assert steps["train/tiny-sft/seed-0"].after == ("audit/tiny-sft",)
    assert steps["hrsa/tiny-sft/seed-0"].after == ("audit/tiny-sft",)


def test_a_fine_tuning_in_another_dtype_is_refused_before_it_runs(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "half")
    edit(base / "config.json", dtype="bfloat16")
    out = tmp_path / "out"

    def pair(dtype: str, *waive: str) -> Pair:
        return Pair("a", str(base), Reasoning(sft=SFTRecipe(dtype=dtype)), waive=waive)

    with pytest.raises(
        InputError, match=r"stored as bfloat16, the fine-tuning would write float32.*'waive: \[dtype\]'"
    ):
        run_study(recipe(pair("float32")), out)
    assert not out.exists()
    plan_study(recipe(pair("bfloat16")), out)
    plan_study(recipe(pair("float32", "dtype")), out)


def test_a_waiver_does_no_work_again_but_the_audit(tiny_llm: Path, tmp_path: Path) -> None:
    other = make_llama(tmp_path / "other", seed=1)
    before, after = (
        keys(plan_study(recipe(named(tiny_llm, other, *waive)), tmp_path / "out")) for waive in ((), ("max_length",))
    )
    assert {name for name in before if before[name] != after[name]} == {"audit/pair"}


def test_the_template_of_the_study_is_the_one_audited(tiny_llm: Path, tmp_path: Path) -> None:
    other = make_llama(tmp_path / "other", seed=1)
    steps = plan_study(recipe(named(tiny_llm, other), instruction_template="{instruction} ::\n"), tmp_path / "out")
    (outcome,) = run_steps(only(steps, "audit/pair"), tmp_path / "steps").values()
    (boundary,) = (f for f in outcome.facts["findings"] if f["name"] == "prompt_boundary")
    assert boundary["base"] == r"'{instruction} ::\n'"
