"""The linear probe on matched layers: as the models pool their texts, without sink tokens, in standardised dimensions.

Symbols: m texts, C classes, G blocks of sentences.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa.addresses import Values
from st_reasoning.hrsa.inference import LEVEL, Intervals
from st_reasoning.hrsa.measures.probe import ProbeTransfer, check_labels, linear_probe_transfer
from st_reasoning.hrsa.settings import Settings
from st_reasoning.hrsa.store import Store
from st_reasoning.hrsa.tokens import Tokens

_QUANTILE = NormalDist().inv_cdf(0.5 + LEVEL / 2)

ADDRESS = "linear_probe"
WITHOUT_SINKS = f"{ADDRESS}_without_sinks"


@dataclass(frozen=True)
class Probed:
    """Entries of one layer.

    Attributes:
        pooled: Of texts as the models pool them.
        without_sinks: Of the mean of each text's tokens that are no sinks; where none is one, the same as ``pooled``;
            None where too few texts have others.
        standardised: Either model's features in its own mean and variance.
    """

    pooled: dict[str, Any]
    without_sinks: dict[str, Any] | None
    standardised: dict[str, Any]


class Probe:
    """Fits and transfers a probe layer by layer.

    Args:
        stores: States of tokens.
        tokens: Which rows are what.
        pooled: States of texts.
        texts: [m], their numbers, in the order of the rows of ``pooled``.
        labels: By number of the text.
        settings: Of the panel.
    """

    def __init__(
        self,
        stores: tuple[Store, Store],
        tokens: Tokens,
        pooled: tuple[Store, Store],
        texts: Tensor,
        labels: Sequence[Hashable],
        settings: Settings,
    ) -> None:
        self.stores, self.tokens, self.pooled, self.settings = stores, tokens, pooled, settings
        self.order = texts.argsort()
        numbers = texts[self.order]
        block = dict(zip(tokens.sentences.tolist(), tokens.blocks.tolist(), strict=True))
        # A text of which no token is looked at is in no block; it is never left out.
        blocks = torch.tensor([block.get(text, -1) for text in numbers.tolist()])
        self.texts = _Texts.of([labels[text] for text in numbers.tolist()], blocks)
        self.rows = torch.searchsorted(numbers, tokens.sentences[: tokens.kept])
        self.counts = torch.bincount(self.rows, minlength=len(numbers))
        # Texts that have a token which is no sink.
        self.guarded = self.texts.those(self.counts > 0)
        self.sinks = tokens.kept < len(tokens.order)

    @property
    def usable(self) -> bool:
        """Whether texts with tokens that are no sinks are enough of each class, or no token is one."""
        try:
            check_labels(self.guarded.labels, len(self.guarded.labels))
        except InputError:
            return not self.sinks
        return True

    def layer(self, intervals: Intervals, number: int, a: int, b: int) -> Probed:
        """Return the entries of layer a of the first and b of the second model."""

        def entry(address: str, texts: _Texts, found: ProbeTransfer, right: Tensor) -> dict[str, Any]:
            return self._entry(intervals, address, number, texts, found, right)

        x, y = (
            store.read(layer, 0, len(self.order))[self.order] for store, layer in zip(self.pooled, (a, b), strict=True)
        )
        found = self._fit(x, y, self.texts)
        without_sinks: dict[str, Any] | None = None
        if not self.sinks:
            without_sinks = entry(f"sensitivity.{WITHOUT_SINKS}", self.texts, found, found.right)
        elif self.usable:
            guarded = self._fit(self._mean(0, a), self._mean(1, b), self.guarded)
            without_sinks = entry(f"sensitivity.{WITHOUT_SINKS}", self.guarded, guarded, guarded.right)
        rescaled = torch.stack([found.right[0], found.rescaled])
        return Probed(
            entry(ADDRESS, self.texts, found, found.right),
            without_sinks,
            entry(f"sensitivity.{ADDRESS}_standardised", self.texts, found, rescaled),
        )

    def _fit(self, x: Tensor, y: Tensor, texts: _Texts) -> ProbeTransfer:
        settings = self.settings
        return linear_probe_transfer(
            x, y, texts.labels, seed=settings.seed, test_share=settings.test_share, kind=settings.probe
        )

    def _mean(self, side: int, layer: int) -> Tensor:
        x = self.stores[side].read(layer, 0, self.tokens.kept)
        sums = torch.zeros(len(self.order), x.shape[1], dtype=torch.float64).index_add_(0, self.rows, x.double())
        known = self.counts > 0
        return (sums[known] / self.counts[known, None]).float()

    def _entry(
        self, intervals: Intervals, address: str, number: int, texts: _Texts, found: ProbeTransfer, right: Tensor
    ) -> dict[str, Any]:
        own, transferred = (
            accuracy_left_out(answers, found.tested, texts.classes, texts.blocks, self.tokens.block_count)
            for answers in right
        )
        rates = right.double().mean(dim=1)
        least, apart = least_half_widths(found.test_rows)
        return {
            **intervals.entry(f"{address}.own", number, rates[0], own, least=least),
            **intervals.entry(f"{address}.transferred", number, rates[1], transferred, least=least),
            **intervals.entry(f"{address}.difference", number, rates[1] - rates[0], transferred - own, least=apart),
            "chance": found.chance,
            "difference_chance": found.chance - float(rates[0]),
            "classes": found.classes,
            "train_rows": found.train_rows,
            "test_rows": found.test_rows,
            "converged": found.converged,
        }


@dataclass(frozen=True)
class _Texts:
    """Labels, classes [m] as numbers from 0 on, and blocks [m] of some texts."""

    labels: list[Hashable]
    classes: Tensor
    blocks: Tensor

    @classmethod
    def of(cls, labels: list[Hashable], blocks: Tensor) -> _Texts:
        numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
        return cls(labels, torch.tensor([numbers[label] for label in labels]), blocks)

    def those(self, which: Tensor) -> _Texts:
        kept = [label for label, keep in zip(self.labels, which.tolist(), strict=True) if keep]
        return _Texts.of(kept, self.blocks[which])


def accuracy_left_out(right: Tensor, tested: Tensor, classes: Tensor, blocks: Tensor, count: int) -> Tensor:
    """Return what an accuracy on texts drawn class by class is without each block, [G].

    Each class has its share of the tested texts whatever happens, so that of accuracies by class and of the share each
    class has of all texts: acc = sum_c p_c acc_c. A class whose tested texts are all in a block keeps its accuracy.

    Args:
        right: [t], whether each tested text was classed rightly.
        tested: [t], which texts these are.
        classes: [m], of all texts, from 0 on.
        blocks: [m], of all texts, -1 for none.
        count: G.
    """
    members = torch.nn.functional.one_hot(classes).double()
    stays = (blocks[None, :] != torch.arange(-1, count)[:, None]).double()
    stays[0] = 1  # nothing is left out
    shares = stays @ members
    of_tested = members[tested]
    known = stays[:, tested] @ of_tested
    rates = (stays[:, tested] @ (of_tested * right[:, None])) / known
    rates = torch.where(known > 0, rates, rates[:1])
    whole = ((shares / shares.sum(dim=1, keepdim=True)) * rates).sum(dim=1)
    return right.double().mean() + whole[1:] - whole[0]


def least_half_widths(tested: int) -> tuple[float, float]:
    """Return half the width that intervals of an accuracy, and of a difference of two, have at least.

    A probe that is right on all of a few texts is not right on all texts, and whatever block one leaves out does not
    tell. So much is what Agresti and Coull (1998) make of no error, two texts more of either added, and Agresti and Min
    (2005) of no text on which two probes differ, half a text more of either added.

    Args:
        tested: Number of texts.
    """
    n, share = tested + 4, 2 / (tested + 4)
    return _QUANTILE * math.sqrt(share * (1 - share) / n), _QUANTILE / (tested + 2)


def least_half_width(places: Iterable[tuple[Values, str, int]], *, change: bool) -> float:
    """Return half the width that an interval of what is made of some values has at least: 0 but for a probe.

    A change of what is itself a difference of two accuracies has twice the variance of one. A mean over layers is no
    surer than one of them: the same texts are tested at each.

    Args:
        places: Panels with the address and the layer of a value, of the same measure all.
        change: Whether it is made of differences between panels.
    """
    tested, name = [], ""
    for values, address, layer in places:
        measure, _, name = address.rpartition(".")
        if not measure.removeprefix("sensitivity.").startswith(ADDRESS):
            return 0.0
        tested.append(int(values.fact(f"{measure}.test_rows", layer)))
    one, apart = least_half_widths(min(tested))
    if name != "difference":
        return apart if change else one
    return math.sqrt(2) * apart if change else apart
