"""What a panel means, in words: one for each level of the hierarchy, with the rule that gave it and its numbers.

A word comes from the guarded value (without sink tokens), never from the raw one alone, and only where the whole
interval lies on one side of a limit. Limits are places on the scale from chance (0) to the top (1): the top is the
ceiling where it was measured, else the 1 that a model has with itself. They are conventions; the reasons for them:

``BASIS_KEPT``: what arXiv 2601.21192 calls preserved has an inverse row entropy of 0.81 to 1.00, what it calls drifted
one of 0.11 to 0.22; in between is 0.59, after training. With chance at 0.10 the limit is 0.78: below all of the first
group, above the others. The dimension-wise correlation has the same limit.

``GEOMETRY_STABLE``: SmolLM2-135M and a copy with 5 % noise on its weights have 0.96 to 0.98 without sinks at layers 12
to 28. Copies whose dimensions were stretched at random, two thirds of them by 1/2 to 2, have 0.35 and 0.71; by 1/1.25
to 1.25 they have 0.92 and 0.99: what hardly weighs in the Gram matrix CKA does not see (tests/hrsa/test_truth.py).

``NEIGHBOURS_KEPT``: the paper calls overlaps of 0.05 to 0.58 reorganised; 5 % noise leaves 0.65 to 0.80. 0.7 means that
82 % of the neighbours are common.

``READOUT_KEPT``: a probe that loses more than a tenth of what it gains over chance would be noticed in use.

``AT_CHANCE``: below it nothing is claimed of a value, even where many tokens tell it apart from chance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from st_reasoning.hrsa.addresses import Value, Values
from st_reasoning.hrsa.cautions import DOMINANT, cautions

BASIS_KEPT = 0.75
GEOMETRY_STABLE = 0.9
NEIGHBOURS_KEPT = 0.7
READOUT_KEPT = 0.9
AT_CHANCE = 0.05
# Held-out rows of which a rotation explains less than a tenth are not a rotated copy.
UNEXPLAINED = 0.9
# Where chance leaves less room below the top than this, the scale between them says nothing.
_ROOM = 0.2

KEPT = frozenset({"preserved", "stable", "kept", "transferred"})
SILENT = frozenset({"undecided", "not measured"})

Side = Literal["kept", "lost", "chance", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """The word for one level at one layer.

    Attributes:
        level: Which one.
        word: The word.
        rule: When it is given.
        sentence: The numbers, in words.
        address: Of the value that decided.
        beside: Addresses of the values it was read beside.
    """

    level: str
    word: str
    rule: str
    sentence: str
    address: str
    beside: tuple[str, ...] = ()


def read(panel: dict[str, Any], *, unit: str = "token") -> dict[str, Any]:
    """Return what a panel means.

    Args:
        panel: Of schema 3.
        unit: What a row of the compared states is: ``"token"``, or ``"text"`` where it is one vector per text.

    Returns:
        ``levels``: for each its ``word`` at the last layer, the ``rule`` that gave it, a ``sentence`` with the numbers,
        these as ``values`` by address, and on how many of the layers where it was measured (``of_layers``) the word is
        the same (``same_word_layers``). ``warnings``: what a reader must know before reading a value.
        ``answer``: the levels, one sentence each.
    """
    values = Values(panel, unit)
    k = middle_k(panel)
    by_layer = [judge(values, layer, k) for layer in range(values.layers)]
    levels, answer = [], []
    for number, verdict in enumerate(by_layer[-1]):
        words = [layer[number].word for layer in by_layer if layer[number].word != "not measured"]
        same = words.count(verdict.word)
        levels.append({
            "level": verdict.level,
            "word": verdict.word,
            "rule": verdict.rule,
            "sentence": verdict.sentence,
            "layer": values.layers - 1,
            "same_word_layers": same,
            "of_layers": len(words),
            "values": {
                address: values.at(address, -1).to_mapping()
                for address in (verdict.address, *verdict.beside)
                if address in values
            },
        })  # fmt: skip
        said = f"{verdict.level[0].upper()}{verdict.level[1:]}: {verdict.word}. {verdict.sentence}"
        if words:
            said += f" The word is the same at {same} of {len(words)} layers."
        answer.append(said)
    return {"levels": levels, "warnings": cautions(panel, values, k), "answer": answer}


def judge(values: Values, layer: int, k: int) -> list[Verdict]:
    """Return the words at one layer: of the basis, of global and local geometry, and of the readout."""
    return [_basis(values, layer), _global(values, layer), _local(values, layer, k), _readout(values, layer)]


def middle_k(panel: dict[str, Any]) -> int:
    """Return the number of neighbours that the words are about."""
    sizes = panel["settings"]["k"]
    return int(sizes[len(sizes) // 2])


def side(value: Value, kept: float) -> tuple[Side, str]:
    """Return on which side of the limits a whole interval lies, and why that is unknown where it is."""
    if value.value is None:
        return "unknown", "it is undefined"
    if value.interval is None:
        return "unknown", "it has no interval"
    chance, top = _scale(value)
    if top - chance < _ROOM:
        return "unknown", f"chance alone gives {chance:.3f}, too near the top to tell"
    low, high = ((end - chance) / (top - chance) for end in value.interval)
    if low >= kept:
        return "kept", ""
    if high < AT_CHANCE:
        return "chance", ""
    if high < kept:
        return "lost", ""
    return "unknown", f"its interval spans the limit {limit(value, kept):.3f}"


def limit(value: Value, kept: float) -> float:
    """Return where on the measure's own scale a limit lies."""
    chance, top = _scale(value)
    return chance + kept * (top - chance)


def _scale(value: Value) -> tuple[float, float]:
    return value.chance or 0.0, 1.0 if value.ceiling is None else value.ceiling


def _guarded(values: Values, raw: str, layer: int) -> tuple[str, Value]:
    """Return the value without sinks, or the raw one where no token is a sink, with its address."""
    measure, rest = raw.split(".", 1)
    address = f"sensitivity.{measure}_without_sinks.{rest}"
    if address in values and values.at(address, layer).value is not None:
        return address, values.at(address, layer)
    if values.sinks or raw not in values:
        return address, Value(None)
    return raw, values.at(raw, layer)


def _missing(values: Values, level: str, address: str, layer: int) -> Verdict | None:
    """Return the verdict of a level that was not measured, with the reason the record gives."""
    measure = address.split(".")[0]
    if address in values and values.fact(measure, layer) is not None:
        return None
    reason = values.record.get("omitted", {}).get(measure, f"the record holds no {_plain(measure)}")
    return Verdict(level, "not measured", "not measured: the record has no such value", _stop(reason), address)


def _basis(values: Values, layer: int) -> Verdict:
    level, raw = "coordinate basis", "dimension_correlation.value"
    if missing := _missing(values, level, raw, layer):
        return missing
    address, correlation = _guarded(values, raw, layer)
    entropy_at, entropy = _guarded(values, "procrustes.inverse_row_entropy", layer)
    residual_at, residual = _guarded(values, "procrustes.residual", layer)
    rule = (
        f"preserved where the whole interval of the mean correlation of equal dimensions lies above "
        f"{_limit_text(correlation, BASIS_KEPT)}; where it lies below: permuted where that of the inverse row entropy "
        f"of the best rotation lies above {_limit_text(entropy, BASIS_KEPT)}, at chance where the correlation "
        f"reaches down to chance, or is within {AT_CHANCE:.2f} of that way, and the rotation leaves more than "
        f"{UNEXPLAINED:.0%} of held-out texts unexplained, drifted otherwise; undecided where an interval spans its "
        f"limit or the {values.unit}s do not determine the rotation"
    )
    sentence = _both(values, "The mean correlation of equal dimensions", address, raw, layer)
    where, why = side(correlation, BASIS_KEPT)
    turned, unsure = side(entropy, BASIS_KEPT)
    if where == "unknown":
        word, sentence = "undecided", f"{sentence}; {_reason(values, address, why)}."
    elif where == "kept":
        word, sentence = "preserved", f"{sentence}."
    elif values.fact(entropy_at.rsplit(".", 1)[0] + ".determined", layer) is False:
        word = "undecided"
        sentence = f"{sentence}: not preserved, but whether permuted or drifted the {values.unit}s are too few to tell."
    elif turned == "unknown":
        word = "undecided"
        sentence = f"{sentence}: not preserved, but of the inverse row entropy {entropy} {unsure}."
    else:
        sentence = f"{sentence}; the best rotation has inverse row entropy {entropy} and leaves {residual} unexplained."
        unexplained = residual.interval is not None and residual.interval[0] >= UNEXPLAINED
        low = correlation.interval is not None and correlation.interval[0] <= (correlation.chance or 0.0)
        nothing = unexplained and (low or where == "chance")
        word = "permuted" if turned == "kept" else "at chance" if nothing else "drifted"
    return Verdict(level, word, rule, sentence, address, (raw, entropy_at, residual_at))


def _global(values: Values, layer: int) -> Verdict:
    level, raw = "global geometry", "linear_cka.debiased"
    if missing := _missing(values, level, raw, layer):
        return missing
    address, value = _guarded(values, raw, layer)
    standardised = "sensitivity.linear_cka_standardised.debiased"
    what = f"linear CKA, debiased and without sink {values.unit}s,"
    rule = _rule("stable", "distorted", what, value, GEOMETRY_STABLE) + (
        f", or where one dimension holds more than {DOMINANT:.0%} of the variance, not by sink {values.unit}s, and CKA "
        "of standardised dimensions lies below the limit"
    )
    verdict = _simple(values, level, ("stable", "distorted"), rule, "Linear CKA", address, raw, layer, GEOMETRY_STABLE)
    shares = (values.fact("sensitivity.top_dimension_share", layer) or {}).values()
    # Where there are sinks at this layer the share is theirs, and CKA without them is not about that dimension.
    sinks = (values.fact("sensitivity.sink_tokens", layer) or {}).get("either", 0)
    if verdict.word == "stable" and not sinks and max(shares, default=0.0) > DOMINANT and standardised in values:
        other = values.at(standardised, layer)
        if side(other, GEOMETRY_STABLE)[0] in ("lost", "chance"):
            said = (
                f"{verdict.sentence.removesuffix('.')}, but one dimension holds {max(shares):.0%} of the variance, "
                f"and of standardised dimensions it is {other}."
            )
            verdict = replace(verdict, word="undecided", sentence=said)
    return replace(verdict, beside=(raw, standardised))


def _local(values: Values, layer: int, k: int) -> Verdict:
    level, raw, others = "local geometry", f"knn_overlap.{k}.value", f"knn_overlap.{k}.value_other_types"
    if missing := _missing(values, level, raw, layer):
        return missing
    address, value = _guarded(values, raw, layer)
    rule = _rule("kept", "reorganised", f"{k}-NN overlap without sink {values.unit}s", value, NEIGHBOURS_KEPT) + (
        f", or where the overlap among {values.unit}s of other types alone lies below the limit"
    )
    name = f"The overlap of {k} nearest neighbours"
    verdict = _simple(values, level, ("kept", "reorganised"), rule, name, address, raw, layer, NEIGHBOURS_KEPT)
    if verdict.word == "kept" and others in values:
        other = values.at(others, layer)
        if side(other, NEIGHBOURS_KEPT)[0] in ("lost", "chance"):
            said = f"{verdict.sentence.removesuffix('.')}, but among {values.unit}s of other types {other}."
            verdict = replace(verdict, word="undecided", sentence=said)
    return replace(verdict, beside=(raw, others))


def _readout(values: Values, layer: int) -> Verdict:
    level, address = "linear readout", "linear_probe.difference"
    if missing := _missing(values, level, address, layer):
        return missing
    own_at, transferred_at = "linear_probe.own", "linear_probe.transferred"
    lost, own, transferred = (values.at(name, layer) for name in (address, own_at, transferred_at))
    chance = own.chance or 0.0
    room = (own.value or 0.0) - chance
    least = -(1 - READOUT_KEPT) * room
    rule = (
        f"transferred where the whole interval of transferred minus own accuracy lies above a loss of "
        f"{1 - READOUT_KEPT:.0%} of what the probe gains over chance, here {least:.3f}; degraded where it lies below, "
        "at chance where then the interval of the transferred accuracy reaches down to chance; undecided where it "
        "spans the limit or the probe itself is not above chance"
    )
    sentence = f"A probe of the first model scores {own} there and {transferred} on the second, chance {chance:.3f}"
    if lost.interval is None or own.interval is None or transferred.interval is None:
        word, sentence = "undecided", f"{sentence}; there is no interval."
    elif own.interval[0] <= chance:
        word, sentence = "undecided", f"{sentence}: the probe itself is not above chance."
    elif lost.interval[0] >= least:
        word, sentence = "transferred", f"{sentence}."
    elif lost.interval[1] >= least:
        word, sentence = "undecided", f"{sentence}: the interval of the difference {lost} spans the limit {least:.3f}."
    else:
        word = "at chance" if transferred.interval[0] <= chance else "degraded"
        sentence = f"{sentence}."
    return Verdict(level, word, rule, sentence, address, (own_at, transferred_at))


def _simple(
    values: Values, level: str, words: tuple[str, str], rule: str, name: str, address: str, raw: str, layer: int,
    kept: float,
) -> Verdict:  # fmt: skip
    """Return the verdict of a level that one value decides."""
    value = _guarded(values, raw, layer)[1]
    sentence = _both(values, name, address, raw, layer)
    where, why = side(value, kept)
    chance = value.chance or 0.0
    if where == "unknown":
        return Verdict(level, "undecided", rule, f"{sentence}; {_reason(values, address, why)}.", address)
    if where == "lost" and value.interval is not None and value.interval[0] <= chance:
        sentence += "; chance is not excluded"
    word = {"kept": words[0], "lost": words[1], "chance": "at chance"}[where]
    return Verdict(level, word, rule, f"{sentence}.", address)


def _reason(values: Values, address: str, why: str) -> str:
    """Return why a value says nothing: as the record has it where it was omitted."""
    omitted: str = values.record.get("omitted", {}).get(address.split(".")[1], why)
    return omitted


def _rule(good: str, bad: str, what: str, value: Value, kept: float) -> str:
    return (
        f"{good} where the whole interval of {what} lies above {_limit_text(value, kept)}; {bad} where it lies below, "
        f"at chance where it lies below {AT_CHANCE:.2f} of that way; undecided where it spans the limit or is undefined"
    )


def _limit_text(value: Value, kept: float) -> str:
    top = "1" if value.ceiling is None else "the ceiling"
    return f"{kept:.2f} of the way from chance to {top}, here {limit(value, kept):.3f}"


def _both(values: Values, name: str, address: str, raw: str, layer: int) -> str:
    """Return a value and the raw one beside it, in words."""
    guarded, plain = _guarded(values, raw, layer)[1], values.at(raw, layer)
    chance = "" if guarded.chance is None else f", chance {guarded.chance:z.3f}"
    if guarded.ceiling is not None:
        chance += f", ceiling {guarded.ceiling:.3f}"
    if not values.sinks or address == raw:
        return f"{name} is {guarded}{chance}"
    return f"{name} is {guarded} without sink {values.unit}s{chance}; with them {plain}"


def _plain(measure: str) -> str:
    return measure.replace("_", " ")


def _stop(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
