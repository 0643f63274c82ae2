"""All HRSA measures on the activations of two models that are in memory."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch

from st_reasoning.errors import InputError
from st_reasoning.hrsa.activations import Activations
from st_reasoning.hrsa.chunk import Chunk
from st_reasoning.hrsa.engine import Engine
from st_reasoning.hrsa.settings import Settings, Stopwatch

# Tokens of a chunk, as long as no text is longer.
_CHUNK = 512


def compare(
    a: Activations,
    b: Activations,
    *,
    names: tuple[str, str],
    settings: Settings,
    labels: Sequence[Hashable] | None = None,
    stopwatch: Stopwatch | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Return the measured part of a panel: layers, matrices, sensitivity, sinks_left_out, sample and omitted.

    Args:
        a: Activations of one model.
        b: Activations of the other: the same tokens.
        names: What the two are called in the result.
        settings: See :class:`~st_reasoning.hrsa.settings.Settings`.
        labels: A class per sentence, for the probe; without them it is omitted.
        stopwatch: Where to add the seconds of each part.
        progress: Whether to show a bar over the layers.

    Raises:
        InputError: for tokens that do not match, or too few tokens for the largest ``k``.
    """
    if not (torch.equal(a.token_ids, b.token_ids) and torch.equal(a.sentence, b.sentence)):
        raise InputError("models: expected the same tokens in the same sentences, got different ones")
    with Engine(settings, names=names, labels=labels, stopwatch=stopwatch, progress=progress) as engine:
        for chunk in chunks(a, b, pooled=labels is not None):
            engine.update(chunk)
        return engine.compute()


def chunks(a: Activations, b: Activations, *, pooled: bool) -> Iterator[Chunk]:
    """Yield the activations of two models a few texts at a time."""
    texts, lengths = torch.unique_consecutive(a.sentence, return_counts=True)
    ends = lengths.cumsum(0)
    first = 0
    while first < len(texts):
        start = int(ends[first] - lengths[first])
        last = max(first + 1, int(torch.searchsorted(ends, start + _CHUNK, right=True)))
        rows, among = slice(start, int(ends[last - 1])), texts[first:last]
        yield Chunk(
            a=torch.stack([states[rows] for states in a.states]),
            b=torch.stack([states[rows] for states in b.states]),
            sentences=a.sentence[rows],
            types=a.token_ids[rows],
            pooled_a=torch.stack([features[among] for features in a.features]) if pooled else None,
            pooled_b=torch.stack([features[among] for features in b.features]) if pooled else None,
            texts=among,
        )
        first = last
