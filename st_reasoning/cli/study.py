"""The whole study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from st_reasoning.cli.base import JSON, OUTPUT, answer, given, working
from st_reasoning.errors import InputError


@click.command()
@click.argument("recipe", default="micro")
@click.option("--output", type=OUTPUT, help="The study's folder, by default runs/NAME; a second call continues there.")
@click.option("--jobs", type=click.IntRange(min=1), help="Steps side by side: by default 1, or 100 jobs of slurm.")
@click.option("--executor", type=click.Choice(["here", "processes", "slurm", "local-submitit"]),
              help="By default here, or with several jobs in processes of their own.")  # fmt: skip
@click.option("--partition", help="For slurm.")
@click.option("--gpus", type=click.IntRange(min=0), help="For slurm: of each job.")
@click.option("--cpus", type=click.IntRange(min=1), help="For slurm: of each job.")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True),
              help="For slurm: the longest that a job may take; by default 24.")  # fmt: skip
@click.option("--plan", "only_plan", is_flag=True, help="Show the steps, what exists, and what the rest will cost.")
@click.option("--tflops", type=click.FloatRange(min=0, min_open=True),
              help="For --plan: 10^12 operations a device does in a second; by default measured here.")  # fmt: skip
@JSON
def study(
    recipe: str,
    output: Path | None,
    as_json: bool,
    jobs: int | None,
    executor: Any,
    partition: str | None,
    gpus: int | None,
    cpus: int | None,
    hours: float | None,
    only_plan: bool,
    tflops: float | None,
) -> None:
    """Run the whole study of RECIPE: variants, conversion, training, mteb, HRSA, report.

    RECIPE is a YAML file, or the name of a recipe that comes with st-reasoning; without one it is "micro", on tiny
    models that come with it too.

    What is done is skipped, so an interrupted study is continued by the same command. A step that fails does not stop
    the others; the exit code is 1 then, and the report says what is missing.

    \b
    Example:
      st-reasoning study
      st-reasoning study recipes/smollm2.yaml --output runs/smollm2
      st-reasoning study recipes/paper-study.yaml --output runs/paper --plan --tflops 100
      st-reasoning study recipes/paper-study.yaml --output runs/paper --executor slurm --jobs 32 --gpus 1
    """
    from st_reasoning.study import IncompleteError, Running, StudyRecipe, run_study
    from st_reasoning.study.report import answer as sentences
    from st_reasoning.study.shipped import find_recipe

    limits = {"slurm_partition": partition, "gpus_per_node": gpus, "cpus_per_task": cpus}
    if executor not in ("slurm", "local-submitit") and (given(limits) or hours is not None):
        raise InputError("--partition, --gpus, --cpus and --hours are for --executor slurm, which was not asked for")
    if executor == "here" and jobs not in (None, 1):
        raise InputError("--executor here runs one step after the other; for --jobs name processes or slurm")
    if tflops is not None and not only_plan:
        raise InputError("--tflops is for --plan, which was not asked for")
    path = find_recipe(recipe)
    parsed = StudyRecipe.read(path)
    output = output or Path("runs") / path.stem
    if only_plan:
        from st_reasoning.study.planning import describe, plan

        with working():
            planned = plan(parsed, output, tflops=tflops)
        answer(planned, as_json, describe(planned))
        return
    jobs = jobs or (100 if executor == "slurm" else 1)
    running = Running(
        executor=executor or ("here" if jobs == 1 else "processes"),
        jobs=jobs,
        parameters={**given(limits), "timeout_min": max(1, round(60 * (hours or 24)))},
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
