"""Scores that are no mean over examples: what mteb saved of them, so that the examples can be drawn anew.

STS by Spearman's correlation, regression by Kendall's, and pair classification by its best average precision. Pairs
that share a text are not independent, nor are examples that the task declares to belong together: they are drawn
together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Score = Callable[[Array, Array], float]
# A bootstrap of fewer units, or of as good as fewer because some are large, is too narrow.
FEWEST = 10
# A similarity that mteb saves -> 1 where more is more alike.
_SIMILARITIES = {
    "similarity_scores": 1, "cosine_scores": 1, "manhattan_distances": -1, "euclidean_distances": -1, "dot_scores": 1,
}  # fmt: skip


class NotByExample(Exception):  # noqa: N818 - a reason, caught where examples are read and told, no error
    """Why a task has no scores of single examples."""


@dataclass(frozen=True)
class Resampled:
    """What one run answered on the examples of a task.

    Attributes:
        answers: [k, n], by k classifiers or similarities. gold: [n]. units: [n], examples of one number belong
        together. score: From answers and gold to the task's main score, 0 to 1.
    """

    answers: Array
    gold: Array
    units: NDArray[np.int64]
    score: Score

    def value(self) -> float:
        """Return the score of all examples."""
        return self.score(self.answers, self.gold)

    def members(self) -> list[NDArray[np.int64]]:
        """Return the examples of each unit."""
        order = np.argsort(self.units, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(self.units[order])) + 1)


def kind_of(task: Any) -> str | None:
    """Return how a task's main score is made of all its examples at once: STS, pairs or regression; None otherwise."""
    from mteb.abstasks.pair_classification import AbsTaskPairClassification
    from mteb.abstasks.regression import AbsTaskRegression
    from mteb.abstasks.sts import AbsTaskSTS

    metric = task.metadata.main_score
    for kind, base, known in (
        ("STS", AbsTaskSTS, "cosine_spearman"),
        ("pairs", AbsTaskPairClassification, "max_ap"),
        ("regression", AbsTaskRegression, "kendalltau"),
    ):
        if isinstance(task, base) and metric == known:
            return kind
    return None


def resampled(task: Any, predicted: Any, data: Any) -> Resampled:
    """Return what a run answered on one split and subset.

    Args:
        task: With its data.
        predicted: What mteb saved of that split.
        data: The rows of that split.

    Raises:
        NotByExample: if the predictions are not those of the rows, or too few rows are independent.
    """
    kind = kind_of(task)
    if kind == "STS":
        gold, score = _column(data, "score"), _by_similarity
        answers = [_saved(predicted, "cosine_scores")]
        units = _sharing(data, task.column_names)
    elif kind == "pairs":
        gold, score = _column(data, task.label_column_name), _best_precision
        answers = [sign * _saved(predicted, name) for name, sign in _SIMILARITIES.items()]
        units = _sharing(data, (task.input1_column_name, task.input2_column_name))
    else:
        gold, score = _column(data, task.label_column_name), _mean_kendall
        answers = [np.asarray(each, dtype=np.float64) for each in predicted]
        # A task may say that its rows come from so many origins in turn.
        units = np.arange(len(gold)) % (getattr(task, "origins_in_turn", None) or len(gold))
    if not answers or any(each.shape != gold.shape for each in answers):
        raise NotByExample("its predictions are not one per example")
    sizes = np.unique(units, return_counts=True)[1]
    if (alone := len(gold) ** 2 / (sizes**2).sum()) < FEWEST:
        raise NotByExample(f"its {len(gold):,} examples share so much that they are as good as {alone:.1f}")
    return Resampled(np.stack(answers), gold, units, score)


def spearman(a: Array, b: Array) -> float:
    """Return the rank correlation of two arrays [n], 0 where one of them is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(each) for each in (a, b)]
    if any((each == each[0]).all() for each in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def average_precision(scores: Array, gold: Array) -> float:
    """Return the average precision of scores [n] for gold [n] of 0 and 1, ties as one threshold; 0 without any 1."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    found = np.cumsum(gold[order])[ends]
    if found[-1] == 0:
        return 0.0
    return float((np.diff(found, prepend=0.0) * found / (ends + 1)).sum() / found[-1])


def _by_similarity(answers: Array, gold: Array) -> float:
    return spearman(answers[0], gold)


def _best_precision(answers: Array, gold: Array) -> float:
    return max(average_precision(each, gold) for each in answers)


def _mean_kendall(answers: Array, gold: Array) -> float:
    from scipy.stats import kendalltau

    found = [float(kendalltau(gold, each).statistic) for each in answers]
    return float(np.mean(np.nan_to_num(found)))


def _column(data: Any, name: str) -> Array:
    return np.asarray(_rows(data, name), dtype=np.float64)


def _rows(data: Any, name: str) -> list[Any]:
    """Return a column; in the layout of mteb's first version one row holds all of it."""
    found = list(data[name])
    return list(found[0]) if len(found) == 1 and isinstance(found[0], list) else found


def _saved(predicted: Any, name: str) -> Array:
    found = predicted.get(name) if isinstance(predicted, dict) else None
    if not isinstance(found, list):
        raise NotByExample(f"its predictions hold no {name}")
    return np.asarray(found, dtype=np.float64)


def _sharing(data: Any, columns: tuple[str, str]) -> NDArray[np.int64]:
    """Return a number for each pair [n], the same for all pairs that are linked by texts they share."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = (_rows(data, name) for name in columns)
    if not all(isinstance(text, str) for text in (*first, *second)):
        return np.arange(len(first))
    number = {text: place for place, text in enumerate(dict.fromkeys((*first, *second)))}
    links = [[number[text] for text in column] for column in (first, second)]
    graph = coo_array((np.ones(len(first)), (links[0], links[1])), shape=(len(number), len(number)))
    _, component = connected_components(graph, directed=False)
    return np.asarray(component[links[0]], dtype=np.int64)
