"""The probe without sinks, in standardised dimensions, and what it is without a block of texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from st_reasoning.hrsa import Chunk, Engine, Settings, measures
from st_reasoning.hrsa.probing import accuracy_left_out, least_half_widths
from tests.hrsa.populations import Population

SETTINGS = Settings(k=(1,), estimator="fast", queries=1, blocks=16)


def probed(chunk: Chunk, labels: list[int]) -> tuple[list[dict], list[dict], dict]:
    with Engine(SETTINGS, labels=labels) as engine:
        engine.update(chunk)
        record = engine.compute()
    return record["layers"], record["sensitivity"], record["omitted"]


def test_an_accuracy_without_a_block_is_that_of_the_texts_left():
    rng = np.random.default_rng(0)
    m, count = 120, 8
    classes, blocks = rng.integers(0, 3, m), rng.integers(0, count, m)
    blocks[:5] = -1  # texts of which no token was looked at
    tested = np.sort(rng.permutation(m)[:40])
    right = rng.random(40) < 0.7
    tensors = [torch.from_numpy(each) for each in (right, tested, classes, blocks)]
    found = accuracy_left_out(*tensors, count)

    def stratified(left: int | None) -> float:
        kept = [i for i in range(m) if left is None or blocks[i] != left]
        total = 0.0
        for c in range(3):
            answers = [right[j] for j, i in enumerate(tested) if classes[i] == c and i in kept]
            total += sum(classes[i] == c for i in kept) / len(kept) * np.mean(answers)
        return total

    expected = [right.mean() + stratified(block) - stratified(None) for block in range(count)]
    assert found.numpy() == pytest.approx(np.array(expected), abs=1e-12)


def test_a_class_that_loses_all_its_tested_texts_keeps_its_accuracy():
    right, tested = torch.tensor([True, False, True]), torch.tensor([0, 1, 2])
    classes, blocks = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 1])
    found = accuracy_left_out(right, tested, classes, blocks, 2)
    # Without block 0 only class 1 is left, all of it right; without block 1 only class 0, half of it.
    assert found.tolist() == pytest.approx([2 / 3 + 1 - 0.75, 2 / 3 + 0.5 - 0.75])


def test_the_probe_without_sinks_is_of_the_mean_of_the_other_tokens():
    drawn = Population().draw(0)
    # The population pools without sinks: pooled with them, a probe reads lengths of sinks.
    layers, guards, omitted = probed(drawn.chunk, drawn.labels)
    assert omitted == {}
    for layer, guard in zip(layers, guards, strict=True):
        raw, without = layer["linear_probe"], guard["linear_probe_without_sinks"]
        assert without["own"] == pytest.approx(raw["own"], abs=0.04)
        assert without["own_interval"][0] < without["own"] < without["own_interval"][1]
    # Layer 1 has sinks, layer 0 has none of its own, but leaves out the same tokens.
    sentences, body = drawn.chunk.sentences, torch.ones(len(drawn.chunk.sentences), dtype=torch.bool)
    body[torch.searchsorted(sentences, torch.arange(150))] = False
    means = [
        torch.stack([states[1, body & (sentences == text)].mean(dim=0) for text in range(150)])
        for states in (drawn.chunk.a, drawn.chunk.b)
    ]
    expected = measures.linear_probe_transfer(*means, drawn.labels, seed=0)
    found = guards[1]["linear_probe_without_sinks"]
    assert (found["own"], found["transferred"]) == (expected.own, expected.transferred)


def test_standardised_dimensions_forgive_a_shift_and_a_scale_per_dimension():
    x, _, classes = (each[0] if each.ndim == 3 else each for each in Population().fresh(3))
    x, labels = x[:300], classes[:300].tolist()
    y = x * torch.linspace(0.2, 5, x.shape[1]) + 7
    found = measures.linear_probe_transfer(x, y, labels, seed=0)
    assert found.own > 0.7
    assert found.transferred < found.own - 0.2
    assert torch.equal(found.rescaled, found.right[0])
    # Witness: scikit-learn on features that are standardised by hand.
    numbers = np.array(labels)
    scored = np.zeros(300, dtype=bool)
    scored[found.tested] = True

    def scaled(rows: np.ndarray) -> np.ndarray:
        return (rows - rows[~scored].mean(axis=0)) / rows[~scored].std(axis=0)

    model = LogisticRegression(max_iter=2000, tol=1e-5).fit(scaled(x.numpy())[~scored], numbers[~scored])
    right = model.predict(scaled(y.numpy())[scored]) == numbers[scored]
    assert np.array_equal(right, found.rescaled.numpy())


def test_too_few_texts_without_sinks_leave_the_value_out_and_say_why():
    drawn = Population(texts=40).draw(1)
    chunk = drawn.chunk
    labels = [int(text >= 35) for text in range(40)]
    # Every token of five texts of class 1 is a sink, so that class 1 has none left.
    states = chunk.a.clone()
    states[1, chunk.sentences >= 35] *= 1e4
    _, guards, omitted = probed(
        Chunk(states, chunk.b, chunk.sentences, chunk.types, chunk.pooled_a, chunk.pooled_b, chunk.texts), labels
    )
    assert guards[0]["linear_probe_without_sinks"] is None
    assert "too few texts of some class" in omitted["linear_probe_without_sinks"]


def test_a_probe_that_is_always_right_is_not_surely_always_right():
    """Against statsmodels' Agresti-Coull interval of no error; a zero-width interval would call six texts proof."""
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    for tested in (6, 30, 200):
        share, difference = least_half_widths(tested)
        _, high = proportion.proportion_confint(0, tested, method="agresti_coull")  # its lower end is cut at 0
        # Theirs adds z^2 / 2 = 1.92 instead of 2 to each.
        middle = 1.92 / (tested + 3.84)
        assert share == pytest.approx(high - middle, rel=0.03)
        assert difference == pytest.approx(1.96 / (tested + 2), rel=1e-3)
    x = torch.cat([torch.zeros(20, 4) - 3, torch.zeros(20, 4) + 3]) + 0.1 * torch.randn(
        40, 4, generator=torch.Generator().manual_seed(0)
    )
    labels = [0] * 20 + [1] * 20
    chunk = Chunk(x[None], x[None], torch.arange(40), torch.arange(40), x[None], x[None], torch.arange(40))
    layers, _, _ = probed(chunk, labels)
    found = layers[0]["linear_probe"]
    assert found["own"] == found["transferred"] == 1
    share, difference = least_half_widths(found["test_rows"])
    assert found["own_interval"] == pytest.approx([1 - share, 1])
    assert found["difference_interval"] == pytest.approx([-difference, difference])
