"""Cross-model linear probe: does a readout learned on one model work on another?

Symbols: m sentences, d width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
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
        rescaled: [test_rows], likewise from the other model's, standardised with their own training mean and deviation.
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
    rescaled: Tensor = field(compare=False, repr=False)

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
    of x, those of y too: the scaler is part of the frozen readout. What it would do on features of y in their own scale
    is kept as ``rescaled``.

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
    names = {name: number for number, name in enumerate(dict.fromkeys(labels))}
    classes = np.array([names[label] for label in labels])
    scored = held_out(classes, test_share, seed)
    features_x, features_y = (features.detach().cpu().double().numpy() for features in (x, y))
    probe = FrozenProbe.fit(features_x[~scored], classes[~scored], penalty=penalty, kind=kind)
    rescaled = replace(probe, **scaler(features_y[~scored]))
    right = np.stack([probe.predict(features[scored]) == classes[scored] for features in (features_x, features_y)])
    return ProbeTransfer(
        own=float(right[0].mean()),
        transferred=float(right[1].mean()),
        chance=float(np.bincount(classes[scored]).max() / scored.sum()),
        classes=len(names),
        train_rows=int((~scored).sum()),
        test_rows=int(scored.sum()),
        converged=probe.converged,
        tested=torch.from_numpy(np.flatnonzero(scored)),
        right=torch.from_numpy(right),
        rescaled=torch.from_numpy(rescaled.predict(features_y[scored]) == classes[scored]),
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


@dataclass(frozen=True)
class FrozenProbe:
    """A fitted readout: the scaler of its training features and the classifier.

    Attributes:
        mean: [d], of the training features.
        deviation: [d], likewise; 1 for a feature that is constant.
        classifier: Of scikit-learn.
    """

    mean: np.ndarray
    deviation: np.ndarray
    classifier: Any

    @classmethod
    def fit(
        cls,
        features: np.ndarray,
        classes: np.ndarray,
        *,
        penalty: float = 1.0,
        kind: Literal["logistic", "ridge"] = "logistic",
    ) -> FrozenProbe:
        """Fit a probe on features [m, d], float64, of classes [m]; see :func:`linear_probe_transfer`."""
        from sklearn.linear_model import LogisticRegression, RidgeClassifier

        scale = scaler(features)
        classifier: Any = (
            LogisticRegression(C=1 / penalty, max_iter=2000, tol=1e-5)
            if kind == "logistic"
            else RidgeClassifier(alpha=penalty)
        )
        classifier.fit((features - scale["mean"]) / scale["deviation"], classes)
        return cls(**scale, classifier=classifier)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the class of each of features [m, d]."""
        found: np.ndarray = self.classifier.predict((features - self.mean) / self.deviation)
        return found

    @property
    def converged(self) -> bool:
        """Whether the solver reached its tolerance; ridge regression has a closed form."""
        steps = getattr(self.classifier, "n_iter_", None)
        return steps is None or bool((steps < self.classifier.max_iter).all())


def scaler(features: np.ndarray) -> dict[str, np.ndarray]:
    """Return ``mean`` and ``deviation`` [d] of features [m, d]; 1 for a feature that is constant."""
    deviation = features.std(axis=0)
    # Constant in training, it gets no weight that matters; its mean may be rounded, so that it seems to deviate.
    deviation[(features == features[0]).all(axis=0) | (deviation == 0)] = 1
    return {"mean": features.mean(axis=0), "deviation": deviation}


def held_out(classes: np.ndarray, test_share: float, seed: int) -> np.ndarray:
    """Return which rows to score on, booleans [m]; every one of classes [m], from 0 on, gives to both parts."""
    generator = np.random.default_rng(seed)
    found = np.zeros(len(classes), dtype=bool)
    for number in range(classes.max() + 1):
        rows = generator.permutation(np.flatnonzero(classes == number))
        found[rows[: min(len(rows) - 1, max(1, round(test_share * len(rows))))]] = True
    return found
