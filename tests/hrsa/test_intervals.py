"""What a value is without a block of sentences, against the value of the texts without those sentences."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from st_reasoning.hrsa import Chunk, measures
from st_reasoning.hrsa.inference import Intervals
from st_reasoning.hrsa.measures.neighbours import Shared
from st_reasoning.hrsa.measures.procrustes import split
from st_reasoning.stats.jackknife import blocks
from tests.hrsa.test_engine import EXACT, FAST, corpus, measured, pieces

TEXTS = 60
ONE_EACH = dataclasses.replace(EXACT, blocks=TEXTS)


def related(texts: int = TEXTS) -> Chunk:
    """States of two models that share less in some sentences than in others."""
    whole = corpus(texts)
    generator = torch.Generator().manual_seed(5)
    spread = torch.rand(texts, generator=generator)[whole.sentences][None, :, None] * 4
    return dataclasses.replace(whole, b=whole.a + spread * torch.randn(whole.a.shape, generator=generator))


def without(whole: Chunk, text: int) -> Chunk:
    return pieces(whole, [[number for number in range(TEXTS) if number != text]])[0]


def at(record: dict[str, Any], address: str, layer: int) -> float:
    section, _, path = address.rpartition("sensitivity.")
    found = record["sensitivity" if section or address.startswith("sensitivity.") else "layers"][layer]
    for key in path.split("."):
        found = found[key]
    return found


CENTRES = (
    "dimension_correlation.value",
    "linear_cka.biased",
    "linear_cka.debiased",
    "knn_overlap.10.value",
    "knn_overlap.10.value_other_types",
    "sensitivity.linear_cka_without_sinks.biased",
    "sensitivity.linear_cka_without_sinks.debiased",
    "sensitivity.dimension_correlation_without_sinks.value",
    "sensitivity.knn_overlap_without_sinks.10.value",
    "sensitivity.knn_overlap_standardised.10.value",
)


def test_values_without_a_sentence_are_those_of_the_other_sentences():
    whole = related()
    record = measured([whole], ONE_EACH)
    block_of = blocks(np.arange(TEXTS), count=TEXTS, seed=0)
    gone = range(0, TEXTS, 10)  # the first token of each is a sink
    others = {text: measured([without(whole, text)], ONE_EACH) for text in gone}
    for address in CENTRES:
        # Where sinks decide the scale of the standardised columns, leaving one out changes all of them.
        for layer in (0, 2) if "standardised" in address else (0, 1, 2):
            value = at(record, address, layer)
            guess = np.array([record["jackknife"]["left_out"][address][layer][block_of[text]] - value for text in gone])
            truth = np.array([at(others[text], address, layer) - value for text in gone])
            # To first order in 1/60: a count of neighbours goes by steps, columns stay standardised as they were.
            # Errors that differ from block to block add to a standard error by their squares: 0.3 is 4 % of it.
            close = 0.3 if "knn" in address else 0.12
            assert np.linalg.norm(guess - truth) <= close * np.linalg.norm(truth) + 1e-6, (address, layer)


def test_procrustes_without_a_sentence_is_that_of_the_other_sentences():
    whole = related()
    x, y = whole.a[0], whole.b[0]
    record = measured([whole], ONE_EACH)
    held_out = split(len(x), whole.sentences, ONE_EACH.test_share, ONE_EACH.seed)
    block_of = blocks(np.arange(TEXTS), count=TEXTS, seed=0)
    for address, moved in (
        ("procrustes.inverse_row_entropy", whole.sentences[~held_out]),
        ("procrustes.residual", whole.sentences[held_out]),
    ):
        value, guess, truth = at(record, address, 0), [], []
        for text in moved.unique()[:10].tolist():
            rows = whole.sentences != text
            fit = measures.procrustes(x[rows], y[rows], held_out=held_out[rows])
            truth.append(getattr(fit, address.rpartition(".")[2]) - value)
            guess.append(record["jackknife"]["left_out"][address][0][block_of[text]] - value)
        # Fewer tokens make any map look more mixed. That moves all of these alike, and is no part of an interval.
        guess, truth = (np.subtract(values, np.mean(values)) for values in (guess, truth))
        assert np.linalg.norm(guess - truth) <= 0.3 * np.linalg.norm(truth), address


def test_fast_intervals_are_as_wide_as_exact_ones():
    # Minibatches see a part of the pairs, which adds to the error of a value and to its interval.
    whole = related()
    fast, exact = measured([whole], FAST), measured([whole], EXACT)
    for name in ("linear_cka", "linear_cka_debiased", "dimension_correlation"):
        ratio = Tensor(fast["matrices"][f"{name}_half_width"]) / Tensor(exact["matrices"][f"{name}_half_width"])
        # The sink layer is 12 tokens and little else: its pairs can hardly be sampled.
        ratio = ratio[[0, 2]][:, [0, 2]]
        assert 0.8 < float(ratio.min()) <= float(ratio.max()) < 1.6, name


def test_a_value_stands_inside_its_interval():
    record = measured([related()], EXACT)
    for entry in record["layers"]:
        parts = [entry[name] for name in ("linear_cka", "dimension_correlation", "procrustes")]
        for part in (*parts, entry["knn_overlap"]["3"]):
            for key in [key for key in part if key.endswith("_interval")]:
                low, high = part[key]
                assert low < part[key.removesuffix("_interval")] < high
    assert record["intervals"]["blocks"] == 32
    assert sum(record["jackknife"]["weights"]) == record["sample"]["tokens"]


@pytest.mark.parametrize(
    ("address", "value", "ends"),
    [
        ("linear_probe.own", 0.95, [0.85, 1.0]),
        ("sensitivity.linear_probe_without_sinks.difference", 0.95, [0.85, 1.0]),
        ("sensitivity.linear_probe_standardised.difference", -0.05, [-0.15, 0.05]),
        ("knn_overlap.5.value_other_types", 0.05, [0.0, 0.15]),
        ("dimension_correlation.value", -0.95, [-1.0, -0.85]),
        ("linear_cka.debiased", -0.05, [-0.15, 0.05]),
        ("procrustes.residual", 1.05, [0.95, 1.15]),
    ],
)
def test_an_interval_goes_no_further_than_values_can(address: str, value: float, ends: list[float]):
    left_out = torch.full((4,), value, dtype=torch.float64)
    found = Intervals(torch.ones(4), 1).entry(address, 0, value, left_out, least=0.1)
    assert found[f"{address.rpartition('.')[2]}_interval"] == pytest.approx(ends)


def test_the_same_model_is_sure_of_itself():
    whole = corpus()
    record = measured([dataclasses.replace(whole, b=whole.a, pooled_b=whole.pooled_a)], EXACT)
    for entry in record["layers"]:
        assert entry["linear_cka"]["debiased_interval"] == pytest.approx([1, 1], abs=1e-5)
        assert entry["knn_overlap"]["10"]["value_interval"] == [1, 1]
        assert entry["procrustes"]["inverse_row_entropy_interval"] == pytest.approx([1, 1], abs=1e-6)


def test_changes_of_neighbours_are_those_of_lists_without_them():
    rng = np.random.default_rng(0)
    lists = [torch.from_numpy(np.stack([rng.permutation(9)[:5] for _ in range(40)])) for _ in range(2)]
    size = 4
    shared = Shared.of(*lists, 9)
    change_x, change_y = shared.changes(size)
    before = shared.jaccard(size)
    for row in range(40):
        for side, change in ((0, change_x), (1, change_y)):
            for place in range(size):
                gone = int(lists[side][row, place])
                shorter = [torch.tensor([[one for one in near[row].tolist() if one != gone][:size]]) for near in lists]
                expected = float(Shared.of(*shorter, 9).jaccard(size)[0] - before[row])
                if side == 1 and gone in lists[0][row, :size]:
                    expected = 0.0  # counted with the first list
                assert float(change[row, place]) == pytest.approx(expected, abs=1e-12)


def test_lists_that_are_too_short_share_nothing_that_is_known(monkeypatch):
    monkeypatch.setattr("st_reasoning.hrsa.measures.neighbours._TABLE", 20)  # two queries at a time
    x = torch.tensor([[4, 2, -1], [1, -1, -1], [0, 1, 2], [8, 3, 5]])
    y = torch.tensor([[2, 4, 7], [1, -1, -1], [2, 1, 0], [5, 8, -1]])
    shared = Shared.of(x, y, 9)
    assert shared.in_y.tolist() == [[1, 0, 3], [0, 3, 3], [2, 1, 0], [1, 3, 0]]
    assert shared.in_x.tolist() == [[1, 0, 3], [0, 3, 3], [2, 1, 0], [2, 0, 3]]
    assert shared.jaccard(2).nan_to_num(-1).tolist() == [1, -1, 1 / 3, 1 / 3]
    # Without any of its neighbours the third query has the same two in both; of the others too few are known.
    of_x, of_y = (change[2].tolist() for change in shared.changes(2))
    assert (of_x, of_y) == (pytest.approx([2 / 3, 2 / 3]), pytest.approx([2 / 3, 0]))
    assert not any(change[[0, 1, 3]].any() for change in shared.changes(2))
