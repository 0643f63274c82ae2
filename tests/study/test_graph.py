"""The graph of steps itself: order, failure, resumption, several at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from st_reasoning.errors import InputError
from st_reasoning.files import read_json
from st_reasoning.study.executors import perform, share
from st_reasoning.study.graph import run_steps
from st_reasoning.study.lock import locked
from st_reasoning.study.plan import Step, keys


def step(
    name: str, folder: Path, *needs: str, after: tuple[str, ...] = (), run: Callable[[], None] = lambda: None
) -> Step:
    def work() -> dict[str, Any]:
        run()
        (folder / name).write_text("x")
        return {"name": name}

    return Step(name, 0, needs, folder / name, work, after)


def fail() -> None:
    raise RuntimeError("out of\nmemory")


def test_a_failure_stops_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    said: list[str] = []
    steps = [
        step("a", tmp_path, run=fail),
        step("b", tmp_path, "a"),
        step("c", tmp_path),
        step("d", tmp_path, "b", "c"),
        step("e", tmp_path, "c"),
    ]
    outcomes = run_steps(steps, tmp_path / "records", say=said.append)
    assert list(outcomes) == ["a", "b", "c", "d", "e"]
    assert {name: o.state for name, o in outcomes.items()} == {
        "a": "failed", "b": "skipped", "c": "ran", "d": "skipped", "e": "ran",
    }  # fmt: skip
    assert outcomes["a"].reason == "RuntimeError: out of memory"
    assert outcomes["d"].reason == "a failed: RuntimeError: out of memory"
    assert "[4/5] d: skipped (a failed: RuntimeError: out of memory)" in said
    assert 'raise RuntimeError("out of\\nmemory")' in (tmp_path / "records" / "a.log").read_text()
    assert read_json(tmp_path / "records" / "a.failed.json")["reason"] == outcomes["a"].reason

    steps[0] = step("a", tmp_path)
    outcomes = run_steps(steps, tmp_path / "records")
    assert [o.state for o in outcomes.values()] == ["ran", "ran", "done", "ran", "done"]
    assert not (tmp_path / "records" / "a.failed.json").exists()


def test_one_open_gate_is_enough(tmp_path: Path) -> None:
    gates = [step("shut", tmp_path, run=fail), step("open", tmp_path)]
    steps = [*gates, step("a", tmp_path, after=("shut", "open")), step("b", tmp_path, after=("shut",))]
    outcomes = run_steps(steps, tmp_path / "records")
    assert [o.state for o in outcomes.values()] == ["failed", "ran", "ran", "skipped"]
    # What a step comes after is no part of what it does.
    assert keys(steps)["a"] == keys([step("a", tmp_path)])["a"]
    assert [o.state for o in run_steps(steps[2:3], tmp_path / "records").values()] == ["done"]


def test_a_step_that_leaves_nothing_has_failed(tmp_path: Path) -> None:
    lazy = Step("lazy", 0, (), tmp_path / "missing", dict)
    outcomes = run_steps([lazy, step("next", tmp_path, "lazy")], tmp_path / "records")
    assert outcomes["lazy"].reason == f"it ended without {tmp_path / 'missing'}"
    assert outcomes["next"].state == "skipped"


def test_a_step_that_found_what_no_record_holds_has_failed_alone(tmp_path: Path) -> None:
    def score() -> dict[str, Any]:
        (tmp_path / "nan").write_text("x")
        return {"Task": float("nan")}

    steps = [Step("nan", 0, (), tmp_path / "nan", score), step("other", tmp_path)]
    outcomes = run_steps(steps, tmp_path / "records")
    assert [o.state for o in outcomes.values()] == ["failed", "ran"]
    assert outcomes["nan"].reason.startswith("ValueError: ")


class Pool:
    """Runs several steps at once; they end in any order."""

    def __init__(self, slots: int, records: Path) -> None:
        self.slots, self.records, self.random = slots, records, random.Random(0)
        self.open, self.most = 0, 0

    def start(self, step: Step, key: str) -> Any:
        self.open += 1
        self.most = max(self.most, self.open)
        pool = self

        class Later:
            def ended(self) -> bool:
                if pool.random.random() < 0.5:
                    return False
                perform(step, key, pool.records)
                pool.open -= 1
                return True

            def failure(self) -> str:
                return "no reason"

        return Later()

    def close(self) -> None:
        assert not self.open


def test_several_at_once_never_before_what_they_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("st_reasoning.study.graph.POLL", 0)
    draw, ended, steps = random.Random(1), list[str](), list[Step]()
    for number in range(60):
        needs = tuple(draw.sample([s.name for s in steps], min(len(steps), draw.randrange(3))))

        def run(name: str = str(number), needs: tuple[str, ...] = needs) -> None:
            assert set(needs) <= set(ended)
            ended.append(name)

        steps.append(step(str(number), tmp_path, *needs, run=run))
    pool = Pool(4, tmp_path / "records")
    outcomes = run_steps(steps, tmp_path / "records", executor=pool)
    assert {o.state for o in outcomes.values()} == {"ran"}
    assert pool.most == 4
    assert len(ended) == 60


def test_a_long_chain_of_done_steps_is_walked(tmp_path: Path) -> None:
    chain = [step(str(n), tmp_path, *([str(n - 1)] if n else [])) for n in range(2000)]
    run_steps(chain, tmp_path / "records")
    assert {o.state for o in run_steps(chain, tmp_path / "records").values()} == {"done"}


def test_inputs_that_cannot_be_read_are_an_error_unless_asked_why(tmp_path: Path) -> None:
    def unreadable() -> Any:
        raise InputError("no such file: data.jsonl")

    steps = [Step("a", unreadable, (), tmp_path, dict), step("b", tmp_path, "a"), step("c", tmp_path)]
    with pytest.raises(InputError, match="no such file"):
        keys(steps)
    unknown: dict[str, str] = {}
    assert set(keys(steps, unknown=unknown)) == {"c"}
    assert unknown == {"a": "no such file: data.jsonl"}


def test_a_folder_has_one_master(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    with (
        locked(folder),
        pytest.raises(InputError, match=r"is being worked on by process \d+ on .*; wait"),
        locked(folder),
    ):
        pass
    with locked(folder):  # the file that is left holds nobody up
        assert (folder / ".lock").is_file()


def test_processes_share_cores_and_gpus() -> None:
    assert share({"OMP_NUM_THREADS": "8", "CUDA_VISIBLE_DEVICES": ""}, 0, 3) == {"OMP_NUM_THREADS": "2"}
    assert share({"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "4,6"}, 3, 4) == {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "6",
    }
    assert share({"OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "4,6"}, 0, 1) == {"OMP_NUM_THREADS": "4"}
