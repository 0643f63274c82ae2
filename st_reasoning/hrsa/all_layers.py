"""What is measured for all layers at once, before they are gone through one by one.

Symbols: L layers, G blocks of sentences.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from st_reasoning.hrsa import exact, fast
from st_reasoning.hrsa.cores import Cores
from st_reasoning.hrsa.correlation import correlations
from st_reasoning.hrsa.facts import Columns, facts
from st_reasoning.hrsa.fast import CKA
from st_reasoning.hrsa.inference import Intervals, finite
from st_reasoning.hrsa.measures.minibatch import FEWEST_SENTENCES, draw_minibatches
from st_reasoning.hrsa.settings import Settings, Stopwatch
from st_reasoning.hrsa.store import Store
from st_reasoning.hrsa.tokens import Tokens

Stores = tuple[Store, Store]


@dataclass(frozen=True)
class AllLayers:
    """What is computed for all layers at once; ``kept`` means without sinks, and is None if they are too few.

    Correlations are values [L_a, L_b] and what they are without each block, [G, L_a, L_b].
    """

    columns: tuple[list[Columns], list[Columns]]
    kept_columns: tuple[list[Columns], list[Columns]] | None
    whole: CKA
    kept: CKA | None
    standardised: list[CKA]
    correlation: tuple[Tensor, Tensor] | None
    kept_correlation: tuple[Tensor, Tensor] | None
    batches: Tensor | None

    @classmethod
    def of(
        cls,
        stores: Stores,
        tokens: Tokens,
        pairs: list[tuple[int, int]],
        settings: Settings,
        watch: Stopwatch,
        cores: Cores,
    ) -> AllLayers:
        """Measure.

        Args:
            stores: The states of the two models.
            tokens: Which rows are what.
            pairs: The matched layers.
            settings: Of the panel.
            watch: Where to add the seconds of each part.
            cores: Where to work.
        """
        n, n_kept = len(tokens.order), tokens.kept
        with watch.part("columns"):
            columns = _both_sides(stores, tokens, n, cores)
        with watch.part("sensitivity"):
            kept = columns if n_kept == n else _both_sides(stores, tokens, n_kept, cores) if tokens.usable else None
        correlation = kept_correlation = None
        if stores[0].width == stores[1].width:
            wanted = [(columns, n)] if kept is None or n_kept == n else [(columns, n), (kept, n_kept)]
            with watch.part("dimension_correlation"):
                found = [*cores.map(lambda of: correlations(stores, of[0], tokens, of[1]), wanted)]
            correlation, kept_correlation = found[0], None if kept is None else found[-1]
        batches = None
        if settings.estimator == "fast" or len(torch.unique(tokens.sentences)) >= FEWEST_SENTENCES:
            batches = draw_minibatches(tokens.sentences, size=settings.minibatch, seed=settings.seed)
        with watch.part("linear_cka"):
            if settings.estimator == "fast":
                assert batches is not None
                cka = fast.linear_cka(stores, columns, kept, pairs, tokens, batches, cores, seed=settings.seed)
            else:
                cka = exact.linear_cka(stores, columns, kept, pairs, tokens, cores)
        return cls(columns, kept, cka.whole, cka.kept, cka.standardised, correlation, kept_correlation, batches)

    def effective_ranks(self, a: int, b: int) -> tuple[float | None, float | None]:
        """Return those of layer a of the first and b of the second model, None for a layer without variance."""
        ranks = self.whole.matrices
        return finite(ranks.effective_rank_x[a]), finite(ranks.effective_rank_y[b])

    def matrices(self, intervals: Intervals) -> dict[str, list[list[float | None]] | None]:
        """Return what pairs every layer with every layer, and half the width of their intervals."""
        found: dict[str, list[list[float | None]] | None] = {}
        for suffix, cka, correlation in (
            ("", self.whole, self.correlation),
            ("_without_sinks", self.kept, self.kept_correlation),
        ):
            if cka is None:
                continue
            for name, values in (
                ("linear_cka", (cka.matrices.biased, cka.biased_left_out)),
                ("linear_cka_debiased", (cka.matrices.debiased, cka.debiased_left_out)),
                ("dimension_correlation", correlation),
            ):
                found[name + suffix] = None if values is None else _rows(values[0])
                found[f"{name}{suffix}_half_width"] = None if values is None else intervals.half_widths(*values)
        return found


def _both_sides(stores: Stores, tokens: Tokens, n: int, cores: Cores) -> tuple[list[Columns], list[Columns]]:
    return facts(stores[0], tokens.sentences[:n], cores), facts(stores[1], tokens.sentences[:n], cores)


def _rows(matrix: Tensor) -> list[list[float | None]]:
    return [[finite(value) for value in row] for row in matrix]
