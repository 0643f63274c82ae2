"""A folder to hand in: results as mteb's public repository wants them, checked, and a model card for the hub."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from st_reasoning.errors import InputError
from st_reasoning.files import new_folder, read_json, refuse_existing, write_json, write_text
from st_reasoning.results.card import model_card
from st_reasoning.results.checks import FAILED, Check, check_submission
from st_reasoning.results.comparable import SETTINGS_FILE
from st_reasoning.results.files import MODEL_FILE, Run
from st_reasoning.results.groups import find_side
from st_reasoning.results.reading import LeftOut, TaskScores, left_out_mapping, read_results
from st_reasoning.results.tasks import ANALYSIS, task_infos

CARD = "README.md"
CHECKS = "checks.json"


@dataclass(frozen=True)
class Exported:
    """What was written. folder: Where. tasks: Of the submission. checks: What each found. left_out: Files not in it."""

    folder: Path
    tasks: tuple[str, ...]
    checks: tuple[Check, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def failed(self) -> list[Check]:
        """The checks that something can be done about."""
        return [check for check in self.checks if check.status == FAILED]

    def to_mapping(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "schema": 1,
            "folder": str(self.folder),
            "tasks": list(self.tasks),
            "checks": [vars(check) for check in self.checks],
            "left_out": left_out_mapping(self.left_out),
        }

    def describe(self) -> str:
        """Return a line per check."""
        width = max(len(check.name) for check in self.checks)
        lines = [f"{check.name.ljust(width)}  {check.status}: {check.said}" for check in self.checks]
        return "\n".join([f"{self.folder}: {len(self.tasks)} tasks, {CARD}, {CHECKS}", *lines])


def export_model(
    folder: Path,
    model: str,
    output: Path,
    *,
    hrsa: Path | None = None,
    name: str | None = None,
    revision: str | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write one run's results as a submission, its model card, and what the checks found.

    ``OUTPUT/results/<org__model>/<revision>/`` has mteb's own files as they are, but for the description of the model:
    it is given the name and revision asked for, and the local folder it was loaded from is taken out.

    Args:
        folder: An mteb output folder.
        model: A run, as :func:`~st_reasoning.results.groups.find_side` takes it.
        output: The folder to write.
        hrsa: A folder with hrsa.json, or the file, to be summed up in the card.
        name: ``org/model`` on the hub; by default the name in the results.
        revision: The commit there; by default the revision in the results.
        overwrite: Whether to replace what is in ``output``.

    Raises:
        InputError: if the model is several runs or none, the name is no org/model, or hrsa.json is none.
    """
    refuse_existing(output, overwrite=overwrite)
    if name is not None and (name.count("/") != 1 or not all(name.split("/"))):
        raise InputError(f"--name {name}: expected org/model")
    if revision is not None and (not revision or "/" in revision):
        raise InputError(f"--revision {revision}: expected a commit of the hub")
    results = read_results(folder)
    side = find_side(model, results.runs)
    if len(side.runs) > 1:
        runs = ", ".join(f"{run.model}@{run.revision[:8]}" for run in side.runs)
        raise InputError(f"{model} is {len(side.runs)} runs ({runs}); expected one: export them one by one")
    run = side.runs[0]
    if run.experiment is not None:
        raise InputError(f"{model} is an experiment of mteb; the repository takes results with default options")
    panel = None if hrsa is None else _panel(hrsa)
    infos = task_infos(results.scores[run])
    scores = {task: each for task, each in results.scores[run].items() if infos[task].type != ANALYSIS}
    analyses = [each for task, each in results.scores[run].items() if task not in scores]
    if not scores:
        raise InputError(f"{model} has results of {', '.join(infos)} only, which is no measure of quality")
    meta = _description(run, name, revision)
    with new_folder(output, overwrite=overwrite) as scratch:
        place = scratch / "results" / meta["name"].replace("/", "__") / meta["revision"]
        place.mkdir(parents=True)
        for found in scores.values():
            shutil.copyfile(found.path, place / found.path.name)
        if (run.folder / SETTINGS_FILE).is_file():
            _copy_settings(run.folder / SETTINGS_FILE, place / SETTINGS_FILE, scores)
        write_json(place / MODEL_FILE, meta)
        checks = check_submission(scratch)
        write_text(scratch / CARD, model_card(run, meta, scores, panel))
        left_out = tuple(each for each in results.left_out if run.folder in each.path.parents)
        left_out += tuple(LeftOut(each.path, "analysis", f"{each.path} measures no quality") for each in analyses)
        found_all = Exported(output, tuple(sorted(scores)), tuple(checks), left_out)
        write_json(scratch / CHECKS, found_all.to_mapping())
    return found_all


def _description(run: Run, name: str | None, revision: str | None) -> dict[str, Any]:
    path = run.folder / MODEL_FILE
    if path.is_file():
        meta: dict[str, Any] = read_json(path)
    else:
        meta = {"name": run.model, "revision": run.revision}
    if isinstance(meta.get("loader_kwargs"), dict):
        # Where it lay on this machine is nobody's business.
        meta["loader_kwargs"] = {key: value for key, value in meta["loader_kwargs"].items() if key != "folder"}
    return {**meta, "name": name or run.model, "revision": revision or run.revision}


def _copy_settings(source: Path, target: Path, scores: dict[str, TaskScores] | Any) -> None:
    """Copy the lines of mteb's record of how it was run that belong to what is exported."""
    kept = []
    for line in source.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # half a line of a killed run
        if isinstance(entry, dict) and entry.get("task") in scores:
            kept.append(line + "\n")
    write_text(target, "".join(kept))


def _panel(place: Path) -> dict[str, Any]:
    path = place / "hrsa.json" if place.is_dir() else place
    panel = read_json(path)
    if not isinstance(panel, dict) or not {"models", "layers", "corpus"} <= panel.keys():
        raise InputError(f"{path} is no hrsa.json: expected models, layers and corpus in it")
    return panel
