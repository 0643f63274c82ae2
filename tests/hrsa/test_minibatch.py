"""Minibatch CKA against the definition of HSIC_1, and against data whose true value is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa import measures
from st_reasoning.hrsa.measures.minibatch import PairSums, draw_minibatches


def naive_hsic(x: Tensor, y: Tensor) -> float:
    """n (n - 3) HSIC_1 from its definition, Song et al. 2012 equation 5."""
    k, other = (rows @ rows.T for rows in (x.double(), y.double()))
    k, other = k.clone().fill_diagonal_(0), other.clone().fill_diagonal_(0)
    n, ones = len(k), torch.ones(len(k), dtype=torch.float64)
    middle = (ones @ k @ ones) * (ones @ other @ ones) / ((n - 1) * (n - 2))
    return float(torch.trace(k @ other) + middle - 2 / (n - 2) * (ones @ k @ other @ ones))


def grams(layers: list[Tensor], rows: Tensor, columns: Tensor) -> Tensor:
    centred = [x - x.mean(0) for x in layers]
    return torch.stack([x[rows] @ x[columns].T for x in centred])


def squares(layers: list[Tensor]) -> Tensor:
    return torch.stack([(x - x.mean(0)).double().square().sum(1) for x in layers])


def all_pairs(n: int) -> Tensor:
    return torch.ones(n, n, dtype=torch.float64).fill_diagonal_(0)


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


def test_all_pairs_give_the_definition():
    generator = torch.Generator().manual_seed(0)
    layers = [torch.randn(60, d, generator=generator, dtype=torch.float64) * 3 + 1 for d in (4, 7, 5)]
    found = PairSums.zero(1, 2)
    for rows in torch.arange(60).split(25):  # pairs in two portions and a rest
        found.add(grams(layers, rows, torch.arange(60)), all_pairs(60)[rows], 1)
    own = squares(layers)
    value, _ = found.debiased(own[:1], own[1:])
    for number in (1, 2):
        cross, own_x, own_y = (
            naive_hsic(a, b) for a, b in ((layers[0], layers[number]), (layers[0],) * 2, (layers[number],) * 2)
        )
        assert float(value[0, number - 1]) == pytest.approx(cross / (own_x * own_y) ** 0.5, rel=1e-9)
    biased, _, product, _ = found.biased(own[:1], own[1:], share=1.0)
    assert float(biased[0, 0]) == pytest.approx(measures.linear_cka(layers[0], layers[1]), abs=1e-9)
    x = layers[0] - layers[0].mean(0)
    assert float(product) == pytest.approx(float((x.T @ x).square().sum()), rel=1e-9)


def test_weights_make_a_sample_stand_for_all_pairs():
    generator = torch.Generator().manual_seed(1)
    layers = [torch.randn(40, 6, generator=generator, dtype=torch.float64) for _ in range(2)]
    whole, parts = PairSums.zero(1, 1), PairSums.zero(1, 1)
    whole.add(grams(layers, torch.arange(40), torch.arange(40)), all_pairs(40), 1)
    # Every pair of two groups once, in both directions, and the pairs within the groups.
    first, second = torch.arange(15), torch.arange(15, 40)
    parts.add(grams(layers, first, first), all_pairs(15), 1)
    parts.add(grams(layers, second, second), all_pairs(25), 1)
    tile, ones = grams(layers, first, second), torch.ones(15, 25, dtype=torch.float64)
    parts.add(tile, ones, 1)
    parts.add(tile.transpose(1, 2), ones.T, 1)
    torch.testing.assert_close(parts.cross, whole.cross)
    torch.testing.assert_close(parts.own_b, whole.own_b)
    half = PairSums.zero(1, 1)
    half.add(tile, 2 * ones, 1)
    both = PairSums.zero(1, 1)
    both.add(tile, ones, 1)
    both.add(tile, ones, 1)
    torch.testing.assert_close(half.own_a, both.own_a)


def test_mirror_images_are_pairs_of_the_other_tokens():
    generator = torch.Generator().manual_seed(0)
    tiles = torch.randn(5, 150, 70, generator=generator)
    weights = torch.rand(150, 70, generator=generator).double()
    blocks = torch.randint(0, 4, (70,), generator=generator)
    for order in (torch.arange(70), blocks.argsort()):
        expected, found = (PairSums.zero(2, 3, 4) for _ in range(2))
        expected.add(tiles.transpose(1, 2), weights.T, 2, blocks)
        found.add_mirrored(tiles[:, :, order], weights[:, order], 2, blocks[order])
        for name in ("cross", "own_a", "own_b"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-3)


def test_tokens_of_a_sentence_do_not_make_unrelated_data_alike():
    # Trap 3: the token-level estimator takes 10,000 tokens for independent rows.
    layers = [cluster(0), cluster(1)]
    sentences = torch.arange(200).repeat_interleave(50)
    assert measures.linear_cka(*layers, estimator="debiased") > 0.05  # the trap is set
    batches, found = draw_minibatches(sentences, size=256, seed=0), PairSums.zero(1, 1)
    met = sum(int((batch >= 0).sum()) * (int((batch >= 0).sum()) - 1) for batch in batches)
    for batch in batches:
        rows = batch[batch >= 0]
        found.add(grams(layers, rows, rows), all_pairs(len(rows)) * (200 * 199 * 2500 / met), 1)
    within = []
    for x in layers:
        x = x - x.mean(0)
        within.append((x * x.view(200, 50, -1).sum(1).repeat_interleave(50, dim=0)).sum(1).double())
    value, _ = found.debiased(*(part[None] for part in within))
    assert abs(float(value)) < 0.01


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
    once = PairSums.zero(2, 2)
    once.add(grams([*xs, *ys], torch.arange(50), torch.arange(50)), all_pairs(50), 2)
    torch.testing.assert_close(once.debiased(squares(xs), squares(ys))[0], expected, rtol=0, atol=1e-9)
