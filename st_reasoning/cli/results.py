"""Commands on results folders of mteb: show, compare, export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from st_reasoning.cli.base import JSON, OUTPUT, OVERWRITE, answer
from st_reasoning.errors import InputError
from st_reasoning.files import refuse_existing_file, write_json, write_text

if TYPE_CHECKING:
    from st_reasoning.results import LeftOut

RESULTS = click.option(
    "--results", "folder", type=OUTPUT, default=Path("results"), show_default=True,
    help="What was given to mteb as output folder.",
)  # fmt: skip
BENCHMARK = click.option("--benchmark", help="Only the tasks of this benchmark of mteb, as it takes them.")
REPLACE = click.option("--overwrite", is_flag=True, help="Replace the output file.")


@click.group()
def results() -> None:
    """Read mteb results: who scores what, who is better, and how to hand it in."""


@results.command()
@RESULTS
@BENCHMARK
@click.option("--output", type=OUTPUT, help="A .html, .csv or .json file to write.")
@REPLACE
@JSON
def show(folder: Path, benchmark: str | None, output: Path | None, overwrite: bool, as_json: bool) -> None:
    """Show a table of all models by task, type and benchmark, with mteb's own means and ranks.

    Files that cannot be used are named and left out. An HTML page is written because `mteb leaderboard` of mteb 2.26
    shows registered models on its own benchmarks only, and stops at any table that is not empty.

    \b
    Example:
      st-reasoning results show --results runs/smollm2/mteb --output scores.html
    """
    from st_reasoning.results import read_results
    from st_reasoning.results.html import overview_page, overview_table
    from st_reasoning.results.show import overview, overview_mapping, overview_text

    kind = _kind(output, ("html", "csv", "json"), overwrite)
    found = overview(read_results(folder), benchmark)
    facts = overview_mapping(found)
    _write(
        output,
        kind,
        {"html": lambda: overview_page(found), "csv": lambda: overview_table(found), "json": lambda: facts},
    )
    _name_left_out(found.left_out)
    answer(facts, as_json, overview_text(found))


@results.command()
@click.argument("models", nargs=-1, required=True, metavar="A B [...]")
@RESULTS
@BENCHMARK
@click.option("--margin", type=float, default=0.5, show_default=True, help="Points; a smaller difference is none.")
@click.option("--level", type=float, default=0.95, show_default=True, help="Of the intervals; tests have the rest.")
@click.option(
    "--predictions", type=OUTPUT, multiple=True, help="A folder given to mteb as --prediction-folder; repeatable."
)
@click.option("--output", type=OUTPUT, multiple=True, help="A .html, .csv, .md or .json file to write; repeatable.")
@click.option("--overwrite", is_flag=True, help="Replace the output files.")
@JSON
def compare(
    models: tuple[str, ...],
    folder: Path,
    benchmark: str | None,
    margin: float,
    level: float,
    predictions: tuple[Path, ...],
    output: tuple[Path, ...],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Decide between A and B: better, worse, equivalent within the margin, or not decided.

    Each is a model's name, name@revision, the last parts of the folder it was loaded from, or a group of seeds: what
    remains of ".../base/seed-0" without the seed, here base. Names joined by commas are taken together; #experiment
    at the end takes one of mteb's experiments. Further models are compared with A as well. What the intervals mean:
    st_reasoning/results/STATISTICS.md.

    \b
    Example:
      st-reasoning results compare SmolLM2-135M-Instruct.Q4_1 smollm2-sft --results runs/smollm2/mteb \\
          --margin 0.5 --output comparison.html
    """
    from st_reasoning.results import words
    from st_reasoning.results.comparison_html import comparison_page
    from st_reasoning.results.reading import left_out_mapping
    from st_reasoning.results.steps import compare_folder

    kinds = [_kind(path, ("html", "csv", "md", "json"), overwrite) for path in output]
    if len(models) < 2:
        raise InputError(f"expected at least two models to compare, got {models[0]!r} alone")
    found, left_out = compare_folder(
        folder, models, benchmark=benchmark, margin=margin, level=level, predictions=predictions
    )
    facts = {
        "comparisons": [words.to_mapping(each) for each in found],
        "left_out": left_out_mapping(left_out),
    }
    texts: dict[str, Callable[[], Any]] = {
        "html": lambda: comparison_page(found, left_out),
        "csv": lambda: words.table(found),
        "md": lambda: "\n\n".join(words.markdown(each) for each in found) + "\n",
        "json": lambda: facts,
    }
    for path, kind in zip(output, kinds, strict=True):
        _write(path, kind, texts)
    _name_left_out(left_out)
    answer(facts, as_json, "\n\n".join(words.text(each) for each in found))


@results.command()
@click.argument("model")
@click.argument("output", type=OUTPUT)
@RESULTS
@click.option("--hrsa", type=OUTPUT, help="The folder of an hrsa.json, for the model card.")
@click.option("--name", help="The name under which the model is, or will be, on the hub: org/model.")
@click.option("--revision", help="The revision there, a commit; by default that of the results.")
@OVERWRITE
@JSON
def export(
    model: str,
    output: Path,
    folder: Path,
    hrsa: Path | None,
    name: str | None,
    revision: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write the results of MODEL to the folder OUTPUT as the public results repository wants them, and a model card.

    Each of the repository's checks that can run offline is run and told: passed, failed, or out of reach and why. A
    group of seeds is exported run by run: name one. The exit code is 1 if a check fails.

    \b
    Example:
      st-reasoning results export smollm2-sft/seed-0 submission --results runs/smollm2/mteb \\
          --hrsa runs/smollm2/hrsa/smollm2-sft/seed-0
    """
    from st_reasoning.results.export import export_model

    found = export_model(folder, model, output, hrsa=hrsa, name=name, revision=revision, overwrite=overwrite)
    _name_left_out(found.left_out)
    answer(found.to_mapping(), as_json, found.describe())
    if found.failed:
        raise click.exceptions.Exit(1)


def _kind(path: Path | None, known: tuple[str, ...], overwrite: bool) -> str:
    """Return the kind of a file by its ending, before any work."""
    if path is None:
        return ""
    kind = path.suffix.removeprefix(".").lower()
    if kind not in known:
        raise InputError(f"--output {path}: expected a file that ends in {', '.join(f'.{each}' for each in known)}")
    refuse_existing_file(path, overwrite=overwrite)
    return kind


def _write(path: Path | None, kind: str, texts: dict[str, Callable[[], Any]]) -> None:
    if path is not None:
        (write_json if kind == "json" else write_text)(path, texts[kind]())


def _name_left_out(left_out: tuple[LeftOut, ...]) -> None:
    shown = 20
    for each in left_out[:shown]:
        click.echo(f"Not used, {each.kind}: {each.reason}", err=True)
    if len(left_out) > shown:
        click.echo(f"Not used: {len(left_out) - shown} more files; --json and HTML name them all", err=True)
