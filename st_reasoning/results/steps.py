"""From a folder and names to comparisons: reading, what mteb knows, and pairing, in order."""

from __future__ import annotations

from pathlib import Path

from st_reasoning.errors import InputError
from st_reasoning.results.compare import Comparison, compare
from st_reasoning.results.decide import Settings
from st_reasoning.results.examples import Examples
from st_reasoning.results.files import PREDICTIONS
from st_reasoning.results.groups import find_side
from st_reasoning.results.reading import LeftOut, read_results
from st_reasoning.results.tasks import benchmark_infos, leave_out_partial, task_infos


def compare_folder(
    folder: Path,
    names: tuple[str, ...],
    *,
    benchmark: str | None = None,
    margin: float = 0.5,
    level: float = 0.95,
    predictions: tuple[Path, ...] = (),
) -> tuple[list[Comparison], tuple[LeftOut, ...]]:
    """Compare the first name with each other one on the results below a folder.

    Args:
        folder: An mteb output folder.
        names: As :func:`~st_reasoning.results.groups.find_side` takes them.
        benchmark: Only its tasks, with the splits and subsets it takes.
        margin: In points, the difference that would matter.
        level: Of the intervals.
        predictions: Folders given to mteb as ``prediction_folder``, beside what lies below ``folder``.

    Returns:
        The comparisons, and the files that are not used.

    Raises:
        InputError: for names that mean no run or several, a benchmark mteb does not know, or nothing to compare.
    """
    settings = Settings(margin, level)
    for place in predictions:
        if not place.is_dir():
            raise InputError(f"no such folder: {place}; expected what was given to mteb as --prediction-folder")
    results = read_results(folder)
    sides = [find_side(name, results.runs) for name in names]
    benchmarks = benchmark_infos(benchmark)
    if benchmark is not None:
        benchmark, infos = next(iter(benchmarks.items()))
    else:
        infos = task_infos(results.tasks)
    usable = leave_out_partial(results, infos)
    found_predictions = {
        *usable.predictions,
        *(path for place in predictions for path in place.rglob(f"*{PREDICTIONS}")),
    }
    # A partial file may still be all that a benchmark with fewer subsets asks for.
    comparisons = [
        compare(
            results,
            sides[0],
            side,
            infos,
            benchmarks=benchmarks,
            benchmark=benchmark,
            settings=settings,
            examples=Examples.of(sorted(found_predictions)),
        )
        for side in sides[1:]
    ]
    runs = {run.key for side in sides for run in side.runs}
    mine = [each for each in usable.left_out if each.kind != "partial"]
    partial = [each for each in usable.left_out if each.kind == "partial"]
    folders = {run.folder for run in results.runs if run.key in runs}
    return comparisons, (*mine, *(each for each in partial if each.path.parent in folders))
