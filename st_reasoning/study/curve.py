"""How the two arms of a pair come closer, or part, while they are trained: HRSA at every kept checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from st_reasoning.backbone import open_model
from st_reasoning.checkpoints import step_of
from st_reasoning.errors import STReasoningError
from st_reasoning.files import write_json
from st_reasoning.study.steps import read_corpus

SCHEMA = 1


def compare_along(
    base: Path, reasoning: Path, texts: Path, output: Path, *, max_tokens: int, k: int, before: tuple[Path, Path]
) -> dict[str, Any]:
    """Compare two trainings checkpoint by checkpoint, at the last layer, and write the curve as JSON.

    Args:
        base: The base arm's trained embedder; its checkpoints lie beside it.
        reasoning: The reasoning arm's.
        texts: JSONL, see :func:`~st_reasoning.study.steps.read_corpus`.
        output: The file to write.
        max_tokens: Longer texts are cut.
        k: Number of neighbours.
        before: The two embedders as they were before training.

    Returns:
        ``points``: for the start, each step that both arms have kept, and the end, the values of
        :class:`~st_reasoning.hrsa.HRSAEvaluator`; 1 where the arms are the same.

    Raises:
        STReasoningError: if the two have no checkpoint in common.
    """
    kept = [_checkpoints(folder) for folder in (base, reasoning)]
    common = sorted(kept[0].keys() & kept[1].keys())
    if not common:
        raise STReasoningError(
            f"{base} and {reasoning} have no checkpoint in common; the trainings have to be run again"
        )
    pairs = [(0, *before), *((step, kept[0][step], kept[1][step]) for step in common)]
    words, _ = read_corpus(texts)
    points = [{"step": step, **_values(a, b, words, max_tokens=max_tokens, k=k)} for step, a, b in pairs]
    found = {"schema": SCHEMA, "k": k, "points": points}
    write_json(output, found)
    return found


def _checkpoints(embedder: Path) -> dict[int, Path]:
    """Return the checkpoints of a training, by step."""
    folder = embedder.with_name(f"{embedder.name}.checkpoints")
    return {step_of(path): path for path in folder.glob("checkpoint-*[0-9]")}


def _values(base: Path, reasoning: Path, texts: list[str], *, max_tokens: int, k: int) -> dict[str, float]:
    from st_reasoning.hrsa.evaluator import HRSAEvaluator

    evaluator = HRSAEvaluator(open_model(str(base)), texts, k=k, max_tokens=max_tokens, name="")
    return evaluator(open_model(str(reasoning)))
