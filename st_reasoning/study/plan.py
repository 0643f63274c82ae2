"""A study as a graph of steps, each keyed by the content of everything that goes into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from st_reasoning.errors import InputError, STReasoningError
from st_reasoning.files import content_hash, read_json


@dataclass(frozen=True)
class Step:
    """One unit of work: done once, found again after any interruption.

    Attributes:
        name: Unique; also where its record is kept, e.g. ``"train/smollm2-sft/base/seed-0"``.
        inputs: JSON value of everything that decides the outcome, other than the steps it needs; or a function that
            finds it out, where that means reading files.
        needs: Names of the steps whose outcome it reads.
        output: What it writes; a step is only done while this exists.
        run: Does it; returns JSON facts for the record.
        after: Names of steps of which one must have ended well, or this one is of no use; what it does is the same.
    """

    name: str
    inputs: Any
    needs: tuple[str, ...]
    output: Path
    run: Callable[[], dict[str, Any]]
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a step.

    Attributes:
        name: The step.
        state: ``done`` before, ``ran``, ``failed``, or ``skipped`` because of another step that failed.
        seconds: How long it took when it ran.
        facts: What it returned then; empty for one that failed or was skipped.
        reason: Why it failed or was skipped, in a line.
    """

    name: str
    state: Literal["done", "ran", "failed", "skipped"]
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether its facts and files are there."""
        return self.state in ("done", "ran")


def ended_well(name: str, outcomes: Mapping[str, Outcome]) -> bool:
    """Whether a step is known and its facts and files are there."""
    return name in outcomes and outcomes[name].ok


def keys(steps: Iterable[Step], *, unknown: dict[str, str] | None = None) -> dict[str, str]:
    """Return the content key of every step; it changes when anything upstream of the step changes.

    Args:
        steps: In an order in which each comes after those it needs.
        unknown: Where given, receives why the inputs of a step cannot be found out, instead of an error; such a step
            and those that need it have no key.

    Raises:
        STReasoningError: if two steps have the same name.
        InputError: for inputs that cannot be read.
    """
    found: dict[str, str] = {}
    names = set()
    for step in steps:
        if step.name in names:
            raise STReasoningError(f"two steps are named {step.name}")
        names.add(step.name)
        if unknown is not None and any(need not in found for need in step.needs):
            continue
        try:
            inputs = step.inputs() if callable(step.inputs) else step.inputs
        except InputError as error:
            if unknown is None:
                raise
            unknown[step.name] = str(error)
            continue
        found[step.name] = content_hash(
            {"name": step.name, "inputs": inputs, "needs": {need: found[need] for need in step.needs}}
        )
    return found


def record_of(records: Path, name: str) -> Path:
    """Return the file that remembers that a step is done."""
    return records / f"{name}.json"


def log_of(records: Path, name: str) -> Path:
    """Return the file that keeps what a step said, and its traceback if it failed."""
    return records / f"{name}.log"


def failure_of(records: Path, name: str) -> Path:
    """Return the file that remembers why a step failed the last time."""
    return records / f"{name}.failed.json"


def done_before(step: Step, key: str | None, records: Path) -> Outcome | None:
    """Return the outcome of a step that is done, by its record; None where it is not, or of other inputs."""
    record = record_of(records, step.name)
    if key is None or not record.is_file() or not step.output.exists():
        return None
    known = read_json(record)
    return Outcome(step.name, "done", known["seconds"], known["facts"]) if known["key"] == key else None
