"""``study --plan``: the steps, what exists of them, and what the rest will cost; nothing is written."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from st_reasoning.backbone import resolve
from st_reasoning.backbone.sources import is_plain
from st_reasoning.errors import InputError
from st_reasoning.study.contents import Contents
from st_reasoning.study.cost import Cost, Costs
from st_reasoning.study.layout import lay_out
from st_reasoning.study.plan import done_before, keys
from st_reasoning.study.recipe import StudyRecipe
from st_reasoning.study.run import check_pair

# Of what a product of matrices reaches; measured for SmolLM2-135M in training and forward passes on two CPU cores.
UTILISATION = 0.5
# Loading of libraries and models.
SECONDS_PER_STEP = 10.0
PARTS = ("tokens", "flops", "disk", "hours")


def plan(recipe: StudyRecipe, output: Path, *, tflops: float | None = None) -> dict[str, Any]:
    """Return the plan of a study as JSON values.

    Args:
        recipe: The study.
        output: Its folder, which need not exist.
        tflops: What a device does in a second, sustained, in 10^12 operations; by default half of what it reaches now
            in a product of matrices.

    Returns:
        ``steps``: each with its state (``done`` or ``to do``), what it needs and what it costs; ``remaining`` and
        ``total``: sums of that; ``throughput``; and ``notes``: what is wrong with the recipe or could not be found out.

    Raises:
        InputError: for a backbone, task or benchmark that does not exist.
    """
    notes: dict[str, None] = {}

    def attempt(what: Callable[[], Any]) -> None:
        try:
            what()
        except InputError as error:
            notes[str(error)] = None

    def plain(backbone: str) -> bool:
        try:
            return is_plain(resolve(backbone))
        except InputError as error:
            notes[str(error)] = None
            return True

    if output.is_file():
        raise InputError(f"the output {output} is a file; expected a folder")
    contents = Contents(recipe)
    contents.found_tasks  # noqa: B018 - unknown names are an error in a plan too
    steps = lay_out(recipe, output, contents=contents, plain=plain)
    for pair in recipe.pairs:
        attempt(lambda pair=pair: check_pair(pair, contents))  # type: ignore[misc]
    unknown: dict[str, str] = {}
    key_of = keys(steps, unknown=unknown)
    notes |= dict.fromkeys(unknown.values())
    costs = Costs(recipe, contents)
    throughput = _throughput(tflops)
    found: list[dict[str, Any]] = []
    for step in steps:
        cost = costs.of(step)
        notes |= dict.fromkeys(cost.unknown)
        state = "done" if done_before(step, key_of.get(step.name), output / "steps") else "to do"
        priced = _priced(cost, throughput["flops_per_second"])
        found.append({"name": step.name, "state": state, "needs": list(step.needs), **priced})
    left = [step for step in found if step["state"] == "to do"]
    return {
        "schema": 1,
        "output": str(output),
        "steps": found,
        "remaining": _sum(left),
        "total": _sum(found),
        "throughput": throughput,
        "notes": list(notes),
    }


def _priced(cost: Cost, flops_per_second: float) -> dict[str, Any]:
    """Return a cost as JSON values, with the hours of a device that it takes."""
    hours = (cost.flops / flops_per_second + SECONDS_PER_STEP) / 3600
    return {**asdict(cost), "hours": hours, "unknown": list(cost.unknown)}


def _sum(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what steps cost together; scratch is freed again, so it is the largest one's."""
    return {
        "steps": len(steps),
        **{part: sum(step[part] for step in steps) for part in PARTS},
        "scratch": max((step["scratch"] for step in steps), default=0.0),
        "incomplete": sum(bool(step["unknown"]) for step in steps),
    }


def _throughput(tflops: float | None) -> dict[str, Any]:
    """Return what a device does in a second, and where that is known from."""
    if tflops is not None:
        return {"flops_per_second": tflops * 1e12, "device": "device", "from": "as given"}
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 4096 if device == "cuda" else 1024
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    times = []
    for _ in range(4):  # the first one is slower
        start = time.perf_counter()
        (matrix @ matrix).sum().item()
        times.append(time.perf_counter() - start)
    reached = 2 * size**3 / min(times)
    said = f"{UTILISATION:.0%} of the {reached / 1e12:.3g} TFLOP/s that a product of matrices reaches here"
    return {"flops_per_second": UTILISATION * reached, "device": "GPU" if device == "cuda" else "CPU", "from": said}


def describe(plan: dict[str, Any]) -> str:
    """Return a plan as a table by kind of step, for a terminal."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for step in plan["steps"]:
        kinds.setdefault(step["name"].partition("/")[0], []).append(step)
    device = plan["throughput"]["device"]
    rows = [("step", "steps", "done", "tokens", "FLOPs", f"{device} time", "disk")]
    for kind, steps in kinds.items():
        left = [step for step in steps if step["state"] == "to do"]
        rows.append((kind, str(len(steps)), str(len(steps) - len(left)), *_cells(_sum(left))))
    total = plan["remaining"]
    rows.append(("all", str(len(plan["steps"])), str(len(plan["steps"]) - total["steps"]), *_cells(total)))
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(wide[0]), *(cell.rjust(width) for cell, width in zip(row[1:], wide[1:], strict=True))])
        for row in rows
    ]
    pace = f"{plan['throughput']['flops_per_second'] / 1e12:.3g} TFLOP/s ({plan['throughput']['from']})"
    lines += [
        "",
        f"Tokens, FLOPs, time and disk are of what is left to do, by estimate: {pace}, {SECONDS_PER_STEP:.0f} s to "
        f"start each step. While it runs, a step needs up to {_bytes(total['scratch'])} more on disk. Not counted: "
        "what the hub sends, mteb's data and predictions, and the panels themselves.",
    ]
    if total["incomplete"]:
        lines.append(f"The sums leave something out of {total['incomplete']} steps, or take an upper bound:")
    return "\n".join([*lines, *(f"- {note}" for note in plan["notes"])])


def _cells(total: dict[str, Any]) -> tuple[str, str, str, str]:
    return f"{total['tokens']:.3g}", f"{total['flops']:.3g}", _hours(total["hours"]), _bytes(total["disk"])


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"


def _bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
