"""Cross-model linear probe: does a readout learned on one model work on another?

Symbols: m sentences, d width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from st_reasoning.errors import InputError, unknown_name
from st_reasoning.hrsa.measures._check import check_pair

MIN_PER_CLASS = 5


@dataclass(frozen=True)
class ProbeTransfer:
    """Accuracies of one frozen probe on held-out sentences of two models.

    Attributes:
        own: Accuracy on the model it was fitted on.
        transferred: Accuracy of the same probe on the other model's features of the same sentences.
        chance: Accuracy of always answering the commonest class of the test sentences.
        classes: Number of classes.
        train_rows: Sentences it was fitted on.
        test_rows: Sentences it was scored on.
        converged: Whether the solver reached its tolerance.
        tested: [test_rows], which sentences it was scored on.
        right: [2, test_rows], whether it was right on each, from its own features and from the other model's.
    """

    own: float
    transferred: float
    chance: float
    classes: int
    train_rows: int
    test_rows: int
    converged: bool
    tested: Tensor = field(compare=False, repr=False)
    right: Tensor = field(compare=False, repr=False)

    @property
    def difference(self) -> float:
        """Transferred minus own accuracy: 0 where the readout carries over, negative where it is lost."""
        return self.transferred - self.own


def linear_probe_transfer(
    x: Tensor,
    y: Tensor,
    labels: Sequence[Hashable],
    *,
    seed: int,
    test_share: float = 0.2,
    penalty: float = 1.0,
    kind: Literal["logistic", "ridge"] = "logistic",
) -> ProbeTransfer:
    """Fit a linear probe on sentence features of x and apply it, frozen, to those of y.

    One split, the same for both models: each class is divided into training and test sentences. There is no
    development set because nothing is tuned. Features are standardised with the training mean and deviation
    of x, those of y too: the scaler is part of the frozen readout.

    Args:
        x: [m, d] features the probe is fitted on.
        y: [m, d] features of the same sentences from the other model.
        labels: m class labels.
        seed: Of the split.
        test_share: Share of each class to score on, at least one sentence.
        penalty: Weight of half the squared length of the coefficients against the summed log loss (1 / C), or of the
            squared length against the summed squares (alpha of ridge regression on class indicators).
        kind: Logistic regression, or ridge.

    Raises:
        InputError: for malformed input, fewer than two classes, or a class of fewer than 5 sentences.
    """
    check_pair(x, y, min_rows=2, same_width=True)
    check_labels(labels, x.shape[0])
    if not 0 < test_share < 1:
        raise InputError(f"test_share: expected a share between 0 and 1, got {test_share}")
    if kind not in ("logistic", "ridge"):
        raise unknown_name("probe", kind, ("logistic", "ridge"))
    from sklearn.linear_model import LogisticRegression, RidgeClassifier

    names = {name: number for number, name in enumerate(dict.fromkeys(labels))}
    classes = np.array([names[label] for label in labels])
    train, test = _stratified_split(classes, test_share, seed)
    features_x, features_y = (features.detach().cpu().double().numpy() for features in (x, y))
    mean, deviation = features_x[train].mean(axis=0), features_x[train].std(axis=0)
    deviation[deviation == 0] = 1  # a feature that is constant in training gets no weight that matters
    probe: Any = (
        LogisticRegression(C=1 / penalty, max_iter=2000, tol=1e-5)
        if kind == "logistic"
        else RidgeClassifier(alpha=penalty)
    )
    probe.fit((features_x[train] - mean) / deviation, classes[train])
    right = np.stack([
        probe.predict((features[test] - mean) / deviation) == classes[test] for features in (features_x, features_y)
    ])  # fmt: skip
    return ProbeTransfer(
        own=float(right[0].mean()),
        transferred=float(right[1].mean()),
        chance=float(np.bincount(classes[test]).max() / len(test)),
        classes=len(names),
        train_rows=len(train),
        test_rows=len(test),
        converged=kind == "ridge" or bool((probe.n_iter_ < probe.max_iter).all()),
        tested=torch.from_numpy(test),
        right=torch.from_numpy(right),
    )


def check_labels(labels: Sequence[Hashable], m: int) -> None:
    """Refuse labels that do not fit m sentences or from which no probe can be fitted and scored."""
    if len(labels) != m:
        raise InputError(f"labels: expected {m}, one per sentence, got {len(labels)}")
    counts = Counter(labels)
    if len(counts) < 2:
        raise InputError(f"labels: expected at least 2 classes, got {len(counts)}")
    rare = {label: count for label, count in counts.items() if count < MIN_PER_CLASS}
    if rare:
        shown = ", ".join(f"{label!r} ({count})" for label, count in sorted(rare.items(), key=str)[:5])
        raise InputError(
            f"labels: expected at least {MIN_PER_CLASS} sentences of each class, got fewer for "
            f"{len(rare)} of {len(counts)}: {shown}"
        )


def _stratified_split(classes: np.ndarray, test_share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return training and test row numbers; every class gives to both."""
    generator = np.random.default_rng(seed)
    train, test = [], []
    for number in range(classes.max() + 1):
        rows = generator.permutation(np.flatnonzero(classes == number))
        count = min(len(rows) - 1, max(1, round(test_share * len(rows))))
        test.append(rows[:count])
        train.append(rows[count:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))
