"""The entries of one layer in the record: each value with its interval, beside its chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from st_reasoning.hrsa import measures
from st_reasoning.hrsa.all_layers import AllLayers
from st_reasoning.hrsa.basis import Basis
from st_reasoning.hrsa.fast import CKA
from st_reasoning.hrsa.inference import Intervals, finite
from st_reasoning.hrsa.local import Local, Overlap
from st_reasoning.hrsa.tokens import Tokens


@dataclass(frozen=True)
class Entries:
    """Makes the entries of one layer.

    Attributes:
        intervals: Notes what is left without each block.
        number: Of the layer in the first model.
    """

    intervals: Intervals
    number: int

    def correlation(
        self, shared: AllLayers, a: int, b: int, chance: float, names: tuple[str, str]
    ) -> dict[str, Any] | None:
        """Return the dimension-wise correlation of layers a and b; None for models of different widths."""
        if shared.correlation is None:
            return None
        constant = [int(side[layer].constant.sum()) for side, layer in zip(shared.columns, (a, b), strict=True)]
        return {
            **self.value("dimension_correlation.value", shared.correlation[0][a, b], shared.correlation[1][:, a, b]),
            "chance": finite(chance),
            "constant_columns": dict(zip(names, constant, strict=True)),
        }

    def basis(self, address: str, basis: Basis | None) -> dict[str, Any] | None:
        """Return what the map between the layers shows; None where there is none."""
        if basis is None:
            return None
        fit, width = basis.fit, len(basis.fit.map)
        return {
            **self.value(f"{address}.inverse_row_entropy", fit.inverse_row_entropy, basis.entropy_left_out),
            "chance": measures.inverse_row_entropy_chance(width) if width > 1 else None,
            **self.value(f"{address}.residual", fit.residual, basis.residual_left_out),
            # Nothing in common leaves a map that is no better than the mean.
            "residual_chance": 1.0,
            "scale": fit.scale,
            "rank": fit.rank,
            "determined": fit.determined,
            "train_rows": fit.train_rows,
            "test_rows": fit.test_rows,
        }

    def cka(self, address: str, cka: CKA, a: int, b: int) -> dict[str, Any]:
        """Return both estimates of the CKA of layers a and b."""
        return {
            **self.value(f"{address}.biased", cka.matrices.biased[a, b], cka.biased_left_out[:, a, b]),
            **self.value(f"{address}.debiased", cka.matrices.debiased[a, b], cka.debiased_left_out[:, a, b]),
        }

    def overlaps(self, local: Local, n: int) -> dict[str, Any]:
        """Return the overlap of neighbours among n tokens by k, of all and of other types alone."""
        return {
            str(k): {
                **self.value(f"knn_overlap.{k}.value", value, local.every.left_out[k]),
                **self.value(
                    f"knn_overlap.{k}.value_other_types", local.other_types.value[k], local.other_types.left_out[k]
                ),
                "chance": finite(local.every.chance[k]),
                "chance_other_types": finite(local.other_types.chance[k]),
                "chance_independent": measures.knn_overlap_chance(n, k),
            }
            for k, value in local.every.value.items()
        }

    def guarded_overlaps(self, address: str, overlap: Overlap | None) -> dict[str, Any] | None:
        """Return an overlap by k; None where it was not measured."""
        if overlap is None:
            return None
        return {
            str(k): self.value(f"{address}.{k}.value", value, overlap.left_out[k])
            | {"chance": finite(overlap.chance[k])}
            for k, value in overlap.value.items()
        }

    def value(self, address: str, value: float | Tensor, left_out: Tensor | None) -> dict[str, Any]:
        """Return a value with its interval, see :meth:`Intervals.entry`."""
        return self.intervals.entry(address, self.number, value, left_out)


def sensitivity_of(
    shared: AllLayers,
    tokens: Tokens,
    entries: Entries,
    pair: tuple[int, int],
    names: tuple[str, str],
    local: Local,
    bases: tuple[Basis | None, ...],
    chances: tuple[dict[str, float], dict[str, float]],
) -> dict[str, Any]:
    """Return how far a few dimensions and a few tokens dominate a layer, and what is left without them."""
    a, b = pair
    sinks = tokens.sinks[0][a], tokens.sinks[1][b]
    guarded, standardised = bases
    of_all, of_kept = ({name: finite(value) for name, value in found.items()} for found in chances)

    def named(*values: float | None) -> dict[str, float | None]:
        return dict(zip(names, values, strict=True))

    kept = shared.kept_correlation
    return {
        "layer": entries.number,
        "top_dimension_share": named(shared.columns[0][a].top_share, shared.columns[1][b].top_share),
        "effective_rank": named(*shared.effective_ranks(a, b)),
        "sink_tokens": {
            **named(*(int(found.sum()) for found in sinks)),
            "either": int((sinks[0] | sinks[1]).sum()),
        },
        "hubness": named(*local.hubness),
        "same_type_share": named(*local.same_type_share),
        "linear_cka_standardised": entries.cka(
            "sensitivity.linear_cka_standardised", shared.standardised[entries.number], 0, 0
        )
        | {"chance": of_all["standardised_biased"], "debiased_chance": of_all["standardised_debiased"]},
        "linear_cka_without_sinks": (
            None
            if shared.kept is None
            else entries.cka("sensitivity.linear_cka_without_sinks", shared.kept, a, b)
            | {"chance": of_kept["biased"], "debiased_chance": of_kept["debiased"]}
        ),
        "dimension_correlation_without_sinks": (
            None
            if kept is None
            else entries.value("sensitivity.dimension_correlation_without_sinks.value", kept[0][a, b], kept[1][:, a, b])
            | {"chance": of_kept["dimension_correlation"]}
        ),
        "procrustes_without_sinks": entries.basis("sensitivity.procrustes_without_sinks", guarded),
        "procrustes_standardised": entries.basis("sensitivity.procrustes_standardised", standardised),
        "knn_overlap_without_sinks": entries.guarded_overlaps(
            "sensitivity.knn_overlap_without_sinks", local.without_sinks
        ),
        "knn_overlap_standardised": entries.guarded_overlaps(
            "sensitivity.knn_overlap_standardised", local.standardised
        ),
    }


def cka_chances(
    shared: AllLayers, a: int, b: int, tokens: Tokens, chances: dict[str, float]
) -> dict[str, float | None]:
    """Return what CKA of layers a and b would be by chance: of re-paired sentences, and by closed forms."""
    n, (rank_a, rank_b) = len(tokens.order), shared.effective_ranks(a, b)
    return {
        "chance": finite(chances["biased"]),
        "debiased_chance": finite(chances["debiased"]),
        "chance_exchangeable": (
            None if rank_a is None or rank_b is None else measures.linear_cka_permutation_chance(n, rank_a, rank_b)
        ),
        "chance_isotropic": measures.linear_cka_chance(
            n, *(len(side[layer].mean) for side, layer in zip(shared.columns, (a, b), strict=True))
        ),
    }
