"""What the public results repository of mteb (embeddings-benchmark/results) asks of a submission, one check each.

A check looks at ``<root>/results/<org__model>/<revision>/``. It passes, fails, or is out of reach: for a model that is
not on the hub and not registered in mteb, or because only the repository itself can answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from st_reasoning.errors import InputError
from st_reasoning.files import read_json
from st_reasoning.results.files import MODEL_FILE
from st_reasoning.results.tasks import quiet_mteb, task_infos

PASSED, FAILED, OUT_OF_REACH = "passed", "failed", "out of reach"
LARGEST_BYTES = 10_000_000
_COMMIT = re.compile(r"^[0-9a-f]{40}$")


@dataclass(frozen=True)
class Check:
    """What one check found. status: passed, failed or out of reach. said: What was seen, or why it cannot pass."""

    name: str
    status: str
    said: str


def check_submission(root: Path) -> list[Check]:
    """Run every check on a folder that holds one model's submission; imports mteb."""
    (folder,) = (path for path in (root / "results").glob("*/*") if path.is_dir())
    return [
        folder_names(folder),
        revision(folder),
        registered(folder),
        file_names(folder),
        read_by_mteb(folder),
        one_revision_per_task(root),
        complete(folder),
        size(root),
        agrees_with_repository(),
    ]


def folder_names(folder: Path) -> Check:
    """The folders are called after the name and revision in model_meta.json."""
    meta = read_json(folder / MODEL_FILE)
    expected = (str(meta.get("name")).replace("/", "__"), str(meta.get("revision")))
    found = (folder.parent.name, folder.name)
    said = f"{'/'.join(found)} against {meta.get('name')} at {meta.get('revision')} in {MODEL_FILE}"
    return Check("folders are name and revision", PASSED if found == expected else FAILED, said)


def revision(folder: Path) -> Check:
    """The revision is a commit; whether the hub has it cannot be seen offline."""
    name = "a real revision"
    if _COMMIT.match(folder.name):
        return Check(name, PASSED, f"{folder.name} has the form of a commit; whether the hub has it was not asked")
    return Check(
        name, OUT_OF_REACH,
        f"{folder.name} is no commit of the hub, for the model was evaluated from a folder: upload it, then export "
        "again with --revision",
    )  # fmt: skip


def registered(folder: Path) -> Check:
    """Stock mteb knows the model."""
    name = str(read_json(folder / MODEL_FILE).get("name"))
    with quiet_mteb():
        from mteb.models.model_implementations import MODEL_REGISTRY

        known = name in MODEL_REGISTRY
    if known:
        return Check("registered in mteb", PASSED, f"mteb knows {name}")
    return Check(
        "registered in mteb", OUT_OF_REACH,
        f"mteb does not know {name}: it wants a ModelMeta there, by pull request, once the model is on the hub",
    )  # fmt: skip


def file_names(folder: Path) -> Check:
    """Each file is called after the task in it."""
    wrong = [path.name for path in _results(folder) if read_json(path).get("task_name") != path.stem]
    count = len(_results(folder))
    said = f"{len(wrong)} of {count} are not, e.g. {wrong[0]}" if wrong else f"all {count} are"
    return Check("file names are task names", FAILED if wrong or not count else PASSED, said)


def read_by_mteb(folder: Path) -> Check:
    """Mteb reads every file, and knows the task."""
    unread, unknown = [], []
    with quiet_mteb():
        from mteb.get_tasks import _TASKS_REGISTRY
        from mteb.results import TaskResult

        for path in _results(folder):
            try:
                result = TaskResult.from_disk(path)
            except (ValueError, KeyError, TypeError) as error:
                unread.append(f"{path.name}: {' '.join(str(error).split())[:120]}")
                continue
            task = _TASKS_REGISTRY.get(result.task_name)
            if task is None or not task.__module__.startswith("mteb."):
                unknown.append(result.task_name)
    if unread:
        return Check("read by mteb", FAILED, f"{len(unread)} files are not, e.g. {unread[0]}")
    if unknown:
        return Check(
            "read by mteb", OUT_OF_REACH,
            f"all files are read, but stock mteb does not have {', '.join(unknown)}: the repository takes tasks of "
            "mteb only",
        )  # fmt: skip
    return Check("read by mteb", PASSED, "all files are read, all tasks are mteb's")


def one_revision_per_task(root: Path) -> Check:
    """No task is there at two revisions of the model."""
    seen: dict[tuple[str, str], str] = {}
    for folder in sorted((root / "results").glob("*/*")):
        for path in _results(folder):
            other = seen.setdefault((folder.parent.name, path.name), folder.name)
            if other != folder.name:
                said = f"{path.stem} is there at {other} and {folder.name}"
                return Check("one revision per task", FAILED, said)
    return Check("one revision per task", PASSED, f"{len(seen)} tasks, each once")


def complete(folder: Path) -> Check:
    """No split or subset of a task is missing."""
    infos = task_infos(path.stem for path in _results(folder))
    missing = []
    for path in _results(folder):
        scores = read_json(path)["scores"]
        found = {(split, entry["hf_subset"]) for split, entries in scores.items() for entry in entries}
        missing += [f"{path.stem} {'/'.join(cell)}" for cell in sorted((infos[path.stem].cells or frozenset()) - found)]
    said = f"{len(missing)} are missing, e.g. {missing[0]}" if missing else "all that mteb's tasks have are there"
    return Check("no language or split is missing", FAILED if missing else PASSED, said)


def size(root: Path) -> Check:
    """No file is larger than 10 MB."""
    sizes = {path: path.stat().st_size for path in (root / "results").rglob("*") if path.is_file()}
    largest = max(sizes, key=lambda path: sizes[path])
    said = f"the largest, {largest.name}, has {sizes[largest] / 1e6:.2f} MB"
    return Check("files up to 10 MB", PASSED if sizes[largest] <= LARGEST_BYTES else FAILED, said)


def agrees_with_repository() -> Check:
    """Whether an earlier submission would lose something, only the repository can tell."""
    return Check(
        "nothing that the repository has is removed", OUT_OF_REACH,
        "what it already has of this model is not at hand offline; `mteb submit-results` compares",
    )  # fmt: skip


def _results(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.glob("*.json") if path.name != MODEL_FILE)
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}")
    return found
