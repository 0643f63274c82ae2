"""A model card for the hub: what the model's own card says, its scores as metadata, and what HRSA found."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from typing import Any

from st_reasoning.files import folder_hash
from st_reasoning.results.files import Run
from st_reasoning.results.reading import TaskScores
from st_reasoning.results.tasks import OUTSIDE, quiet_mteb, task_infos

# Name -> path below a layer's entry of hrsa.json, and that of its chance level.
MEASURES: dict[str, tuple[tuple[str, ...], tuple[str, ...] | None]] = {
    "Dimension-wise correlation": (("dimension_correlation", "value"), ("dimension_correlation", "chance")),
    "Procrustes, inverse row entropy": (("procrustes", "inverse_row_entropy"), ("procrustes", "chance")),
    "Linear CKA, debiased": (("linear_cka", "debiased"), ("linear_cka", "debiased_chance")),
    "k-NN overlap, k = 10": (("knn_overlap", "10", "value"), ("knn_overlap", "10", "chance")),
    "Linear probe, transferred minus own accuracy": (("linear_probe", "difference"), None),
}
BEGIN, END = "<!-- st-reasoning results -->", "<!-- end of st-reasoning results -->"


def model_card(
    run: Run, meta: Mapping[str, Any], scores: Mapping[str, TaskScores], panel: Mapping[str, Any] | None
) -> str:
    """Return the card: that beside the model where there is one, with our section at its end.

    Args:
        run: Whose card it is.
        meta: The description that is exported, for the model's name.
        scores: By task; they go into the metadata that the hub shows, too.
        panel: The content of hrsa.json.
    """
    from huggingface_hub import ModelCard, ModelCardData

    # A folder that was trained anew since has another model's card.
    own = run.source / "README.md" if run.source is not None else None
    if own is not None and own.is_file() and folder_hash(own.parent) == run.revision:
        card: Any = ModelCard(own.read_text(encoding="utf-8"), ignore_metadata_errors=True)
        text = card.text.split(BEGIN)[0].rstrip()
    else:
        data = ModelCardData(library_name="sentence-transformers", tags=["sentence-transformers"])
        card = ModelCard(f"---\n{data.to_yaml()}\n---\n")
        text = f"# {meta['name']}"
    card.data.model_name = str(meta["name"])
    card.data.tags = list(dict.fromkeys([*(card.data.tags or []), "mteb"]))
    card.data.eval_results = _eval_results(scores)
    card.text = "\n".join(["", text, "", BEGIN, *_scores(scores), *([] if panel is None else _hrsa(panel)), END, ""])
    return str(card)


def _eval_results(scores: Mapping[str, TaskScores]) -> list[Any]:
    """Return the scores as the hub's metadata, made by mteb; tasks it does not know are in the table only.

    So are types that mteb 2.26 has no word of the hub's for, as Regression: it answers with a KeyError.
    """
    infos = task_infos(scores)
    found: list[Any] = []
    with quiet_mteb(), contextlib.ExitStack() as stack:
        from mteb.results import TaskResult

        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # a deprecation: what follows it writes to the hub, this does not
        for task, each in sorted(scores.items()):
            if infos[task].type not in OUTSIDE:
                with contextlib.suppress(ValueError, KeyError):  # that mteb does not read it, its check says
                    found += TaskResult.from_disk(each.path).get_hf_eval_results()
    return found


def _scores(scores: Mapping[str, TaskScores]) -> list[str]:
    infos = task_infos(scores)
    versions = sorted({each.mteb_version or "unknown" for each in scores.values()})
    lines = ["## Scores", "", f"Main scores by mteb {', '.join(versions)}, in points (0 to 100).", ""]
    lines += ["| task | type | split | subset | score |", "|---|---|---|---|---:|"]
    for task, each in sorted(scores.items()):
        lines += [
            _row(task, infos[task].type, split, subset, f"{100 * value:.2f}")
            for (split, subset), value in sorted(each.cells.items())
        ]
    return lines


def _hrsa(panel: Mapping[str, Any]) -> list[str]:
    """Return the reading of a panel where it has one, and its values at the last layer."""
    names = [str(model["name"]) for model in panel["models"]]
    corpus = panel["corpus"]
    lines = ["", f"## Representations: {_text(names[0])} and {_text(names[1])}", ""]
    levels = (panel.get("reading") or {}).get("levels", ())
    lines += [f"- {_text(each['level'])}: **{_text(each['word'])}**. {_text(each['sentence'])}" for each in levels]
    last = panel["layers"][-1]
    lines += ["", f"At the last layer ({last['layer']}), on {corpus['texts']} texts of {corpus['tokens']} tokens:", ""]
    lines += ["| measure | value | interval | chance |", "|---|---:|---:|---:|"]
    for name, (path, chance) in MEASURES.items():
        value = _at(last, path)
        if isinstance(value, (int, float)):
            interval = _at(last, (*path[:-1], f"{path[-1]}_interval"))
            shown = f"{interval[0]:.3f} to {interval[1]:.3f}" if isinstance(interval, list) else ""
            level = _at(last, chance) if chance else None
            lines.append(_row(name, f"{value:.3f}", shown, f"{level:.3f}" if isinstance(level, (int, float)) else ""))
    return lines


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _row(*cells: str) -> str:
    return "| " + " | ".join(_text(cell) for cell in cells) + " |"


def _text(text: str) -> str:
    """Return a foreign text as one line of Markdown that draws no table and holds no HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
