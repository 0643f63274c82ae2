"""The chance level of neighbour overlaps, also of those without sinks or types and in standardised dimensions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from st_reasoning.hrsa import Engine, Settings
from st_reasoning.hrsa.local import chance_overlap
from tests.hrsa.populations import Population


def test_chance_is_the_overlap_of_partners_of_neighbours_with_neighbours_of_partners():
    rng = np.random.default_rng(0)
    n, k = 40, 6
    partners = rng.permutation(n)
    partners[rng.random(n) < 0.2] = -1
    near = np.stack([rng.permutation(n)[:k] for _ in range(15)])
    theirs = np.stack([rng.permutation(n)[:k] for _ in range(15)])
    near[3, -1] = theirs[4, -2] = -1  # too few neighbours: not counted
    expected = []
    for one, other in zip(near, theirs, strict=True):
        if -1 in one or -1 in other:
            continue
        mapped = {int(partners[row]) for row in one} - {-1}
        shared = len(mapped & set(other.tolist()))
        expected.append(shared / (2 * k - shared))
    assert len(expected) == 13
    found = chance_overlap(*(torch.from_numpy(each) for each in (near, theirs)), k, torch.from_numpy(partners))
    assert found == pytest.approx(np.mean(expected), abs=1e-12)
    assert np.isnan(chance_overlap(torch.full((2, k), -1), torch.zeros(2, k).long(), k, torch.from_numpy(partners)))


@pytest.mark.parametrize("estimator", ["fast", "exact"])
def test_every_overlap_has_a_chance_of_its_own(estimator: str):
    drawn = Population(texts=60).draw(0)
    with Engine(Settings(k=(5,), estimator=estimator, queries=300, blocks=8)) as engine:
        engine.update(drawn.chunk)
        record = engine.compute()
    for layer, guard in zip(record["layers"], record["sensitivity"], strict=True):
        raw = layer["knn_overlap"]["5"]
        chances = {
            "raw": raw["chance"],
            "types": raw["chance_other_types"],
            "sinks": guard["knn_overlap_without_sinks"]["5"]["chance"],
            "scaled": guard["knn_overlap_standardised"]["5"]["chance"],
        }
        # Types are drawn by text and place: the partner's is another one. Chance is small, and far below the value.
        assert all(0 <= chance < 0.1 for chance in chances.values()), chances
        assert raw["value"] > 2 * max(chances.values()), chances
    # At layer 1 sinks are all first tokens, whose neighbours are each other: chance is high with them.
    sinks = record["layers"][1]["knn_overlap"]["5"]["chance"]
    assert sinks >= record["sensitivity"][1]["knn_overlap_without_sinks"]["5"]["chance"]
