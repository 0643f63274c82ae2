"""A cheap look at backbones before training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from st_reasoning.cli.base import JSON, OUTPUT, answer, working
from st_reasoning.errors import InputError
from st_reasoning.files import refuse_existing_file, write_json


@click.command()
@click.argument("backbones", nargs=-1)
@click.option("--recipe", type=OUTPUT, help="A training or study recipe to begin on, instead of generated problems.")
@click.option("--steps", type=click.IntRange(min=1), default=12, show_default=True, help="Of the short training.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="How many short trainings.")
@click.option("--against", type=OUTPUT, help="A study's folder: how well does the ranking agree with its final scores?")
@click.option("--output", type=OUTPUT, help="A JSON file to write.")
@click.option("--overwrite", is_flag=True, help="Replace the file.")
@JSON
def screen(
    backbones: tuple[str, ...],
    recipe: Path | None,
    steps: int,
    seeds: int,
    against: Path | None,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Rank BACKBONES before training: which are worth it, compared with the first one?

    Each is scored as it is and after a short contrastive training, probed, and compared with the first one by HRSA. A
    word stands beside each: go, no-go or undecided, by the interval of its difference from the first. With --against
    and without BACKBONES, those of the study are screened.

    \b
    Example:
      st-reasoning screen Qwen/Qwen3-0.6B-Base Qwen/Qwen3-0.6B --steps 20 --seeds 2
    """
    from st_reasoning.study.screen import Screening, agreement, backbones_of, describe, final_scores
    from st_reasoning.study.screen import screen as run
    from st_reasoning.training import TrainingRecipe

    if output is not None:
        refuse_existing_file(output, overwrite=overwrite)
    settings = Screening(steps=steps, seeds=tuple(range(seeds)))
    if recipe is not None:
        settings = replace(settings, training=TrainingRecipe.read(recipe))
    if against is not None and not backbones:
        backbones = tuple(backbones_of(against).values())
    final = final_scores(against) if against is not None else {}
    if against is not None and not final:
        raise InputError(f"{against} has no scores of trained embedders; expected the folder of a study that has run")
    with working():
        found = run(backbones, settings, say=lambda line: click.echo(line, err=True))
    if against is not None:
        found |= {"against": str(against), "agreement": agreement(found, final)}
    if output is not None:
        write_json(output, found)
    answer(found, as_json, describe(found))
