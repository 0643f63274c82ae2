"""Which runs a name means, and which of them differ by their training seed only.

A run is known by its model's name, by ``name@revision`` (the first letters of the revision are enough), and, if mteb
recorded the folder it was loaded from, by the last parts of that folder's path. Runs whose folder, or else whose name,
ends in ``seed-N`` (also ``seed_N``, ``seedN``, with a stem before it or not) form a group: that of the same stem in
the same parent folder, or of the same name without the seed. The group is known by what remains: ``embedders/base``
for ``embedders/base/seed-0`` and ``embedders/base/seed-1``, ``org/model`` for ``org/model-seed-3``. Names joined by
commas are taken together. ``#experiment`` at the end takes the runs of one of mteb's experiments.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from st_reasoning.errors import InputError
from st_reasoning.files import folder_hash, read_json
from st_reasoning.results.files import Run

# At the beginning or after a mark: "linseed-5" is a name.
SEED = re.compile(r"^(?:(?P<stem>.*?)[-_.])?seed[-_=]?(?P<seed>\d+)$", re.IGNORECASE)
RECORD = "st_reasoning.json"
LISTED = 30


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        name: As it was asked for. runs: One per seed, or one. seeds: Of each run; None where it is not known.
    """

    name: str
    runs: tuple[Run, ...]
    seeds: tuple[int | None, ...]


def seed_and_group(run: Run) -> tuple[int | None, str]:
    """Return a run's seed as its folder or name tells it, and what it is called without it."""
    place = PurePosixPath(run.source.as_posix()) if run.source is not None else PurePosixPath(run.model)
    match = SEED.match(place.name)
    if match is None:
        return None, str(place)
    parent = "" if str(place.parent) == "." else str(place.parent)
    return int(match["seed"]), "/".join(part for part in (parent, match["stem"]) if part) or "seed"


def label(run: Run, runs: Iterable[Run]) -> str:
    """Return the shortest name that tells a run from the others, as :func:`find_side` takes it."""
    others = [each for each in runs if each.key != run.key]
    experiment = f"#{run.experiment}" if run.experiment else ""
    names = [run.model] if run.source is None else ["/".join(run.source.parts[-2:]), run.model]
    for name in (*names, f"{run.model}@{run.revision[:8]}"):
        if not any(_is_called(each, name) and each.experiment == run.experiment for each in others):
            return name + experiment
    return f"{run.model}@{run.revision}{experiment}"


def find_side(name: str, runs: list[Run]) -> Side:
    """Return the run, or the group of seeds, that ``name`` means.

    Raises:
        InputError: if it means none or several, or a seed is there twice; lists what is there.
    """
    wanted, _, experiment = name.partition("#")
    candidates = [run for run in runs if (run.experiment or "") == experiment]
    parts = [part.strip() for part in wanted.split(",")]
    found = [run for part in parts for run in _meant(part, candidates, name, runs)]
    if len({run.key for run in found}) != len(found):
        raise InputError(f"{name}: a run is named twice; expected different ones")
    seeds = tuple(seed_of(run) for run in found)
    if len(found) > 1:
        _refuse_seeds(name, found, seeds)
    return Side(name, tuple(found), seeds)


def seed_of(run: Run) -> int | None:
    """Return a run's seed by name, or else by the record of its training where that is still what was evaluated."""
    seed = seed_and_group(run)[0]
    if seed is not None or run.source is None or not (run.source / RECORD).is_file():
        return seed
    record = read_json(run.source / RECORD)
    training = record.get("training") if isinstance(record, dict) else None
    told = training.get("seed") if isinstance(training, dict) else None
    return told if isinstance(told, int) and folder_hash(run.source) == run.revision else None


def describe(runs: Iterable[Run]) -> str:
    """Return names for runs, groups of seeds first, on one line; of very many the first."""
    listed = list(runs)
    groups: dict[str, list[int]] = {}
    for run in listed:
        seed, group = seed_and_group(run)
        if seed is not None and run.experiment is None:
            groups.setdefault(group, []).append(seed)
    said = [f"{_short(group, groups)} (seeds {_numbers(seeds)})" for group, seeds in sorted(groups.items())]
    said += [label(run, listed) for run in listed]
    return ", ".join(said[:LISTED]) + (f" and {len(said) - LISTED} more" if len(said) > LISTED else "")


def _meant(name: str, candidates: list[Run], whole: str, runs: list[Run]) -> list[Run]:
    by_group: dict[str, list[Run]] = {}
    for run in candidates:
        seed, group = seed_and_group(run)
        if seed is not None and _ends(group, name):
            by_group.setdefault(group, []).append(run)
    single = [run for run in candidates if _is_called(run, name)]
    choices = [*([run] for run in single), *by_group.values()]
    if not choices:
        raise InputError(f"no results of {whole!r}; there are: {describe(runs)}")
    if len(choices) > 1:
        several = ", ".join([*by_group, *(f"{run.model}@{run.revision[:8]}{_from(run)}" for run in single)])
        raise InputError(f"{whole!r} is ambiguous: it may mean {several}; there are: {describe(runs)}")
    return sorted(choices[0], key=lambda run: (seed_and_group(run)[0] or 0, run.key))


def _refuse_seeds(name: str, found: list[Run], seeds: tuple[int | None, ...]) -> None:
    known = [seed for seed in seeds if seed is not None]
    if twice := sorted({seed for seed in known if known.count(seed) > 1}):
        several = ", ".join(
            f"{run.model}@{run.revision[:8]}" for run, seed in zip(found, seeds, strict=True) if seed == twice[0]
        )
        raise InputError(f"{name}: seed {twice[0]} is there more than once ({several}); name runs, joined by commas")


def _is_called(run: Run, name: str) -> bool:
    model, _, revision = name.partition("@")
    if run.model == model and (not revision or (len(revision) >= 4 and run.revision.startswith(revision))):
        return True
    return run.source is not None and not revision and _ends(run.source.as_posix(), name)


def _ends(path: str, name: str) -> bool:
    """Return whether a name is the last parts of a path."""
    wanted = PurePosixPath(Path(name).as_posix()).parts
    return bool(wanted) and PurePosixPath(path).parts[-len(wanted) :] == wanted


def _short(group: str, groups: Iterable[str]) -> str:
    parts = PurePosixPath(group).parts if group.startswith("/") else ()  # the name of a model stays whole
    for count in range(1, len(parts)):
        name = "/".join(parts[-count:])
        if sum(_ends(each, name) for each in groups) == 1:
            return name
    return group


def _numbers(seeds: list[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def _from(run: Run) -> str:
    return "" if run.source is None else f" from {run.source}"
