"""Minibatch CKA against the definition of HSIC_1, and against data whose true value is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa import measures
from st_reasoning.hrsa.measures.minibatch import MinibatchHSIC, draw_minibatches


def naive_hsic(x: Tensor, y: Tensor) -> float:
    """n (n - 3) HSIC_1 from its definition, Song et al. 2012 equation 5."""
    k, other = (rows @ rows.T for rows in (x.double(), y.double()))
    k, other = k.clone().fill_diagonal_(0), other.clone().fill_diagonal_(0)
    n, ones = len(k), torch.ones(len(k), dtype=torch.float64)
    middle = (ones @ k @ ones) * (ones @ other @ ones) / ((n - 1) * (n - 2))
    return float(torch.trace(k @ other) + middle - 2 / (n - 2) * (ones @ k @ other @ ones))


def grams(layers: list[Tensor], batches: Tensor) -> Tensor:
    present = (batches >= 0)[..., None]
    picked = [torch.where(present, x[batches.clamp_min(0)], 0) for x in layers]
    return torch.stack([rows @ rows.transpose(1, 2) for rows in picked])


def cluster(seed: int, sentences: int = 200, length: int = 50, d: int = 32) -> Tensor:
    """Tokens that share most of their vector with their sentence."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(sentences, d, generator=generator).repeat_interleave(length, dim=0)
    return common + 0.5 * torch.randn(sentences * length, d, generator=generator)


@pytest.mark.parametrize("lengths", [[20] * 100, [1, 2, 3, 40] * 25, [500, *[4] * 30]])
def test_every_minibatch_holds_a_sentence_once(lengths):
    sentences = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    batches = draw_minibatches(sentences, size=50, seed=0)
    seen = torch.zeros(len(sentences))
    for batch in batches:
        rows = batch[batch >= 0]
        assert len(set(sentences[rows].tolist())) == len(rows)
        seen[rows] += 1
    pairs = sum(int((batch >= 0).sum()) ** 2 for batch in batches)
    assert pairs == pytest.approx(50 * len(sentences), rel=0.6)
    if max(lengths) < 500:
        assert len(seen.unique()) == 1  # every token equally often
    else:
        assert (seen[500:] == seen[500]).all()
        assert 0 < seen[:500].mean() < seen[500]
    assert torch.equal(batches, draw_minibatches(sentences, size=50, seed=0))
    assert not torch.equal(batches, draw_minibatches(sentences, size=50, seed=1))


def test_too_few_sentences_are_refused():
    with pytest.raises(InputError, match=r'expected at least 8, .*got 3; use estimator "exact"'):
        draw_minibatches(torch.arange(3).repeat_interleave(50), size=10, seed=0)


def test_sums_equal_the_definition_with_absent_rows():
    generator = torch.Generator().manual_seed(0)
    layers = [torch.randn(60, d, generator=generator) * 3 + 1 for d in (4, 7, 5)]
    batches = torch.from_numpy(np.random.default_rng(0).permutation(60)).reshape(5, 12)
    batches[0, 3:] = -1  # fewer than HSIC_1 needs
    batches[1, 7:] = -1
    found = MinibatchHSIC.zero(1, 2)
    for part in (batches[:2], batches[2:]):
        found.add(grams(layers, part), part >= 0, 1)
    used = [batch[batch >= 0] for batch in batches[1:]]
    for number in (1, 2):
        expected = sum(naive_hsic(layers[0][rows], layers[number][rows]) for rows in used)
        assert float(found.cross.sum(0)[0, number - 1]) == pytest.approx(expected, rel=1e-5)
        own = sum(naive_hsic(layers[number][rows], layers[number][rows]) for rows in used)
        assert float(found.own_b.sum(0)[number - 1]) == pytest.approx(own, rel=1e-5)
    assert float(found.pairs.sum()) == sum(len(rows) * (len(rows) - 3) for rows in used)


def test_one_minibatch_of_all_rows_gives_both_estimators():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(90, 12, generator=generator)
    y = x[:, :8] + torch.randn(90, 8, generator=generator)
    x, y = x - x.mean(0), y - y.mean(0)
    found = MinibatchHSIC.zero(1, 1)
    batch = torch.arange(90)[None]
    found.add(grams([x, y], batch), batch >= 0, 1)
    assert float(found.debiased()[0]) == pytest.approx(measures.linear_cka(x, y, estimator="debiased"), abs=2e-6)
    biased, _, own, _ = found.biased(x.double().square().sum(1)[None], y.double().square().sum(1)[None])
    assert float(biased) == pytest.approx(measures.linear_cka(x, y), abs=2e-6)
    assert float(own) == pytest.approx(float((x.T @ x).square().sum()), rel=1e-5)


def test_tokens_of_a_sentence_do_not_make_unrelated_data_alike():
    # Trap 3: the token-level estimator takes 10,000 tokens for independent rows.
    x, y = cluster(0), cluster(1)
    sentences = torch.arange(200).repeat_interleave(50)
    assert measures.linear_cka(x, y, estimator="debiased") > 0.05  # the trap is set
    found = MinibatchHSIC.zero(1, 1)
    for part in draw_minibatches(sentences, size=256, seed=0).split(8):
        found.add(grams([x - x.mean(0), y - y.mean(0)], part), part >= 0, 1)
    assert abs(float(found.debiased()[0])) < 0.01


def test_debiased_cka_equals_a_public_package():
    # pytorch-cka 1.1.3 computes HSIC_1 from stacks of Gram matrices.
    hsic = pytest.importorskip("cka.hsic", reason="needs `pip install pytorch-cka`").hsic
    generator = torch.Generator().manual_seed(0)
    xs = [torch.randn(50, d, generator=generator, dtype=torch.float64) + 1 for d in (6, 90)]
    ys = [xs[0] + torch.randn(50, 6, generator=generator), xs[1] @ torch.randn(90, 30, generator=generator).double()]
    cross, own_x, own_y = hsic(*(torch.stack([rows @ rows.T for rows in side]) for side in (xs, ys)))
    expected = cross / own_x.sqrt()[:, None] / own_y.sqrt()[None, :]
    found = measures.linear_cka_matrix(xs, ys, estimator="debiased")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    batch = torch.arange(50)[None]
    once = MinibatchHSIC.zero(2, 2)
    once.add(grams([*xs, *ys], batch), batch >= 0, 2)
    torch.testing.assert_close(once.debiased()[0], expected, rtol=0, atol=1e-6)
