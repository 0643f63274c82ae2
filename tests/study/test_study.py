"""The study on tiny models: every step for real, resumed, and read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from st_reasoning.backbone import load_causal_lm, read_record
from st_reasoning.cli import main
from st_reasoning.errors import InputError
from st_reasoning.files import read_json, write_jsonl
from st_reasoning.study import Corpus, Pair, Reasoning, StudyRecipe, run_study
from st_reasoning.study.graph import run_steps
from st_reasoning.study.plan import Step, keys
from st_reasoning.study.report import answer
from st_reasoning.study.run import plan_study
from st_reasoning.training import DataSet, Generated, TrainingRecipe
from st_reasoning.variants import SFTRecipe
from tests.models import make_llama, write_adapter

TASK = "GSMSymbolicSolutionRetrieval"


def recipe(base: Path, **changes: Any) -> StudyRecipe:
    defaults: dict[str, Any] = {
        "pairs": (Pair("tiny-sft", str(base), Reasoning(sft=SFTRecipe(examples=8, check_examples=2))),),
        "training": TrainingRecipe(
            data=(DataSet("gsm", "Find the solution.", generated=Generated("gsm_symbolic", 16)),),
            hard_negatives=1, batch_size=8, max_seq_length=64, learning_rate=1e-3,
        ),
        "tasks": (TASK,),
        "seeds": (0, 1),
        "hrsa": Corpus(templates=3, per_template=6),
    }  # fmt: skip
    return StudyRecipe(**{**defaults, **changes})


@pytest.fixture(scope="module")
def finished(tiny_llm: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str]]:
    said: list[str] = []
    folder = tmp_path_factory.mktemp("study") / "out"
    return folder, run_study(recipe(tiny_llm), folder, say=said.append), said


def test_a_study_compares_both_arms_and_says_so(finished: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, study, _ = finished
    assert read_json(folder / "study.json") == study
    (pair,) = study["pairs"]
    (task,) = pair["tasks"]
    for seed in task["seeds"]:
        assert seed["difference"] == pytest.approx(seed["reasoning"] - seed["base"], abs=1e-3)
    assert task["trained"]["base"] == pytest.approx(sum(s["base"] for s in task["seeds"]) / 2, abs=1e-3)
    page = (folder / "report.html").read_text()
    for number in (task["untrained"]["base"], *(s["reasoning"] for s in task["seeds"])):
        assert f"{number:.2f}" in page
    assert page.count('<svg class="plot"') >= 8
    assert "http" not in page.replace("http-equiv", "")
    assert answer(pair)[0] == f"{pair['answer']['advice']}. {pair['answer']['sentences'][0]}"
    text = (folder / "report.md").read_text()
    for said in pair["answer"]["sentences"]:
        assert said in page
        assert said.replace("_", "\\_") in text


def test_scores_in_the_study_are_those_that_mteb_wrote(finished: tuple[Path, dict[str, Any], list[str]]) -> None:
    """Each embedder has a result of its own: nothing was answered from another model's cache entry."""
    from st_reasoning.results import read_scores

    folder, study, _ = finished
    scores = read_scores(folder / "mteb")
    assert len({(s.model, s.revision) for s in scores}) == len(scores) == 6
    task = study["pairs"][0]["tasks"][0]
    wanted = [task["untrained"][arm] for arm in ("base", "reasoning")]
    wanted += [seed[arm] for seed in task["seeds"] for arm in ("base", "reasoning")]
    assert sorted(100 * s.main_score for s in scores) == pytest.approx(sorted(wanted), abs=1e-3)


def test_the_answers_to_each_query_give_the_comparison_its_interval(
    finished: tuple[Path, dict[str, Any], list[str]],
) -> None:
    folder, study, _ = finished
    command = ["results", "compare", "tiny-llama", "tiny-sft", "--results", str(folder / "mteb"), "--json"]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)["comparisons"][0]["rows"][0]
    assert row["name"] == TASK
    assert row["difference"] == pytest.approx(study["pairs"][0]["tasks"][0]["trained"]["difference"], abs=1e-3)
    assert row["interval"]["units"] == {"seeds": 2, "examples": 80}
    # The study's statistics are those of the command.
    assert study["pairs"][0]["comparison"]["rows"] == json.loads(done.stdout)["comparisons"][0]["rows"]


def test_arms_differ_and_share_their_data(finished: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, _, _ = finished
    records = [read_record(p.parent) for p in sorted(folder.glob("embedders/*/seed-*/st_reasoning.json"))]
    assert len(records) == 4
    assert len({r["training"]["data"]["hash"] for r in records}) == 1
    panel = read_json(folder / "hrsa/tiny-sft/backbones/hrsa.json")
    assert [m["attention"] for m in panel["models"]] == ["causal", "causal"]
    tokens = panel["corpus"]["tokens"]
    panel = read_json(folder / "hrsa/tiny-sft/seed-1/hrsa.json")
    assert panel["corpus"]["tokens"] == tokens  # a backbone reads further than an embedder, unless told not to
    assert [m["attention"] for m in panel["models"]] == ["bidirectional", "bidirectional"]
    assert panel["layers"][-1]["linear_cka"]["biased"] < 1


def test_a_second_call_does_nothing_again(finished: tuple[Path, dict[str, Any], list[str]], tiny_llm: Path) -> None:
    folder, study, first = finished
    said: list[str] = []
    assert run_study(recipe(tiny_llm), folder, say=said.append) == study
    assert all(line.endswith("done before") for line in said)
    assert not any(line.endswith("done before") for line in first)


def test_what_changed_is_done_again_and_nothing_else(
    finished: tuple[Path, dict[str, Any], list[str]], tiny_llm: Path, tmp_path: Path
) -> None:
    folder, _, _ = finished
    before = keys(plan_study(recipe(tiny_llm), folder))
    changed = recipe(tiny_llm, training=replace(recipe(tiny_llm).training, temperature=0.05))
    after = keys(plan_study(changed, folder))
    assert {name.split("/")[0] for name in before if before[name] != after[name]} == {"train", "evaluate", "hrsa"}
    assert before["hrsa/tiny-sft/backbones"] == after["hrsa/tiny-sft/backbones"]
    assert before["evaluate/tiny-llama/untrained"] == after["evaluate/tiny-llama/untrained"]
    other = make_llama(tmp_path / "tiny-llama", seed=9)
    assert keys(plan_study(recipe(other), folder))["train/tiny-llama/seed-0"] != before["train/tiny-llama/seed-0"]


def test_names_from_outside_are_escaped(finished: tuple[Path, dict[str, Any], list[str]]) -> None:
    from st_reasoning.study.report import render

    folder, study, _ = finished
    hostile = json.loads(json.dumps(study))
    hostile["pairs"][0]["base"] = "<script>alert(1)</script>"
    hostile["recipe"]["pairs"][0]["base"] = "</pre><script>alert(2)</script>"
    assert render(hostile, folder).count("<script") == 1  # ours


def test_two_pairs_share_a_base_but_not_a_name(tiny_llm: Path, tmp_path: Path) -> None:
    other = make_llama(tmp_path / "other", seed=1)
    pairs = tuple(Pair(name, str(tiny_llm), Reasoning(backbone=str(other))) for name in ("one", "two"))
    steps = plan_study(recipe(tiny_llm, pairs=pairs), tmp_path / "out")
    names = [step.name for step in steps]
    assert names.count("train/tiny-llama/seed-0") == 1
    clash = make_llama(tmp_path / "elsewhere" / "tiny-llama", seed=2)
    pairs = (Pair("one", str(tiny_llm), Reasoning(backbone=str(clash))),)
    with pytest.raises(InputError, match="two different models of the study are both called 'tiny-llama'"):
        plan_study(recipe(tiny_llm, pairs=pairs), tmp_path / "out")


def with_adapter(base: Path, adapter: Path) -> StudyRecipe:
    return recipe(base, pairs=(Pair("pair", str(base), Reasoning(backbone=str(adapter))),))


def test_an_adapter_is_merged_once_for_all_seeds(tiny_llm: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tiny_llm, tmp_path / "lora", scale=0.3)
    out = tmp_path / "out"
    steps = {step.name: step for step in plan_study(with_adapter(tiny_llm, adapter), out)}
    assert [name for name in steps if name.startswith("import/")] == ["import/lora"]
    for name in ("convert/lora", "train/lora/seed-0", "train/lora/seed-1", "hrsa/pair/backbones"):
        assert "import/lora" in steps[name].needs
    run_steps([steps["import/lora"], steps["convert/lora"]], out / "steps")
    merged = out / "backbones" / "lora"
    assert not list(merged.glob("adapter*"))
    assert read_record(out / "embedders" / "lora" / "untrained")["backbone"] == str(merged)
    wanted, _ = load_causal_lm(str(adapter))
    found, _ = load_causal_lm(str(merged))
    for name, weights in wanted.state_dict().items():
        assert torch.equal(weights, found.state_dict()[name])


def test_an_adapter_on_another_base_is_another_model(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base")
    own = with_adapter(make_llama(tmp_path / "own"), write_adapter(base, tmp_path / "lora", scale=0.3))
    before = keys(plan_study(own, tmp_path / "out"))
    make_llama(base, seed=9)
    after = keys(plan_study(own, tmp_path / "out"))
    changed = {name for name in before if before[name] != after[name]}
    assert {"import/lora", "convert/lora", "train/lora/seed-0"} <= changed
    assert not any(name.split("/")[1:2] == ["own"] for name in changed)


def test_wrong_names_are_refused_before_anything_is_written(tiny_llm: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match=f"unknown task 'GSMSymbolicSolutionRetreival': did you mean '{TASK}'"):
        run_study(recipe(tiny_llm, tasks=("GSMSymbolicSolutionRetreival",)), out)
    with pytest.raises(InputError, match="no such backbone"):
        run_study(recipe(tmp_path / "missing"), out)
    with pytest.raises(InputError, match=r"no such file: .*missing\.jsonl"):
        run_study(recipe(tiny_llm, hrsa=Corpus(texts=str(tmp_path / "missing.jsonl"))), out)
    with pytest.raises(InputError, match="the study has no seeds"):
        recipe(tiny_llm, seeds=())
    with pytest.raises(InputError, match="names one of its tasks twice"):
        recipe(tiny_llm, tasks=(TASK, TASK))
    with pytest.raises(InputError, match="expected exactly one of 'backbone', 'sft' and 'rlvr'"):
        Reasoning()
    assert not out.exists()


def test_a_corpus_of_ones_own_is_part_of_the_key(tiny_llm: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    own = recipe(tiny_llm, hrsa=Corpus(texts=str(path)))
    found = []
    for text in ("one text", "another text"):
        write_jsonl(path, [{"text": text}])
        found.append(keys(plan_study(own, tmp_path / "out"))["hrsa/tiny-sft/backbones"])
    assert found[0] != found[1]


# the graph itself


def step(name: str, folder: Path, done: list[str], *needs: str, inputs: Any = 0, fails: bool = False) -> Step:
    def run() -> dict[str, Any]:
        if fails:
            raise RuntimeError("out of memory")
        done.append(name)
        (folder / name).write_text("x")
        return {"name": name}

    return Step(name, inputs, needs, folder / name, run)


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    done: list[str] = []
    first = [step("a", tmp_path, done), step("b", tmp_path, done, "a", fails=True), step("c", tmp_path, done, "b")]
    outcomes = run_steps(first, tmp_path / "records")
    assert [o.state for o in outcomes.values()] == ["ran", "failed", "skipped"]
    again = [step("a", tmp_path, done), step("b", tmp_path, done, "a"), step("c", tmp_path, done, "b")]
    outcomes = run_steps(again, tmp_path / "records")
    assert done == ["a", "b", "c"]
    assert [o.state for o in outcomes.values()] == ["done", "ran", "ran"]
    (tmp_path / "b").unlink()
    run_steps(again, tmp_path / "records")
    assert done == ["a", "b", "c", "b"]


def test_a_change_upstream_is_a_change_downstream(tmp_path: Path) -> None:
    before = keys([step("a", tmp_path, []), step("b", tmp_path, [], "a"), step("c", tmp_path, [])])
    after = keys([step("a", tmp_path, [], inputs=1), step("b", tmp_path, [], "a"), step("c", tmp_path, [])])
    assert {name for name in before if before[name] != after[name]} == {"a", "b"}


def test_arms_that_were_not_shown_the_same_are_not_compared(tiny_llm: Path, tmp_path: Path) -> None:
    from st_reasoning.study.steps import refuse_other_order
    from st_reasoning.training import train

    settings = recipe(tiny_llm).training
    for seed in (0, 1):
        train(settings, str(tiny_llm), tmp_path / f"seed-{seed}", seed=seed)
    refuse_other_order(str(tmp_path / "seed-0"), str(tmp_path / "seed-0"))
    with pytest.raises(InputError, match="were not trained on the same examples, prompts and order"):
        refuse_other_order(str(tmp_path / "seed-0"), str(tmp_path / "seed-1"))
