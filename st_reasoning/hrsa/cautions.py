"""What a reader must know before believing the values of a panel, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from st_reasoning.hrsa.addresses import Values

# One dimension that holds more of the variance than all others together decides what linear CKA says.
DOMINANT = 0.5
# Headline and guarded values further apart than this are not the same finding.
_PARTED = 0.1
# A guarded value below this leaves nothing of the raw one.
_NOTHING = 0.2
# One above this is mostly agreement.
_ALIKE = 0.8
# Skewness of how often a token is a neighbour: 0 to 1 is none.
_HUBS = 2.0
# Two of them in each of 32 blocks.
_FEWEST_TEXTS = 64


def cautions(panel: dict[str, Any], values: Values, k: int) -> list[str]:
    """Return the warnings of a panel, each once, with the layers it is about.

    Args:
        panel: Of schema 3.
        values: Of the panel.
        k: The number of neighbours that the words are about.
    """
    found = []
    texts = panel["corpus"]["texts"]
    if texts < _FEWEST_TEXTS:
        found.append(f"Only {texts} texts: intervals rest on few blocks of few texts; some hundreds are needed.")
    for headline, guard, name, beside, remark in _pairs(k, values.unit):
        if said := _parting(values, headline, guard, name, beside, remark):
            found.append(said)
    found += _facts(values)
    for address, name in (("linear_cka.biased", "Linear CKA (biased)"), (f"knn_overlap.{k}.value", f"{k}-NN overlap")):
        if said := _near_chance(values, address, name):
            found.append(said)
    marked = {
        address.removeprefix("sensitivity.").split(".")[0].removesuffix("_without_sinks")
        for address in (panel.get("intervals") or {}).get("marked", {})
        if any(address in values and values.at(address, n).interval is not None for n in range(values.layers))
    }
    if marked:
        names = [_MARKED.get(measure, measure.replace("_", " ")) for measure in sorted(marked)]
        found.append(
            f"Intervals of {_and(list(dict.fromkeys(names)))} hold the value not in 95 % of cases, or hold another one "
            f"than one may think: intervals.marked says how often, and why."
        )
    return found


# What the words call measures whose intervals are marked.
_MARKED = {
    "knn_overlap": "k-NN overlaps",
    "knn_overlap_standardised": "k-NN overlaps",
    "linear_cka_standardised": "linear CKA of standardised dimensions",
    "linear_probe": "the probe",
    "linear_probe_standardised": "the probe",
    "procrustes": "the inverse row entropy",
    "procrustes_standardised": "the inverse row entropy",
}

Remark = Callable[[float, float], str]


def _pairs(k: int, unit: str) -> Iterable[tuple[str, str, str, str, Remark]]:
    """Return headline, guarded value, the name of the first, what the second is, and what to say where they part."""

    def sinks(raw: float, guarded: float) -> str:
        if raw < guarded:
            return f"sink {unit}s hide what the others have in common"
        if guarded < _NOTHING:
            return f"sink {unit}s alone make the raw value; do not read it"
        return f"sink {unit}s make part of the raw value; read the one without them"

    def scales(raw: float, guarded: float) -> str:
        if raw < guarded:
            if guarded < _ALIKE:
                return f"dimensions of little variance have more in common, or the sink {unit}s, which that value has"
            return "what differs is mostly the scale of single dimensions"
        return (
            "a few dimensions of large variance carry it, or the basis is rotated, which standardising does not forgive"
        )

    def size(raw: float, guarded: float) -> str:
        return f"the {unit}s are too few for the biased estimator; read the debiased one"

    def types(raw: float, guarded: float) -> str:
        return f"the overlap is largely one of {unit}s with others of their own type"

    cka, correlation = "linear_cka", "dimension_correlation.value"
    entropy, overlap = "procrustes.inverse_row_entropy", f"knn_overlap.{k}.value"
    for address, name in (
        (f"{cka}.debiased", "linear CKA"),
        (correlation, "correlation of equal dimensions"),
        (entropy, "inverse row entropy"),
        (overlap, f"{k}-NN overlap"),
    ):
        measure, rest = address.split(".", 1)
        guard = f"sensitivity.{measure}_without_sinks.{rest}"
        yield address, guard, f"Raw {name}", f"without sink {unit}s", sinks
    guarded = f"sensitivity.{cka}_without_sinks.debiased"
    standardised = f"sensitivity.{cka}_standardised.debiased"
    yield guarded, standardised, f"Linear CKA without sink {unit}s", "of standardised dimensions", scales
    yield f"{cka}.biased", f"{cka}.debiased", "Linear CKA (biased)", "debiased", size
    yield overlap, f"knn_overlap.{k}.value_other_types", f"The {k}-NN overlap", f"among other {unit} types", types


def _parting(values: Values, headline: str, guard: str, name: str, beside: str, remark: Remark) -> str | None:
    """Return where two values part and what that means, quoting the layer where they do most."""
    if headline not in values or guard not in values:
        return None
    parted: dict[int, tuple[float, float]] = {}
    for layer in range(values.layers):
        raw, other = values.at(headline, layer).value, values.at(guard, layer).value
        if raw is not None and other is not None and abs(raw - other) > _PARTED:
            parted[layer] = raw, other
    if not parted:
        return None
    last = values.layers - 1
    shown = last if last in parted else max(parted, key=lambda layer: abs(parted[layer][0] - parted[layer][1]))
    raw, other = parted[shown]
    said = f"{name} is {raw:z.2f} at layer {shown}, but {other:z.2f} {beside}: {remark(raw, other)}"
    return f"{said}{_also(parted, shown)}."


def _facts(values: Values) -> Iterable[str]:
    """Return warnings from what the record holds beside the values."""
    layers = range(values.layers)
    ranks = [values.fact("sensitivity.effective_rank", n) or {} for n in layers]
    for side, name in enumerate(ranks[0]):
        if flat := {values.fact(("layer", "matched_layer")[side], n) for n in layers if ranks[n][name] is None}:
            yield (
                f"All {values.unit}s are one vector at {_numbers(flat)} of {name}: correlation, rotation and CKA are "
                "undefined there, and its neighbours are ties."
            )
    shares = {n: values.fact("sensitivity.top_dimension_share", n) or {} for n in layers}
    highest = {n: max(found.values(), default=0.0) for n, found in shares.items()}
    if dominated := {n: share for n, share in highest.items() if share > DOMINANT}:
        shown = max(dominated, key=lambda n: dominated[n])
        yield (
            f"One dimension holds {dominated[shown]:.0%} of the variance at layer {shown}: raw linear CKA is about "
            f"that dimension{_also(dominated, shown)}."
        )
    if loose := [n for n in layers if values.fact("procrustes.determined", n) is False]:
        yield (
            f"The {values.unit}s do not determine the rotation at {_numbers(loose)}: its inverse row entropy says "
            f"nothing there; many more {values.unit}s are needed than the models have dimensions."
        )
    hubs = {n: max((values.fact("sensitivity.hubness", n) or {"": 0.0}).values()) for n in layers}
    if strong := {n: found for n, found in hubs.items() if found > _HUBS}:
        shown = max(strong, key=lambda n: strong[n])
        yield (
            f"A few {values.unit}s are neighbours of very many others at {_numbers(strong)} (skewness up to "
            f"{strong[shown]:.1f}): they carry part of the k-NN overlap."
        )
    if loose := [n for n in layers if values.fact("linear_probe.converged", n) is False]:
        yield f"The probe did not converge at {_numbers(loose)}."


def _near_chance(values: Values, address: str, name: str) -> str | None:
    """Return at which layers a value is high and chance gives nearly the same."""
    near = {}
    for layer in range(values.layers if address in values else 0):
        found = values.at(address, layer)
        if found.value is not None and found.chance is not None and 0.2 < found.value < found.chance + _PARTED:
            near[layer] = found.value, found.chance
    if not near:
        return None
    shown = max(near, key=lambda layer: near[layer][1])
    value, chance = near[shown]
    return f"{name} is {value:.2f} at layer {shown}, where chance is {chance:.2f}: it says little{_also(near, shown)}."


def _also(layers: Iterable[int], shown: int) -> str:
    others = [layer for layer in layers if layer != shown]
    return f" (so too at {_numbers(others)})" if others else ""


def _numbers(layers: Iterable[int]) -> str:
    """Return layers in words: runs of three and more from first to last."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    parts = [
        part for run in runs for part in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else [str(layer) for layer in run])
    ]
    word = "layer" if len(parts) == 1 and "to" not in parts[0] else "layers"
    return f"{word} {_and(parts)}"


def _and(parts: list[str]) -> str:
    return f"{', '.join(parts[:-1])}{' and ' if len(parts) > 1 else ''}{parts[-1]}"
