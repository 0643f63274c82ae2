"""CKA over all tokens from layers on disk: the paper's formulas, in tiles.

Symbols: n tokens, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence

from st_reasoning.hrsa import measures
from st_reasoning.hrsa.fast import AllCKA
from st_reasoning.hrsa.measures.cka import statistics
from st_reasoning.hrsa.store import Store


def linear_cka(stores: tuple[Store, Store], n: int, n_kept: int | None, pairs: Sequence[tuple[int, int]]) -> AllCKA:
    """Return CKA of the first n rows, of the first n_kept, and of matched layers with standardised columns."""

    def over(rows: int) -> measures.CKAMatrices:
        return statistics(*([store.layer(number, rows) for number in range(len(store))] for store in stores))

    whole = over(n)
    kept = None if n_kept is None else whole if n_kept == n else over(n_kept)
    standardised = [
        measures.linear_cka_statistics(
            *([measures.standardised(store.read(layer, 0, n))] for store, layer in zip(stores, pair, strict=True))
        )
        for pair in pairs
    ]
    return AllCKA(whole, kept, standardised)
