"""Scores of single queries and examples, from the predictions that mteb saves on demand.

``mteb run --prediction-folder`` and ``mteb.evaluate(prediction_folder=)`` write ``<Task>_predictions.json``: whose they
are, and by subset and split what the model answered. What the right answer is they do not hold: the task's data must be
at hand. A second model that writes to the same folder replaces the answers and leaves the first one's name, so
predictions are used only if their scores give the score in the model's result file.

A mean over examples is taken of retrieval and reranking (nDCG, MAP, recall, precision, MRR, hit rate) and of
classification by accuracy. STS and regression, by rank correlation, and pair classification, by average precision,
have no score of one example, but answers that can be drawn anew (:mod:`~st_reasoning.results.resampled`). Clustering
(of bootstrapped subsets), summarization, bitext mining and multilabel tasks have neither.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from st_reasoning.results.files import PREDICTIONS
from st_reasoning.results.reading import TaskScores
from st_reasoning.results.resampled import NotByExample, Resampled, kind_of, resampled
from st_reasoning.results.tasks import TaskInfo, quiet_mteb

Array = NDArray[np.float64]
T = TypeVar("T")
# mteb rounds to 5 or 6 decimals.
TOLERANCE = 2e-5
_OWNER = re.compile(rb'^\s*\{"mteb_model_meta":\s*(\{[^{}]*\})')
_METRIC = re.compile(r"^(ndcg|map|recall|precision|hit_rate|mrr)_at_(\d+)$")
# As trec_eval calls them.
_TREC = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}


@dataclass
class Examples:
    """Scores by example, where predictions are at hand.

    Attributes:
        files: By model, revision and task. reasons: By task, why its predictions are not used.
    """

    files: dict[tuple[str, str, str], list[Path]]
    reasons: dict[str, str] = field(default_factory=dict)
    _loaded: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Examples:
        """Look who predicted what, without reading the predictions."""
        files: dict[tuple[str, str, str], list[Path]] = {}
        for path in paths:
            owner = _owner(path)
            if owner is not None:
                files.setdefault((*owner, path.name.removesuffix(PREDICTIONS)), []).append(path)
        return cls(files)

    def scores(self, found: TaskScores, info: TaskInfo) -> dict[str, float] | None:
        """Return the score of each example of a run's task, 0 to 1, weighted so that their mean is the task's score.

        Where a task has several subsets, an example of a small one weighs more: mteb takes the mean of subsets.

        Returns:
            By subset, split and number; None if there are no predictions, or ``reasons`` says what hinders.
        """
        cells = sorted(found.cells if info.cells is None else info.cells)
        by_cell = self._first(found, lambda path: self._read(path, found, cells))
        if by_cell is None:
            return None
        total = sum(len(values) for values in by_cell.values())
        return {
            f"{subset}/{split}/{key}": value * total / (len(cells) * len(values))
            for (split, subset), values in by_cell.items()
            for key, value in values.items()
        }

    def resampled(self, found: TaskScores, info: TaskInfo) -> Resampled | None:
        """Return what a run answered on a task of one split and subset whose score is no mean over examples.

        Returns:
            None if there are no predictions, or ``reasons`` says what hinders.
        """
        cells = sorted(found.cells if info.cells is None else info.cells)
        return self._first(found, lambda path: self._read_whole(path, found, cells))

    def by_mean(self, found: TaskScores) -> bool | None:
        """Return whether a task's score is a mean over examples, not made of all at once; None without predictions."""
        if not self.files.get((found.run.model, found.run.revision, found.task)) or found.task in self.reasons:
            return None
        try:
            return kind_of(self._task(found.task)) is None
        except NotByExample as reason:
            self.reasons[found.task] = str(reason)
            return None

    def _first(self, found: TaskScores, read: Callable[[Path], T]) -> T | None:
        """Return what the first usable file of predictions gives; note why there is none."""
        paths = self.files.get((found.run.model, found.run.revision, found.task))
        if not paths or found.run.experiment is not None or found.task in self.reasons:
            return None
        said = ""
        for path in paths:
            try:
                return read(path)
            except NotByExample as reason:
                said = str(reason)
        self.reasons[found.task] = said
        return None

    def _read_whole(self, path: Path, found: TaskScores, cells: list[tuple[str, str]]) -> Resampled:
        task = self._task(found.task)
        if len(cells) != 1:
            raise NotByExample(f"{task.metadata.main_score} of {len(cells)} subsets is not resampled")
        ((split, subset),) = cells
        predicted = (_saved(path).get(subset) or {}).get(split)
        if not predicted:
            raise NotByExample(f"{path} has no predictions for {split}/{subset}")
        answered = resampled(task, predicted, _rows(task, split, subset))
        _verify(path, found, (split, subset), answered.value(), task.metadata.main_score)
        return answered

    def _read(self, path: Path, found: TaskScores, cells: list[tuple[str, str]]) -> dict[tuple[str, str], dict]:  # type: ignore[type-arg]
        saved, task = _saved(path), self._task(found.task)
        by_cell = {}
        for split, subset in cells:
            predicted = (saved.get(subset) or {}).get(split)
            if not predicted:
                raise NotByExample(f"{path} has no predictions for {split}/{subset}")
            values = _score(task, predicted, split, subset)
            mean = float(np.mean(list(values.values())))
            _verify(path, found, (split, subset), mean, task.metadata.main_score)
            by_cell[split, subset] = values
        return by_cell

    def _task(self, name: str) -> Any:
        """Return the task with its data; that of the last one is kept, for the other runs."""
        if name not in self._loaded:
            self._loaded.clear()
            try:
                self._loaded[name] = _load(name)
            except NotByExample as reason:
                self._loaded[name] = reason
        if isinstance(self._loaded[name], NotByExample):
            raise self._loaded[name]
        return self._loaded[name]


def _saved(path: Path) -> Any:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise NotByExample(f"{path} is not JSON: {error}") from None
    return found if isinstance(found, dict) else {}


def _verify(path: Path, found: TaskScores, cell: tuple[str, str], score: float, metric: str) -> None:
    """Refuse predictions that do not give the score in the result file."""
    if abs(score - found.cells[cell]) > TOLERANCE:
        raise NotByExample(
            f"{path} gives {metric} {score:.5f} for {'/'.join(cell)}, {found.path} says {found.cells[cell]:.5f}: "
            "predictions of another model, or other data"
        )


def _owner(path: Path) -> tuple[str, str] | None:
    """Return model and revision that a file of predictions names at its beginning."""
    with path.open("rb") as stream:
        match = _OWNER.match(stream.read(4096))
    if match is None:
        return None
    try:
        meta = json.loads(match[1])
    except ValueError:
        return None
    return (str(meta.get("model_name")), str(meta.get("revision"))) if isinstance(meta, dict) else None


def _load(name: str) -> Any:
    with quiet_mteb() as mteb:
        from mteb.abstasks.classification import AbsTaskClassification
        from mteb.abstasks.retrieval import AbsTaskRetrieval
        from mteb.get_tasks import _TASKS_REGISTRY

        if name not in _TASKS_REGISTRY:
            raise NotByExample("mteb does not know the task, and so not the right answers")
        task = mteb.get_task(name)
        metric = task.metadata.main_score
        retrieval = isinstance(task, AbsTaskRetrieval) and (metric == "accuracy" or _METRIC.match(metric))
        classification = isinstance(task, AbsTaskClassification) and metric == "accuracy"
        if not retrieval and not classification and kind_of(task) is None:
            raise NotByExample(f"{task.metadata.type} by {metric} cannot be had from what mteb saves")
        try:
            task.load_data()
        except Exception as error:
            # Whatever hinders the loading of foreign data: without it there are no right answers.
            said = " ".join(str(error).split())[:200]
            raise NotByExample(f"its data cannot be loaded: {type(error).__name__}: {said}") from None
        if isinstance(task, AbsTaskRetrieval):
            task.convert_v1_dataset_format_to_v2(None)
        return task


def _rows(task: Any, split: str, subset: str) -> Any:
    return task.dataset[subset][split] if subset in task.dataset else task.dataset[split]


def _score(task: Any, predicted: Any, split: str, subset: str) -> dict[str, float]:
    """Return the score of each example of one split and subset, by id."""
    data = _rows(task, split, subset)
    metric = task.metadata.main_score
    if isinstance(predicted, Mapping):
        return _retrieval(task, predicted, data["relevant_docs"], metric)
    labels = np.asarray(data[task.label_column_name])
    answers = [np.asarray(each) for each in predicted]
    if not all(each.shape == labels.shape for each in answers):
        raise NotByExample(f"its predictions are not one per example of {split}/{subset}")
    # Over mteb's classifiers, each trained on a sample of its own.
    right = np.mean([each == labels for each in answers], axis=0)
    return {str(number): float(value) for number, value in enumerate(right)}


def _retrieval(task: Any, predicted: Any, relevant: Any, metric: str) -> dict[str, float]:
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores, mrr

    if task.ignore_identical_ids:
        predicted = {query: {d: s for d, s in found.items() if d != query} for query, found in predicted.items()}
    match = _METRIC.match("recall_at_1" if metric == "accuracy" else metric)
    assert match is not None
    kind, k = match[1], int(match[2])
    relevant = {query: found for query, found in relevant.items() if found}
    if unknown := [query for query in predicted if query not in relevant]:
        raise NotByExample(f"it has no query {unknown[0]!r} that is in the predictions")
    if kind == "mrr":
        return dict(zip(predicted, mrr(relevant, predicted, [k])[f"MRR@{k}"], strict=True))
    scored = calculate_retrieval_scores(predicted, relevant, [k], task.skip_first_result).all_scores
    return {query: float(values[f"{_TREC[kind]}_{k}"]) for query, values in scored.items()}
