"""Pairs whose relation is known because it was made: the report's words must say it, and nothing else.

The states are as awkward as those of language models: tokens of a sentence and of a type are alike, all share a mean,
a few dimensions hold most of the variance, and the first token of every text is a sink, hundreds of times as long as
the others. Raw linear CKA is near 1 for every pair, also for unrelated ones: sinks stand at the same places in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from st_reasoning.hrsa import Chunk, Engine, Settings, read, realignment
from st_reasoning.hrsa.realignment import SCHEMA

TEXTS, WIDTH, TYPES, LAYERS = 400, 40, 40, 2
SETTINGS = Settings(k=(5, 10, 50), estimator="fast", queries=512)

# [n, d] of a layer and a generator -> the other model's [n, d]
Make = Callable[[Tensor, torch.Generator], Tensor]


class Corpus:
    """Who stands where: the same for every pair."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        lengths = torch.randint(6, 15, (TEXTS,), generator=generator)
        self.sentences = torch.repeat_interleave(torch.arange(TEXTS), lengths)
        self.types = torch.randint(0, TYPES, self.sentences.shape, generator=generator)
        self.labels = torch.randint(0, 3, (TEXTS,), generator=generator).tolist()
        self.sinks = torch.searchsorted(self.sentences, torch.arange(TEXTS))

    def states(self, seed: int, *, own: float = 1.0) -> Tensor:
        """States [n, d] without sinks; ``own`` is the part of each token that it has to itself, and of its sentence."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        by_label = 1.5 * normal(3, WIDTH)[torch.tensor(self.labels)]
        # Which types a model holds alike is its own matter: an unrelated one shares no type with this one.
        kinds = normal(TYPES, WIDTH)[torch.randperm(TYPES, generator=generator)[self.types]]
        if seed >= UNRELATED:
            kinds = normal(TYPES, WIDTH)[torch.randint(0, TYPES, self.types.shape, generator=generator)]
            by_label = 1.5 * normal(3, WIDTH)[torch.randint(0, 3, (TEXTS,), generator=generator)]
        whole = (by_label + normal(TEXTS, WIDTH))[self.sentences]
        found = 1.5 * kinds + own * (0.5 * whole + 0.7 * normal(len(self.types), WIDTH))
        spectrum = torch.arange(1, WIDTH + 1) ** -0.5
        mixed = found * spectrum[torch.randperm(WIDTH, generator=generator)]
        return mixed + normal(WIDTH) * spectrum

    def with_sinks(self, states: Tensor, sink: Tensor) -> Tensor:
        found = states.clone()
        found[self.sinks] += sink
        return found

    def pooled(self, states: Tensor) -> Tensor:
        """Means [m, d] of the tokens that are no sinks, as a model pools that has learned to pass over them."""
        kept = torch.ones(len(states), dtype=torch.bool)
        kept[self.sinks] = False
        sums = torch.zeros(TEXTS, states.shape[1]).index_add_(0, self.sentences[kept], states[kept])
        return sums / torch.bincount(self.sentences[kept], minlength=TEXTS)[:, None]


CORPUS = Corpus()
UNRELATED = 1000


def panel(make: Make, *, own: float = 1.0, sink: Make | None = None, sinks: bool = True) -> dict[str, Any]:
    """What is measured of states and of what ``make`` makes of them, at two layers.

    ``sink`` makes the sinks of the second model of those of the first; by default ``make`` does.
    """
    sides: list[list[Tensor]] = [[], []]
    pooled: list[list[Tensor]] = [[], []]
    for layer in range(LAYERS):
        x = CORPUS.states(layer, own=own)
        far = torch.zeros(1, WIDTH)
        far[0, 7] = 400 * float(x.norm(dim=1).median()) / math.sqrt(WIDTH)
        y = make(x, torch.Generator().manual_seed(10 + layer))
        other = (sink or make)(far, torch.Generator().manual_seed(10 + layer))
        for side, states, longest in ((0, x, far), (1, y, other)):
            sides[side].append(CORPUS.with_sinks(states, longest[0]) if sinks else states)
            pooled[side].append(CORPUS.pooled(states))
    whole = Chunk(
        torch.stack(sides[0]), torch.stack(sides[1]), CORPUS.sentences, CORPUS.types,
        torch.stack(pooled[0]), torch.stack(pooled[1]), torch.arange(TEXTS),
    )  # fmt: skip
    with Engine(SETTINGS, labels=CORPUS.labels) as engine:
        engine.update(whole)
        found = engine.compute()
    record = {
        "schema": SCHEMA,
        "models": [{"name": n, "layers": 1, "width": WIDTH, "attention": "causal", "dtype": "float32"} for n in "ab"],
        "corpus": {"texts": TEXTS, "tokens": len(CORPUS.types), "hash": "the same"},
        "settings": {"k": list(SETTINGS.k), "seed": SETTINGS.seed, "estimator": SETTINGS.estimator},
        "intervals": {"level": 0.95, "marked": {}},
        **found,
    }
    return {**record, "reading": read(record)}


def same(x: Tensor, generator: torch.Generator) -> Tensor:
    return x


def rotated(x: Tensor, generator: torch.Generator) -> Tensor:
    return 3 * x @ torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q


def permuted(x: Tensor, generator: torch.Generator) -> Tensor:
    return x[:, torch.randperm(WIDTH, generator=generator)]


def stretched(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each dimension scaled by a factor of its own, two thirds of them between 1/2 and 2."""
    return x * torch.randn(WIDTH, generator=generator).mul(math.log(2)).exp()


def shuffled_locally(x: Tensor, generator: torch.Generator) -> Tensor:
    """Tokens of a type, which lie close together, change places with each other."""
    if len(x) == 1:
        return x
    found = x.clone()
    for kind in range(TYPES):
        rows = (CORPUS.types == kind).nonzero().flatten()
        found[rows] = x[rows[torch.randperm(len(rows), generator=generator)]]
    return found


def unrelated(x: Tensor, generator: torch.Generator) -> Tensor:
    if len(x) == 1:
        return x.norm() * torch.nn.functional.normalize(torch.randn(1, WIDTH, generator=generator))
    return CORPUS.states(UNRELATED + generator.initial_seed())


PAIRS: dict[str, tuple[dict[str, Any], list[str | None]]] = {
    # Basis, global geometry, local geometry, readout; None where it follows from the construction for neither word.
    "same": ({"make": same}, ["preserved", "stable", "kept", "transferred"]),
    "rotated": ({"make": rotated}, ["drifted", "stable", "kept", None]),
    "permuted": ({"make": permuted}, ["permuted", "stable", "kept", None]),
    "stretched": ({"make": stretched}, ["preserved", "distorted", None, None]),
    "shuffled locally": ({"make": shuffled_locally, "own": 0.2}, ["preserved", "stable", "reorganised", None]),
    "only sinks in common": ({"make": unrelated, "sink": same}, ["at chance", "at chance", "at chance", None]),
    "unrelated": ({"make": unrelated}, ["at chance", "at chance", "at chance", None]),
}


@pytest.fixture(scope="module")
def panels() -> dict[str, dict[str, Any]]:
    return {name: panel(**made) for name, (made, _) in PAIRS.items()}


@pytest.mark.parametrize("name", PAIRS)
def test_the_words_say_what_was_made(panels: dict[str, dict[str, Any]], name: str):
    check(panels[name], PAIRS[name][1])


@pytest.mark.parametrize("name", ["same", "rotated", "stretched", "unrelated"])
def test_the_words_are_the_same_without_sinks(name: str):
    made, expected = PAIRS[name]
    found = panel(**made, sinks=False)
    assert found["sinks"]["tokens"] == 0
    check(found, expected)
    assert not any("sink" in line for line in found["reading"]["answer"])


def check(found: dict[str, Any], expected: list[str | None]) -> None:
    answer = found["reading"]["answer"]
    said = [line.split(": ", 1)[1].split(".", 1)[0] for line in answer]
    levels = [line.split(":", 1)[0] for line in answer]
    assert levels == ["Coordinate basis", "Global geometry", "Local geometry", "Linear readout"]
    assert [word for word, known in zip(said, expected, strict=True) if known] == [word for word in expected if word]
    for line, known in zip(answer, expected, strict=True):
        if known:
            assert line.endswith("The word is the same at 2 of 2 layers.")


@pytest.mark.parametrize("name", PAIRS)
def test_raw_values_are_near_1_for_every_pair_and_flagged_where_they_mislead(
    panels: dict[str, dict[str, Any]], name: str
):
    found = panels[name]
    raw = [layer["linear_cka"] for layer in found["layers"]]
    assert min(min(layer["biased"], layer["debiased"]) for layer in raw) > 0.97
    flagged = [line for line in found["reading"]["warnings"] if "sink tokens alone make the raw value" in line]
    if name in ("unrelated", "only sinks in common"):
        assert len([line for line in flagged if line.startswith("Raw linear CKA is 1.00 at layer 1")]) == 1
        assert any(line.startswith("Linear CKA (biased) is 1.00 at") and "it says little" in line
                   for line in found["reading"]["warnings"])  # fmt: skip
    else:
        assert not [line for line in flagged if "linear CKA" in line]


def test_what_differs_in_a_stretched_copy_is_the_scale_of_dimensions(panels: dict[str, dict[str, Any]]):
    warnings = panels["stretched"]["reading"]["warnings"]
    assert any("what differs is mostly the scale of single dimensions" in line for line in warnings)


def test_the_same_model_is_1_and_its_interval_too(panels: dict[str, dict[str, Any]]):
    for level in panels["same"]["reading"]["levels"][:3]:
        value = next(iter(level["values"].values()))
        assert [value["value"], *value["interval"]] == pytest.approx([1, 1, 1], abs=1e-5)


def test_realignment_of_constructed_panels(panels: dict[str, dict[str, Any]]):
    def words(before: str, after: str) -> list[str]:
        return [level["word"] for level in realignment(panels[before], panels[after])["levels"]]

    assert words("same", "same") == ["preserved"] * 4
    assert words("rotated", "same")[:3] == ["realigned", "preserved", "preserved"]
    assert words("stretched", "same")[:2] == ["preserved", "realigned"]
    assert words("same", "unrelated")[:3] == ["drifted", "drifted", "reorganised"]
    assert words("unrelated", "only sinks in common")[:3] == ["irreversible"] * 3
