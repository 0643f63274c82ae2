"""``report.html``: one self-contained page, the answer first."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from st_reasoning.files import read_json
from st_reasoning.html import templates

FIGURES = (
    ("linear_cka", "Linear CKA: is the global geometry the same?"),
    ("dimension_correlation", "Dimension-wise correlation: is the coordinate basis the same?"),
    ("procrustes", "Orthogonal Procrustes: is the map between them a permutation?"),
    ("knn_overlap", "k-NN overlap: are the neighbours the same?"),
    ("linear_probe", "Linear probe transfer: does one model's readout work on the other?"),
)


def render(study: dict[str, Any], folder: Path) -> str:
    """Return the page for a finished study.

    Args:
        study: The content of ``study.json``.
        folder: The study's folder; panels and figures are read from it and embedded.

    Returns:
        HTML that asks nothing of the network. Names and texts from models and data are escaped.
    """
    environment = templates("st_reasoning.study")
    environment.filters["points"] = lambda value: f"{value:.2f}"
    environment.filters["value"] = lambda value: "\N{EN DASH}" if value is None else f"{value:.3f}"
    environment.filters["signed"] = lambda value: f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")
    pairs = [{**pair, "answer": answer(pair), "panels": _panels(pair, folder)} for pair in study["pairs"]]
    return environment.get_template("report.html.j2").render(study=study, pairs=pairs, figures=FIGURES)


def answer(pair: dict[str, Any]) -> list[str]:
    """Say in plain words what the scores of one pair show, and what they cannot."""
    sentences = []
    for task in pair["tasks"]:
        difference, spread, seeds = task["trained"]["difference"], task["difference_std"], len(task["seeds"])
        word = "higher" if difference > 0 else "lower"
        said = f"On {task['task']} the reasoning embedder scores {abs(difference):.2f} points {word} than the base one"
        if difference == 0:
            said = f"On {task['task']} both embedders score the same"
        if spread is None:
            said += "; with one seed nothing can be said about how far another seed would move this difference."
        else:
            said += f" on average over {seeds} seeds (standard deviation {spread:.2f})."
        sentences.append(said)
        for arm in ("base", "reasoning"):
            gain = task["trained"][arm] - task["untrained"][arm]
            verb = "gained" if gain >= 0 else "lost"
            sentences.append(
                f"Contrastive training {verb} the {arm} embedder {abs(gain):.2f} points over the same model converted "
                f"and not trained ({task['untrained'][arm]:.2f} to {task['trained'][arm]:.2f})."
            )
    return sentences


def _panels(pair: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Return what the page shows of each panel: backbones first, then the embedders of each seed."""
    paths = [("Backbones", folder / pair["hrsa"]["backbones"])]
    paths += [
        (f"Embedders, seed {seed['seed']}", folder / path)
        for seed, path in zip(pair["tasks"][0]["seeds"], pair["hrsa"]["embedders"], strict=True)
    ]
    panels = []
    for title, path in paths:
        panel = read_json(path)
        panels.append({"title": title, "panel": panel, "values": final_values(panel), "images": _images(path.parent)})
    return panels


def _images(folder: Path) -> dict[str, str]:
    found = {}
    for name, _ in FIGURES:
        path = folder / f"{name}.png"
        if path.is_file():
            found[name] = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    return found


def final_values(panel: dict[str, Any]) -> dict[str, tuple[float | None, float | None]]:
    """Return each measure at the last layer with what chance would give, None where either is not defined."""
    layer, guard = panel["layers"][-1], panel["sensitivity"][-1]

    def entry(part: dict[str, Any] | None, key: str = "value") -> tuple[float | None, float | None]:
        return (None, None) if part is None else (part[key], part.get("chance"))

    values = {
        "Dimension-wise correlation": entry(layer["dimension_correlation"]),
        "Procrustes, inverse row entropy": entry(layer["procrustes"], "inverse_row_entropy"),
        "Linear CKA": entry(layer["linear_cka"], "biased"),
        "Linear CKA, debiased": (entry(layer["linear_cka"], "debiased")[0], 0.0),
        "Linear CKA without sink tokens": entry(guard["linear_cka_without_sinks"], "biased"),
    }
    for k, overlap in layer["knn_overlap"].items():
        values[f"k-NN overlap, k = {k}"] = entry(overlap)
    values["Linear probe, transferred minus own accuracy"] = (entry(layer["linear_probe"], "difference")[0], None)
    return values
