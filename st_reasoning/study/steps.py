"""The work of a study, one function a step; the commands of the command line call the same ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_reasoning.backbone import (
    Audit,
    audit,
    conversion_of,
    convert,
    load_causal_lm,
    open_model,
    read_record,
    refuse_unequal,
    save_causal_lm,
    save_embedder,
)
from st_reasoning.errors import InputError
from st_reasoning.files import new_folder, read_json, read_jsonl, refuse_existing, write_json, write_jsonl
from st_reasoning.problems import gsm_problems, held_out_templates
from st_reasoning.study.tasks import find_tasks

if TYPE_CHECKING:
    from st_reasoning.attention import Attention
    from st_reasoning.study.recipe import Corpus


def import_backbone(backbone: str, output: Path) -> dict[str, Any]:
    """Write a backbone as a plain causal-LM folder: GGUF is read, an adapter merged, a language part taken out once."""
    model, tokenizer = load_causal_lm(backbone)
    with new_folder(output, overwrite=True) as scratch:
        save_causal_lm(model, tokenizer, scratch)
    return {"backbone": backbone, "parameters": int(model.num_parameters())}


def audit_pair(
    base: str, reasoning: str, output: Path, *, waive: tuple[str, ...], instruction_template: str
) -> dict[str, Any]:
    """Write what two backbones are given as JSON, and refuse them if they differ in what is not waived.

    Raises:
        InputError: naming each such difference; nothing is written then.
    """
    return write_audit(audit(base, reasoning, instruction_template=instruction_template), output, waive=waive)


def write_audit(found: Audit, output: Path, *, waive: tuple[str, ...]) -> dict[str, Any]:
    """Write an audit, with the names of the differences that were waived, unless it must be refused."""
    refuse_unequal(found, waive=waive)
    facts = {**found.to_mapping(), "waived": [finding.name for finding in found.differences]}
    write_json(output, facts)
    return facts


def convert_backbone(backbone: str, output: Path, *, overwrite: bool = False, **options: Any) -> dict[str, Any]:
    """Convert a backbone, prove its attention, write it, and prove the copy.

    Args:
        backbone: See :func:`st_reasoning.convert`.
        output: The folder to write.
        overwrite: Whether to replace what is there.
        **options: As for :func:`st_reasoning.convert`.

    Returns:
        What was done, as in the folder's record.
    """
    refuse_existing(output, overwrite=overwrite)
    model = convert(backbone, **options)
    save_embedder(model, output, overwrite=overwrite)
    return conversion_of(model).to_mapping()


def draw_corpus(corpus: Corpus) -> tuple[list[str], list[str]]:
    """Draw worked solutions of held-out templates; the template is the label of the probe."""
    templates = frozenset(sorted(held_out_templates())[: corpus.templates])
    problems = gsm_problems(corpus.per_template, seed=corpus.seed, templates=templates)
    return [problem.solution for problem in problems], [str(problem.template) for problem in problems]


def write_corpus(corpus: Corpus, output: Path) -> dict[str, Any]:
    """Draw texts and labels and write them as a corpus."""
    texts, labels = draw_corpus(corpus)
    write_jsonl(output, [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)])
    return {"texts": len(texts)}


def read_corpus(path: Path) -> tuple[list[str], list[str] | None]:
    """Read texts and, where every row has one, labels.

    Raises:
        InputError: for a missing or empty file, or a row without text (named by number).
    """
    texts, labels = [], []
    for number, row in enumerate(read_jsonl(path), start=1):
        text = row.get("text")
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{path}, row {number}: expected a text in the column 'text'")
        texts.append(text)
        if row.get("label") is not None:
            labels.append(str(row["label"]))
    if labels and len(labels) < len(texts):
        raise InputError(f"{path}: {len(labels)} of {len(texts)} rows have a label; expected all or none")
    return texts, labels or None


def compare_models(
    model_a: str,
    model_b: str,
    texts: Path,
    output: Path,
    *,
    names: tuple[str, str] | None = None,
    attention: Attention = "causal",
    overwrite: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Compare the representations of two models, layer by layer, and write ``hrsa.json`` and its figures.

    Args:
        model_a: An embedder folder, or a backbone.
        model_b: The other one.
        texts: JSONL, see :func:`read_corpus`.
        output: The folder to write.
        names: What to call the models; by default by the ends of their paths.
        attention: Of a backbone: an LLM is looked at as it was trained, unless told otherwise. An embedder has its own.
        overwrite: Whether to replace what is there.
        **options: As for :func:`st_reasoning.hrsa.panel`.

    Returns:
        The panel.
    """
    from st_reasoning.hrsa import panel, write

    refuse_existing(output, overwrite=overwrite)
    corpus, labels = read_corpus(texts)
    names = names or _names(model_a, model_b)
    a, b = (open_model(name, attention=attention) for name in (model_a, model_b))
    found = panel(a, b, corpus, labels=labels, names=names, **options)
    write(found, output, overwrite=overwrite)
    return found


def refuse_other_order(embedder_a: str, embedder_b: str) -> None:
    """Refuse to compare embedders that were not shown the same examples under the same prompts in the same order.

    Raises:
        InputError: naming the two.
    """
    orders = [read_record(Path(folder))["training"]["data"]["order"] for folder in (embedder_a, embedder_b)]
    if orders[0] != orders[1]:
        raise InputError(
            f"{embedder_a} and {embedder_b} were not trained on the same examples, prompts and order (hashes "
            f"{orders[0][:8]} and {orders[1][:8]}); train both arms by one recipe and seed"
        )


def _names(model_a: str, model_b: str) -> tuple[str, str]:
    """Return what two models are called in tables and figures: the end of their paths where that tells them apart."""
    parts_a, parts_b = Path(model_a).parts, Path(model_b).parts
    for length in range(1, max(len(parts_a), len(parts_b)) + 1):
        names = "/".join(parts_a[-length:]), "/".join(parts_b[-length:])
        if names[0] != names[1]:
            return names
    return f"{parts_a[-1]} (first)", f"{parts_b[-1]} (second)"


def evaluate(
    model: Path, tasks: tuple[str, ...], results: Path, *, benchmarks: tuple[str, ...] = ()
) -> dict[str, float]:
    """Evaluate a sentence-transformers folder on mteb tasks, with mteb's own cache below ``results``.

    What it answered to each query or example is kept too: `st-reasoning results compare` then has intervals over them.

    Args:
        model: The folder.
        tasks: Names of tasks.
        results: The folder of results; what it holds already is not done again.
        benchmarks: Names of benchmarks, whose tasks are asked in their way.

    Returns:
        The main score of each task, in mteb's scale of 0 to 1.
    """
    import mteb
    from mteb.cache import ResultCache

    found = list(find_tasks(tasks, benchmarks).values())
    embedder = mteb.get_model(str(model.resolve()))
    described = embedder.mteb_model_meta
    cache = ResultCache(results)
    # A folder of its own: in a common one the second model's answers would stand under the first one's name.
    answers = results.joinpath("predictions", *model.resolve().parts[-2:])
    scores = cache.get_task_result_path("any", described).parent
    _drop_halves(answers, scores, described.revision)
    evaluated = mteb.evaluate(embedder, found, cache=cache, prediction_folder=answers, co2_tracker=False)
    if not (scores / "model_meta.json").is_file():  # killed after the last result; mteb writes this one with a result
        write_json(scores / "model_meta.json", json.loads(json.dumps(described.to_dict(), default=str)))
    return {result.task_name: float(result.get_score()) for result in evaluated.task_results}


def _drop_halves(answers: Path, scores: Path, revision: str | None) -> None:
    """Remove what a killed mteb wrote in part, and answers of another model that was in this place before.

    mteb writes into the files themselves, and adds to answers that are there under the name of the model they were of.
    """
    for path in (*answers.glob("*.json"), *scores.glob("*.json*")):
        try:
            found: Any = read_jsonl(path) if path.suffix == ".jsonl" else read_json(path)
        except InputError:
            path.unlink()
            continue
        if path.parent == answers and found.get("mteb_model_meta", {}).get("revision") != revision:
            path.unlink()
