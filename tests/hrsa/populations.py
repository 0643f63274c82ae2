"""Data sets drawn from a population whose values are known, and how often intervals hold them.

Symbols: d width, n tokens, m texts, R data sets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor

from st_reasoning.hrsa import Chunk, Engine, Settings
from st_reasoning.hrsa.addresses import Values
from st_reasoning.hrsa.inference import LEVEL, MARKED
from st_reasoning.hrsa.measures.probe import FrozenProbe, held_out, scaler

CLASSES, TYPES = 3, 30
# Deviations of what tokens of a sentence share and of what each has to itself.
SENTENCE, TOKEN = 0.6, 0.8
SHARED, OWN = 1.0, 0.5
FRESH = 20_000


@dataclass(frozen=True)
class Drawn:
    """A data set: the chunk, and the class of each text."""

    chunk: Chunk
    labels: list[int]


class Population:
    """Two models whose states have a part in common, turned by less than a right angle, and one of their own each.

    A token's state is linear in latent variables [3 d] (common, of the first, of the second model): the sum of an
    effect of its type, one of its text's class, one of its text, and noise. Types and classes are drawn, so that texts
    are independent; their effects, the spectrum (powers of -1/2) and the maps belong to the population. Layer 0 has no
    sinks. At layer 1 the first token of every text is one in both models, of a length that differs from text to text.

    Args:
        width: d.
        texts: m.
        seed: Of the population.
    """

    def __init__(self, width: int = 16, texts: int = 150, seed: int = 0) -> None:
        self.width, self.texts = width, texts
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.types, self.classes = normal(TYPES, 3 * width), 0.45 * normal(CLASSES, 3 * width)
        self.maps = []
        for _ in range(2):
            spectrum = torch.diag(torch.arange(1, width + 1, dtype=torch.float64) ** -0.5)
            spectrum = spectrum[torch.randperm(width, generator=generator)]
            skew = normal(width, width) * (0.4 / math.sqrt(width))
            turned, none = torch.linalg.matrix_exp(skew - skew.T), torch.zeros(width, width, dtype=torch.float64)
            first = torch.cat([SHARED * spectrum, OWN * spectrum, none])
            self.maps.append((first, torch.cat([SHARED * spectrum @ turned, none, OWN * spectrum])))
        self.means = normal(2, 2, width)
        self.sinks = 50 * torch.nn.functional.normalize(normal(2, width), dim=1) * math.sqrt(width)

    def draw(self, seed: int) -> Drawn:
        """Return a data set of m texts of 6 to 12 tokens."""
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(6, 13, (self.texts,), generator=generator)
        sentences = torch.repeat_interleave(torch.arange(self.texts), lengths)
        latent, types, labels = self._latent(sentences, generator)
        a, b = (
            torch.stack([latent @ self.maps[layer][side] + self.means[layer, side] for layer in range(2)])
            for side in range(2)
        )
        first = torch.searchsorted(sentences, torch.arange(self.texts))
        # No sink is so short that it would count as an ordinary token, and be most of what these amount to.
        common, *others = torch.rand(3, self.texts, generator=generator, dtype=torch.float64)
        for side, states in enumerate((a, b)):
            states[1, first] += self.sinks[side] * (0.5 + 0.5 * (common + others[side]))[:, None]
        # The probe is of the pooled tokens that are no sinks.
        body = torch.ones(len(sentences), dtype=torch.bool)
        body[first] = False
        pooled = [_means(states[:, body], sentences[body], self.texts).float() for states in (a, b)]
        chunk = Chunk(a.float(), b.float(), sentences, types, *pooled, torch.arange(self.texts))
        return Drawn(chunk, labels.tolist())

    def fresh(self, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return pooled states [2, m, d] of both models and classes [m] of many other texts."""
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(6, 13, (FRESH,), generator=generator) - 1
        sentences = torch.repeat_interleave(torch.arange(FRESH), lengths)
        latent, _, labels = self._latent(sentences, generator)
        pooled = _means(latent[None], sentences, FRESH)[0]
        a, b = (
            torch.stack([pooled @ self.maps[layer][side] + self.means[layer, side] for layer in range(2)])
            for side in range(2)
        )
        return a, b, labels

    def _latent(self, sentences: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        texts, n = int(sentences.max()) + 1, len(sentences)
        labels = torch.randint(0, CLASSES, (texts,), generator=generator)
        types = torch.randint(0, TYPES, (n,), generator=generator)
        whole = self.classes[labels] + SENTENCE * torch.randn(
            texts, 3 * self.width, generator=generator, dtype=torch.float64
        )
        own = TOKEN * torch.randn(n, 3 * self.width, generator=generator, dtype=torch.float64)
        return self.types[types] + whole[sentences] + own, types, labels

    def covariances(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the covariances [d, d] of x, of y, and of x with y, of tokens that are no sinks."""
        latent = (SENTENCE**2 + TOKEN**2) * torch.eye(3 * self.width, dtype=torch.float64)
        latent += torch.cov(self.types.T, correction=0) + torch.cov(self.classes.T, correction=0)
        x, y = self.maps[layer]
        return x.T @ latent @ x, y.T @ latent @ y, x.T @ latent @ y

    def known(self, layer: int, *, estimator: str) -> dict[str, float]:
        """Return what has a closed form, by address.

        CKA of independent pairs of tokens is what ``"fast"`` estimates, whose pairs are of different texts; all pairs,
        as ``"exact"`` takes them, hold some of one text more, so that its value at a size is none of the population.
        """
        xx, yy, xy = self.covariances(layer)
        deviations = xx.diagonal().sqrt(), yy.diagonal().sqrt()
        correlation = float((xy.diagonal() / deviations[0] / deviations[1]).mean())
        cka = float(xy.square().sum() / xx.norm() / yy.norm())
        scaled = [
            one / left[:, None] / right
            for one, left, right in zip(
                (xx, yy, xy), (deviations[0], deviations[1], deviations[0]),
                (deviations[0], deviations[1], deviations[1]), strict=True,
            )
        ]  # fmt: skip
        found = {"sensitivity.dimension_correlation_without_sinks.value": correlation}
        fast = {
            "sensitivity.linear_cka_without_sinks.debiased": cka,
            "sensitivity.linear_cka_standardised.debiased": float(
                scaled[2].square().sum() / scaled[0].norm() / scaled[1].norm()
            ),
            "linear_cka.debiased": cka,
        }
        if layer:  # sinks are no part of the closed form
            fast = {address: value for address, value in fast.items() if "without_sinks" in address}
        else:
            found["dimension_correlation.value"] = correlation
        return found | (fast if estimator == "fast" else {})


def _means(states: Tensor, sentences: Tensor, texts: int) -> Tensor:
    sums = states.new_zeros(len(states), texts, states.shape[2]).index_add_(1, sentences, states)
    return sums / torch.bincount(sentences, minlength=texts)[None, :, None]


@dataclass(frozen=True)
class Found:
    """Of an address and a layer: values, ends of intervals and true values of R data sets, [R] each."""

    address: str
    layer: int
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    truth: np.ndarray
    closed: bool

    @property
    def marked(self) -> bool:
        """Whether panels say that its coverage is another one."""
        return any(fnmatchcase(self.address, name) for name in MARKED)

    @property
    def held(self) -> int:
        """How many intervals hold the true value."""
        return int(((self.low <= self.truth) & (self.truth <= self.high)).sum())

    @property
    def coverage(self) -> float:
        """The share of them."""
        return self.held / len(self.values)

    @property
    def width(self) -> float:
        """Mean half width beside what it should be: 1.96 standard deviations of the value about the true one."""
        return float((self.high - self.low).mean() / 2 / (1.96 * (self.values - self.truth).std(ddof=1)))

    @property
    def bias(self) -> float:
        """Mean of the value less the true one."""
        return float((self.values - self.truth).mean())


def simulate(
    population: Population, settings: Settings, replications: int, *, seed: int = 0, labels: bool = True
) -> list[Found]:
    """Return what the engine says of data sets, by address and layer.

    True values are closed forms where there are any; of the probe the accuracy of the fitted one on many other texts;
    else the mean of all values, which is what the measure is at this size.

    Args:
        population: To draw from.
        settings: Of the engine.
        replications: R.
        seed: Of the first data set.
        labels: Whether to fit probes too.
    """
    fresh = population.fresh(seed - 1) if labels else None
    rows: dict[tuple[str, int], list[tuple[float, float, float, float]]] = {}
    for number in range(replications):
        drawn = population.draw(seed + number)
        with Engine(settings, labels=drawn.labels if labels else None) as engine:
            engine.update(drawn.chunk)
            values = Values(engine.compute())
        for layer in range(values.layers):
            truths = {} if fresh is None else probed(drawn, fresh, layer, settings)
            for address in values:
                found = values.at(address, layer)
                if found.value is not None and found.interval is not None:
                    rows.setdefault((address, layer), []).append(
                        (found.value, *found.interval, truths.get(address, math.nan))
                    )
    closed = {layer: population.known(layer, estimator=settings.estimator) for layer in range(2)}
    results = []
    for (address, layer), entries in rows.items():
        values_of, low, high, truth = np.array(entries).T
        known = address in closed[layer] or "linear_probe" in address
        if address in closed[layer]:
            truth = np.full_like(values_of, closed[layer][address])
        elif not known:
            truth = np.full_like(values_of, values_of.mean())
        results.append(Found(address, layer, values_of, low, high, truth, known))
    return results


def probed(drawn: Drawn, fresh: tuple[Tensor, Tensor, Tensor], layer: int, settings: Settings) -> dict[str, float]:
    """Return the accuracies of the fitted probe of a data set on other texts, by address."""
    assert drawn.chunk.pooled_a is not None
    assert drawn.chunk.pooled_b is not None
    # Classes are numbered in the order in which the engine sees them.
    number = {label: at for at, label in enumerate(dict.fromkeys(drawn.labels))}
    numbers = np.array([number[label] for label in drawn.labels])
    train = ~held_out(numbers, settings.test_share, settings.seed)
    x, y = (pooled[layer].double().numpy()[train] for pooled in (drawn.chunk.pooled_a, drawn.chunk.pooled_b))
    probe = FrozenProbe.fit(x, numbers[train], kind=settings.probe)
    expected = np.array([number[label] for label in fresh[2].tolist()])
    own, transferred, rescaled = (
        float((one.predict(side[layer].numpy()) == expected).mean())
        for one, side in zip((probe, probe, replace(probe, **scaler(y))), (*fresh[:2], fresh[1]), strict=True)
    )
    found = {}
    # What is pooled are the tokens that are no sinks.
    for address, theirs in (
        ("linear_probe", transferred),
        ("sensitivity.linear_probe_without_sinks", transferred),
        ("sensitivity.linear_probe_standardised", rescaled),
    ):
        found |= {
            f"{address}.own": own,
            f"{address}.transferred": theirs,
            f"{address}.difference": theirs - own,
        }
    return found


def margins(replications: int) -> float:
    """Return half the width of a 95 % interval of a coverage of 95 %."""
    return 1.96 * math.sqrt(LEVEL * (1 - LEVEL) / replications)


def lines(results: list[Found]) -> Iterator[str]:
    """Yield a table for a terminal."""
    yield f"{'address':58} layer truth   value   coverage          width   bias/sd"
    for one in results:
        share = one.coverage
        error = 1.96 * math.sqrt(share * (1 - share) / len(one.values))
        spread = float(one.values.std(ddof=1))
        star = " *" if one.marked else ""
        yield (
            f"{one.address:58} {one.layer:5} {'known' if one.closed else 'mean':5} {one.values.mean():7.3f} "
            f"{100 * share:6.1f} +- {100 * error:3.1f} %  {one.width:5.2f}  "
            f"{one.bias / spread if spread else 0:6.2f}{star}"
        )
