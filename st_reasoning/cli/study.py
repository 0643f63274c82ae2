"""The whole study."""

from __future__ import annotations

from pathlib import Path

import click

from st_reasoning.cli.base import JSON, OUTPUT, answer, working


@click.command()
@click.argument("recipe", type=OUTPUT)
@click.option("--output", type=OUTPUT, required=True, help="The study's folder; a second call continues there.")
@JSON
def study(recipe: Path, output: Path, as_json: bool) -> None:
    """Run the whole study of RECIPE (YAML): variants, conversion, training, mteb, HRSA, report.

    What is done is skipped, so an interrupted study is continued by the same command.

    \b
    Example:
      st-reasoning study recipes/smollm2.yaml --output runs/smollm2
    """
    from st_reasoning.study import StudyRecipe, run_study
    from st_reasoning.study.report import answer as sentences

    parsed = StudyRecipe.read(recipe)
    with working():
        found = run_study(parsed, output, say=lambda line: click.echo(line, err=True))
    lines = [f"{pair['name']}: {sentence}" for pair in found["pairs"] for sentence in sentences(pair)]
    answer(found, as_json, "\n".join([*lines, f"Report: {output / 'report.html'}"]))
