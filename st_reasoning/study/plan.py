"""A study as a graph of steps, each keyed by the content of everything that goes into it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from st_reasoning.errors import STReasoningError
from st_reasoning.files import content_hash, read_json, write_json


@dataclass(frozen=True)
class Step:
    """One unit of work: done once, found again after any interruption.

    Attributes:
        name: Unique; also where its record is kept, e.g. ``"train/smollm2-sft/base/seed-0"``.
        inputs: JSON value of everything that decides the outcome, other than the steps it needs.
        needs: Names of the steps whose outcome it reads.
        output: What it writes; a step is only done while this exists.
        run: Does it; returns JSON facts for the record.
    """

    name: str
    inputs: Any
    needs: tuple[str, ...]
    output: Path
    run: Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """What became of a step.

    Attributes:
        name: The step.
        done: Whether it was found done rather than run.
        seconds: How long it took when it ran.
        facts: What it returned then.
    """

    name: str
    done: bool
    seconds: float
    facts: dict[str, Any]


def keys(steps: Iterable[Step]) -> dict[str, str]:
    """Return the content key of every step; it changes when anything upstream of the step changes.

    Args:
        steps: In an order in which each comes after those it needs.
    """
    found: dict[str, str] = {}
    for step in steps:
        if step.name in found:
            raise STReasoningError(f"two steps are named {step.name}")
        found[step.name] = content_hash(
            {"name": step.name, "inputs": step.inputs, "needs": {need: found[need] for need in step.needs}}
        )
    return found


def run_steps(
    steps: list[Step], records: Path, *, say: Callable[[str], None] = lambda line: None
) -> dict[str, Outcome]:
    """Run what is not done yet, in order.

    Args:
        steps: In an order in which each comes after those it needs.
        records: Folder that remembers what is done; a step's record is written after its output is complete.
        say: Receives a line for each step.
    """
    key_of = keys(steps)
    outcomes: dict[str, Outcome] = {}
    for number, step in enumerate(steps, start=1):
        record = records / f"{step.name}.json"
        place = f"[{number}/{len(steps)}] {step.name}"
        if step.output.exists() and record.is_file() and (known := read_json(record))["key"] == key_of[step.name]:
            say(f"{place}: done before")
            outcomes[step.name] = Outcome(step.name, True, known["seconds"], known["facts"])
            continue
        say(f"{place} ...")
        start = time.perf_counter()
        facts = step.run()
        seconds = round(time.perf_counter() - start, 1)
        write_json(record, {"key": key_of[step.name], "seconds": seconds, "facts": facts})
        say(f"{place}: {seconds:.0f} s")
        outcomes[step.name] = Outcome(step.name, False, seconds, facts)
    return outcomes
