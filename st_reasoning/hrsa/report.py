"""A panel as files and as a short table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from st_reasoning.files import new_folder, write_json, write_text
from st_reasoning.hrsa.figures import draw
from st_reasoning.hrsa.html import render


def write(panel: dict[str, Any], folder: Path, *, overwrite: bool = False) -> Path:
    """Write ``hrsa.json``, ``report.html`` and one picture per measure into a new folder, complete or not at all.

    Args:
        panel: As :func:`~st_reasoning.hrsa.panel` returns it.
        folder: The folder to make.
        overwrite: Whether an existing folder is replaced.

    Returns:
        The JSON file.

    Raises:
        InputError: if the folder is not empty and ``overwrite`` is false.
    """
    with new_folder(folder, overwrite=overwrite) as scratch:
        write_json(scratch / "hrsa.json", panel)
        write_text(scratch / "report.html", render(panel))
        draw(panel, scratch)
    return folder / "hrsa.json"


def summary(panel: dict[str, Any]) -> str:
    """Return the panel as plain text for a terminal: what it means, then one line per layer beside what guards it."""
    models, corpus = panel["models"], panel["corpus"]
    middle = panel["settings"]["k"][len(panel["settings"]["k"]) // 2]
    head = [
        f"{models[0]['name']} and {models[1]['name']}: {corpus['tokens']} tokens of {corpus['texts']} texts",
        *(
            f"  {model['name']}: {model['architecture']}, {model['layers']} layers, width {model['width']}, "
            f"{model['attention']} attention, {model['dtype']}"
            for model in models
        ),
        "",
        *_words(panel.get("reading")),
    ]
    titles = (
        "layer", "correlation", "H_inv", "CKA", "debiased", "no sinks", "sinks", "top dim", f"{middle}-NN",
        "probe"
    )  # fmt: skip
    rows = [titles]
    for layer, guard in zip(panel["layers"], panel["sensitivity"], strict=True):
        rows.append((
            str(layer["layer"]),
            _cell(layer["dimension_correlation"], "value"),
            _cell(layer["procrustes"], "inverse_row_entropy")
            + ("" if layer["procrustes"] is None or layer["procrustes"]["determined"] else "?"),
            _cell(layer["linear_cka"], "biased"),
            _cell(layer["linear_cka"], "debiased"),
            _cell(guard["linear_cka_without_sinks"], "biased"),
            str(guard["sink_tokens"]["either"]),
            f"{max(guard['top_dimension_share'].values()):.0%}",
            _cell(layer["knn_overlap"][str(middle)], "value"),
            _cell(layer["linear_probe"], "difference", sign=True),
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(titles))]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    chances = {
        "correlation": [layer["dimension_correlation"] for layer in panel["layers"]],
        "H_inv": [layer["procrustes"] for layer in panel["layers"]],
        "CKA": [layer["linear_cka"] for layer in panel["layers"]],
        f"{middle}-NN": [layer["knn_overlap"][str(middle)] for layer in panel["layers"]],
    }
    most = {
        name: max(
            (entry["chance"] for entry in entries if entry is not None and entry["chance"] is not None), default=None
        )
        for name, entries in chances.items()
    }
    notes = [
        "chance, at the layer where it is greatest: "
        + ", ".join(f"{name} {value:.3f}" for name, value in most.items() if value is not None),
        f"no sinks: CKA without the {panel['sinks_left_out']} tokens that are a sink at some layer; "
        "sinks: how many are at this one; top dim: variance in one dimension; "
        "probe: transferred minus own accuracy",
    ]
    if any(layer["procrustes"] and not layer["procrustes"]["determined"] for layer in panel["layers"]):
        notes.append("?: too few tokens determine the rotation")
    if models[0]["layers"] != models[1]["layers"]:
        pairs = ", ".join(f"{layer['layer']} with {layer['matched_layer']}" for layer in panel["layers"])
        notes.append(f"layers matched by relative depth: {pairs}")
    notes += [f"{measure} omitted: {reason}" for measure, reason in panel["omitted"].items()]
    return "\n".join([*head, *table, "", *notes])


def _words(reading: dict[str, Any] | None) -> list[str]:
    """Return the answer of a reading and its warnings, a line each."""
    if reading is None:
        return []
    return [*reading["answer"], *(f"! {warning}" for warning in reading["warnings"]), ""]


def _cell(entry: dict[str, Any] | None, key: str, *, sign: bool = False) -> str:
    if entry is None or entry[key] is None:
        return "-"
    return f"{entry[key]:{'+' if sign else ''}.3f}"
