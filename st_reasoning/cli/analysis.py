"""Commands on representations: hrsa, realignment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from st_reasoning.cli.base import JSON, OUTPUT, OVERWRITE, answer, working
from st_reasoning.files import read_json, refuse_existing_file, write_json, write_text


@click.command()
@click.argument("model_a")
@click.argument("model_b")
@click.option("--texts", type=OUTPUT, required=True, help="JSONL with 'text' and, for the probe, 'label' in each row.")
@click.option("--output", type=OUTPUT, required=True, help="The folder to write.")
@click.option(
    "--attention", type=click.Choice(["causal", "bidirectional"]), default="causal", show_default=True,
    help="Of a backbone; an embedder has its own.",
)  # fmt: skip
@click.option(
    "--estimator", type=click.Choice(["fast", "exact"]),
    help="exact: all tokens, all pairs, as in the paper; by default fast from 8 texts on.",
)  # fmt: skip
@click.option("--probe", type=click.Choice(["logistic", "ridge"]), default="logistic", show_default=True)
@click.option("--k", type=click.IntRange(min=1), multiple=True, default=(5, 10, 50), show_default=True,
              help="Numbers of neighbours; repeatable.")  # fmt: skip
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longer texts are cut.")
@click.option("--batch-tokens", type=click.IntRange(min=1), default=1024, show_default=True, help="Per forward pass.")
@click.option("--ceiling", is_flag=True, help="Compare MODEL_A with itself at another precision too: two passes more.")
@click.option("--cache", type=OUTPUT, help="Keep hidden states in this folder, for a killed run and for later ones.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of splits and samples.")
@click.option("--fail-if", multiple=True, metavar="CONDITION",
              help='End with exit code 1 where this holds, e.g. "linear_cka.final<0.95"; repeatable.')  # fmt: skip
@OVERWRITE
@JSON
def hrsa(model_a: str, model_b: str, texts: Path, output: Path, overwrite: bool, as_json: bool, **options: Any) -> None:
    """Compare the representations of two models layer by layer; writes hrsa.json and a figure per measure.

    MODEL_A and MODEL_B are embedder folders, looked at as they are, or backbones, looked at as language models. They
    may differ in depth, width and tokenizer. A condition of --fail-if is ADDRESS.LAYER, one of < <= > >=, and a
    number; LAYER is final, first, min, max, mean or a number, ADDRESS a value of hrsa.json or a measure.

    \b
    Example:
      st-reasoning hrsa embedders/base embedders/reasoning --texts texts.jsonl --output runs/hrsa \\
          --fail-if "linear_cka.final<0.95" --fail-if "knn_overlap.10.min<0.5"
    """
    from st_reasoning.hrsa import summary
    from st_reasoning.hrsa.gate import parse
    from st_reasoning.study.steps import compare_models

    conditions = [parse(text, options["k"]) for text in options.pop("fail_if")]
    with working():
        panel = compare_models(model_a, model_b, texts, output, overwrite=overwrite, **options)
    answer(panel, as_json, summary(panel))
    if failures := [said for condition in conditions if (said := condition.failure(panel)) is not None]:
        for said in failures:
            click.echo(f"Failed: {said}", err=True)
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("backbones", type=OUTPUT)
@click.argument("embedders", type=OUTPUT)
@click.option("--output", type=OUTPUT, help="A JSON file to write.")
@click.option("--report", type=OUTPUT, help="An HTML page to write: the report of EMBEDDERS, and what changed.")
@click.option("--overwrite", is_flag=True, help="Replace the files.")
@JSON
def realignment(
    backbones: Path, embedders: Path, output: Path | None, report: Path | None, overwrite: bool, as_json: bool
) -> None:
    """Show what contrastive training changed between two models, level by level, in words.

    BACKBONES and EMBEDDERS are two hrsa.json, or their folders: of the models before and after, on the same texts.

    \b
    Example:
      st-reasoning realignment runs/hrsa-backbones runs/hrsa-embedders --report runs/realignment.html
    """
    from st_reasoning.hrsa.html import render
    from st_reasoning.hrsa.realignment import realignment as compare
    from st_reasoning.hrsa.realignment import summary

    for path in (output, report):
        if path is not None:
            refuse_existing_file(path, overwrite=overwrite)
    panels = [read_json(path / "hrsa.json" if path.is_dir() else path) for path in (backbones, embedders)]
    found = compare(panels[0], panels[1])
    if output is not None:
        write_json(output, found)
    if report is not None:
        write_text(report, render(panels[1], realignment=found))
    answer(found, as_json, summary(found))
