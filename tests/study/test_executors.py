"""Steps in processes of their own, and as jobs: the same outcome, and every way to end is told."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from st_reasoning.config import write_resolved
from st_reasoning.errors import InputError
from st_reasoning.study import Corpus, Pair, Reasoning, Running, StudyRecipe
from st_reasoning.study.executors import Processes
from st_reasoning.study.graph import run_steps
from st_reasoning.study.plan import Step, keys
from st_reasoning.study.run import RECIPE, plan_study
from st_reasoning.training import DataSet, Generated, TrainingRecipe
from tests.models import make_llama


@pytest.fixture(scope="module")
def recipe(tiny_llm: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyRecipe:
    other = make_llama(tmp_path_factory.mktemp("other") / "other", seed=1)
    return StudyRecipe(
        pairs=(Pair("pair", str(tiny_llm), Reasoning(backbone=str(other))),),
        training=TrainingRecipe(data=(DataSet("gsm", "Find.", generated=Generated("gsm_symbolic", 8)),)),
        tasks=("GSMSymbolicSolutionRetrieval",),
        seeds=(0,),
        hrsa=Corpus(templates=3, per_template=6),
    )


def steps_of(recipe: StudyRecipe, out: Path, *names: str) -> list[Step]:
    write_resolved(out / RECIPE, recipe)
    return [step for step in plan_study(recipe, out) if step.name in names]


def test_processes_do_what_is_done_here(recipe: StudyRecipe, tmp_path: Path) -> None:
    found = {}
    for kind, running in (("here", Running()), ("processes", Running("processes", jobs=2))):
        out = tmp_path / kind
        steps = steps_of(recipe, out, "texts", "audit/pair")
        outcomes = run_steps(steps, out / "steps", executor=running.open(out))
        assert [outcome.state for outcome in outcomes.values()] == ["ran", "ran"]
        found[kind] = ([outcome.facts for outcome in outcomes.values()], (out / "texts.jsonl").read_bytes())
        assert {outcome.state for outcome in run_steps(steps, out / "steps").values()} == {"done"}
    assert found["here"] == found["processes"]


def test_jobs_of_submitit_do_it_too(recipe: StudyRecipe, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    steps = steps_of(recipe, tmp_path, "texts")
    executor = Running("local-submitit", jobs=2, parameters={"timeout_min": 10}).open(tmp_path)
    (outcome,) = run_steps(steps, tmp_path / "steps", executor=executor).values()
    assert (outcome.state, outcome.facts) == ("ran", {"texts": 18})
    with pytest.raises(InputError, match="jobs of slurm cannot be started from this machine"):
        Running("slurm").open(tmp_path)


def test_a_process_that_is_killed_is_a_step_that_failed(recipe: StudyRecipe, tmp_path: Path) -> None:
    steps = steps_of(recipe, tmp_path, "texts")
    executor = Processes(tmp_path / RECIPE, tmp_path, 1)

    class Killing:
        slots = 1

        def start(self, step: Step, key: str) -> object:
            job = executor.start(step, key)
            job.process.kill()  # type: ignore[attr-defined]
            return job

        def close(self) -> None:
            executor.close()

    (outcome,) = run_steps(steps, tmp_path / "steps", executor=Killing()).values()  # type: ignore[arg-type]
    assert outcome.state == "failed"
    assert outcome.reason == f"its process was ended by signal {signal.SIGKILL}, see {tmp_path / 'steps' / 'texts.log'}"


def test_a_process_ends_with_the_one_that_started_it(recipe: StudyRecipe, tmp_path: Path) -> None:
    (step,) = steps_of(recipe, tmp_path, "texts")
    write_resolved(tmp_path / RECIPE, recipe)
    starting = (
        "import sys\nfrom pathlib import Path\nfrom st_reasoning.study.executors import Processes\n"
        "from st_reasoning.study.plan import Step\nout = Path(sys.argv[1])\n"
        "job = Processes(out / 'recipe.yaml', out, 1).start(Step('texts', 0, (), out, dict), sys.argv[2])\n"
        "print(job.process.pid, flush=True)\nsys.stdin.read()\n"
    )
    key = keys([step])["texts"]
    command = [sys.executable, "-c", starting, str(tmp_path), key]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = Path("/proc") / parent.stdout.readline().strip()
        assert child.exists()
        parent.kill()
        parent.wait()
    for _ in range(600):
        if not child.exists() or "\nState:\tZ" in (child / "status").read_text():
            break
        time.sleep(0.1)
    else:
        pytest.fail("the child lives on")


def test_a_failure_in_a_process_is_told_and_kept(recipe: StudyRecipe, tmp_path: Path) -> None:
    steps = steps_of(recipe, tmp_path, "texts")
    (tmp_path / "texts.jsonl").mkdir()
    (tmp_path / "texts.jsonl" / "in the way").write_text("x")
    outcomes = run_steps(steps, tmp_path / "steps", executor=Running("processes").open(tmp_path))
    assert outcomes["texts"].state == "failed"
    assert outcomes["texts"].reason.startswith("IsADirectoryError")
    assert "Traceback (most recent call last)" in (tmp_path / "steps" / "texts.log").read_text()
