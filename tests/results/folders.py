"""Folders as mteb writes them, of any size, without mteb."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def write_run(
    root: Path,
    model: str,
    scores: dict[str, float | dict[tuple[str, str], float]],
    *,
    revision: str | None = None,
    source: str | None = None,
    version: str = "2.26.24",
    data: str = "1",
    prompt: str | None = None,
    experiment: str | None = None,
) -> Path:
    """Write a run's results, main scores by task or by (split, subset), and return their folder."""
    revision = revision or hashlib.sha256(f"{model} {source}".encode()).hexdigest()
    folder = root / "results" / model.replace("/", "__") / revision
    if experiment:
        folder = folder / "experiments" / experiment
    folder.mkdir(parents=True, exist_ok=True)
    arguments = {"folder": source} if source else {}
    meta = {"name": model, "revision": revision, "loader_kwargs": arguments}
    (folder / "model_meta.json").write_text(json.dumps(meta))
    for task, found in scores.items():
        cells = found if isinstance(found, dict) else {("test", "default"): found}
        write_result(folder / f"{task}.json", task, cells, version=version, data=data)
    if prompt is not None:
        lines = [json.dumps({"task": task, "encode_kwargs": {"prompt": {"query": prompt}}}) + "\n" for task in scores]
        (folder / "run_settings.jsonl").write_text("".join(lines))
    return folder


def write_result(
    path: Path, task: str, cells: dict[tuple[str, str], float], *, version: str = "2.26.24", data: str = "1"
) -> Path:
    by_split: dict[str, list[dict[str, Any]]] = {}
    for (split, subset), value in cells.items():
        entry = {"main_score": value, "hf_subset": subset, "languages": ["eng-Latn"]}
        by_split.setdefault(split, []).append(entry)
    result = {
        "dataset_revision": data,
        "task_name": task,
        "mteb_version": version,
        "scores": by_split,
        "evaluation_time": 1.0,
    }
    path.write_text(json.dumps(result))
    return path


def write_seeds(root: Path, group: str, by_seed: dict[int, dict[str, float]], **options: Any) -> None:
    """Write one run per seed, as our trainings name their folders."""
    for seed, scores in by_seed.items():
        write_run(root, f"local/seed-{seed}", scores, source=f"/models/{group}/seed-{seed}", **options)
