"""Run what is missing of a study, and report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from st_reasoning.backbone import refuse_unequal, resolve
from st_reasoning.backbone.inputs import stored_dtype
from st_reasoning.backbone.sources import is_plain
from st_reasoning.config import write_resolved
from st_reasoning.errors import InputError, STReasoningError
from st_reasoning.study.contents import Contents
from st_reasoning.study.executors import Cluster, Executor, Here, Processes
from st_reasoning.study.graph import run_steps
from st_reasoning.study.layout import lay_out
from st_reasoning.study.lock import locked
from st_reasoning.study.plan import Outcome, Step
from st_reasoning.study.recipe import Pair, StudyRecipe
from st_reasoning.study.report import write_report
from st_reasoning.study.summary import summarise

RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class Running:
    """Where the steps of a study are run.

    Attributes:
        executor: ``here``, one after the other in this process; ``processes`` of their own; ``slurm``, as jobs of a
            cluster; or ``local-submitit``, as such jobs on this machine.
        jobs: How many at once.
        parameters: For jobs: what submitit's AutoExecutor is told.
    """

    executor: Literal["here", "processes", "slurm", "local-submitit"] = "here"
    jobs: int = 1
    parameters: dict[str, Any] = field(default_factory=dict)

    def open(self, output: Path) -> Executor:
        """Return the executor for a study's folder, which holds its resolved recipe.

        Raises:
            InputError: if no jobs can be started from here.
            MissingExtraError: for jobs, without submitit.
        """
        if self.executor == "here":
            return Here(output / "steps")
        if self.executor == "processes":
            return Processes(output / RECIPE, output, self.jobs)
        kind = "slurm" if self.executor == "slurm" else "local"
        return Cluster(output / RECIPE, output, self.jobs, kind=kind, parameters=self.parameters)


class IncompleteError(STReasoningError):
    """A study that ended without some of its steps.

    Attributes:
        study: The content of ``study.json`` all the same.
        outcomes: What became of each step.
    """

    def __init__(self, study: dict[str, Any], outcomes: dict[str, Outcome], output: Path) -> None:
        failed = [outcome for outcome in outcomes.values() if outcome.state == "failed"]
        skipped = sum(outcome.state == "skipped" for outcome in outcomes.values())
        said = "; ".join(f"{outcome.name}: {outcome.reason}" for outcome in failed)
        super().__init__(
            f"{len(failed)} of {len(outcomes)} steps failed and {skipped} that need them were skipped. {said}. "
            f"Logs are in {output / 'steps'}; the same command tries them again"
        )
        self.study, self.outcomes = study, outcomes


def run_study(
    recipe: StudyRecipe,
    output: Path,
    *,
    say: Callable[[str], None] = lambda line: None,
    running: Running | None = None,
) -> dict[str, Any]:
    """Run every step of a study that is not done yet and write ``study.json`` and the report.

    Args:
        recipe: The study.
        output: Its folder; a second call with the same recipe continues there.
        say: Receives a line for each step.
        running: Where the steps are run; by default here, one after the other.

    Returns:
        The content of ``study.json``.

    Raises:
        InputError: for a backbone, task or file that does not exist, or a pair whose arms are not given the same:
            nothing is written then. Also if another process works on the folder.
        IncompleteError: if steps failed; the others have been run, and the report says what is missing.
    """
    steps = plan_study(recipe, output)
    with locked(output):
        write_resolved(output / RECIPE, recipe)
        executor = (running or Running()).open(output)
        outcomes = run_steps(steps, output / "steps", say=say, executor=executor)
        study = summarise(recipe, output, outcomes)
        write_report(study, output)
    if not all(outcome.ok for outcome in outcomes.values()):
        raise IncompleteError(study, outcomes, output)
    return study


def plan_study(recipe: StudyRecipe, output: Path) -> list[Step]:
    """Lay out the steps of a study in order, after checking everything that can be checked without running it.

    Raises:
        InputError: for a backbone, task or file that does not exist, or a pair whose arms are not given the same.
    """
    if output.is_file():
        raise InputError(f"the output {output} is a file; expected a folder")
    contents = Contents(recipe)
    for read in (lambda: contents.tasks, lambda: contents.training, lambda: contents.texts):
        read()
    steps = lay_out(recipe, output, contents=contents)
    for pair in recipe.pairs:
        check_pair(pair, contents)
    return steps


def check_pair(pair: Pair, contents: Contents) -> None:
    """Refuse now what the audit of a pair would refuse later.

    Raises:
        InputError: if the two arms are not given the same, or will not be when the one has been made.
    """
    if pair.reasoning.backbone is not None:
        refuse_unequal(contents.audit(pair.base, pair.reasoning.backbone), waive=pair.waive)
        return
    made = pair.reasoning.making
    assert made is not None
    # An imported backbone is a folder in float32 by then.
    stored = stored_dtype(pair.base) if is_plain(resolve(pair.base)) else "float32"
    if stored != made.dtype and "dtype" not in pair.waive:
        raise InputError(
            f"pair {pair.name}: the weights of {pair.base} are stored as {stored}, the fine-tuning would write "
            f"{made.dtype}; give '{'sft' if pair.reasoning.sft else 'rlvr'}' the same dtype, or write "
            "'waive: [dtype]' in the pair if that is meant"
        )
