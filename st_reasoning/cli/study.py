"""The whole study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from st_reasoning.cli.base import JSON, OUTPUT, answer, given, working


@click.command()
@click.argument("recipe", type=OUTPUT)
@click.option("--output", type=OUTPUT, required=True, help="The study's folder; a second call continues there.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Steps side by side.")
@click.option("--executor", type=click.Choice(["here", "processes", "slurm", "local-submitit"]),
              help="By default here, or with several jobs in processes of their own.")  # fmt: skip
@click.option("--partition", help="For slurm.")
@click.option("--gpus", type=click.IntRange(min=0), help="For slurm: of each job.")
@click.option("--cpus", type=click.IntRange(min=1), help="For slurm: of each job.")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), default=24.0, show_default=True,
              help="For slurm: the longest that a job may take.")  # fmt: skip
@JSON
def study(
    recipe: Path,
    output: Path,
    as_json: bool,
    jobs: int,
    executor: Any,
    partition: str | None,
    gpus: int | None,
    cpus: int | None,
    hours: float,
) -> None:
    """Run the whole study of RECIPE (YAML): variants, conversion, training, mteb, HRSA, report.

    What is done is skipped, so an interrupted study is continued by the same command. A step that fails does not stop
    the others; the exit code is 1 then, and the report says what is missing.

    \b
    Example:
      st-reasoning study recipes/smollm2.yaml --output runs/smollm2
      st-reasoning study recipes/paper-study.yaml --output runs/paper --executor slurm --jobs 32 --gpus 4
    """
    from st_reasoning.study import IncompleteError, Running, StudyRecipe, run_study
    from st_reasoning.study.report import answer as sentences

    parsed = StudyRecipe.read(recipe)
    limits = {"slurm_partition": partition, "gpus_per_node": gpus, "cpus_per_task": cpus}
    running = Running(
        executor=executor or ("here" if jobs == 1 else "processes"),
        jobs=jobs,
        parameters={**given(limits), "timeout_min": max(1, round(60 * hours))},
    )
    failure = None
    with working():
        try:
            found = run_study(parsed, output, say=lambda line: click.echo(line, err=True), running=running)
        except IncompleteError as error:
            failure, found = error, error.study
    lines = [f"{pair['name']}: {sentence}" for pair in found["pairs"] for sentence in sentences(pair)]
    answer(found, as_json, "\n".join([*lines, f"Report: {output / 'report.html'}"]))
    if failure is not None:
        raise failure
