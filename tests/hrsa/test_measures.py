"""Each measure against a naive float64 loop and an independent library, and where formulas break."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa import measures
from st_reasoning.hrsa.measures import cka, neighbours

# What float32 rounding leaves between a measure and its float64 definition; measured below 1e-6.
FLOAT32 = 2e-6


def pair(n: int = 60, d_x: int = 8, d_y: int = 8, *, seed: int = 0, noise: float = 0.7) -> tuple[Tensor, Tensor]:
    """Two related float32 representations with unequal column variances and means."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d_x, generator=generator) * torch.linspace(0.5, 3, d_x) + 2
    mixing = torch.randn(d_x, d_y, generator=generator) / math.sqrt(d_x) + torch.eye(d_x, d_y)
    return x, x @ mixing + noise * torch.randn(n, d_y, generator=generator)


def naive_hsic(x: Tensor, y: Tensor, estimator: str) -> float:
    """HSIC with linear kernels from its definition: Gretton 2005 equation 9, Song 2012 equation 5."""
    k, other = x.double() @ x.double().T, y.double() @ y.double().T
    n = len(k)
    if estimator == "biased":
        centring = torch.eye(n, dtype=torch.float64) - 1 / n
        return float(torch.trace(k @ centring @ other @ centring))
    k, other = k.clone().fill_diagonal_(0), other.clone().fill_diagonal_(0)
    ones = torch.ones(n, dtype=torch.float64)
    middle = (ones @ k @ ones) * (ones @ other @ ones) / ((n - 1) * (n - 2))
    return float(torch.trace(k @ other) + middle - 2 / (n - 2) * (ones @ k @ other @ ones))


def naive_cka(x: Tensor, y: Tensor, estimator: str) -> float:
    own = naive_hsic(x, x, estimator), naive_hsic(y, y, estimator)
    return naive_hsic(x, y, estimator) / (math.sqrt(own[0]) * math.sqrt(own[1]))


@pytest.mark.parametrize("estimator", ["biased", "debiased"])
@pytest.mark.parametrize("shape", [(60, 8, 8), (60, 8, 5), (20, 64, 48), (200, 4, 4), (5, 2, 3)])
def test_cka_equals_its_definition_by_both_routes(estimator, shape):
    x, y = pair(*shape)
    expected = naive_cka(x, y, estimator)
    assert measures.linear_cka(x, y, estimator=estimator) == pytest.approx(expected, abs=FLOAT32)
    for route in ("features", "gram"):
        found = getattr(cka._statistics([x.double()], [y.double()], route), estimator)
        assert float(found) == pytest.approx(expected, abs=1e-12), route


def test_cka_matrix_over_tiles_equals_pair_by_pair(monkeypatch):
    monkeypatch.setattr(cka, "_TILE_BYTES", 64 * 64 * 4 * 5)  # tiles of 64 rows: 150 rows need a ragged last one
    xs = [pair(150, d, 6, seed=d)[0] for d in (3, 7)]
    ys = [pair(150, 7, d, seed=d)[1] for d in (4, 6, 9)]
    for estimator in ("biased", "debiased"):
        found = getattr(cka._statistics(xs, ys, "gram"), estimator)
        expected = torch.tensor([[naive_cka(x, y, estimator) for y in ys] for x in xs], dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=0, atol=FLOAT32)


def test_cka_takes_the_cheaper_route():
    tall, wide = [torch.zeros(5000, 4)], [torch.zeros(50, 400)]
    assert cka.cheaper_route(tall, tall) == "features"
    assert cka.cheaper_route(wide, wide) == "gram"


@pytest.mark.parametrize("route", ["features", "gram"])
def test_cka_survives_norms_whose_products_overflow_float32(route):
    # Trap 11: |X'X|_F |Y'Y|_F exceeds 3.4e38, where float32 normalisers made CKA 0.000.
    x, y = pair(64)
    x, y = x * 1e10, y * 1e10
    naive = (x - x.mean(0)).T @ (x - x.mean(0))
    assert torch.isinf(naive.square().sum())  # the trap is set
    found = cka._statistics([x], [y], route)
    assert float(found.biased) == pytest.approx(naive_cka(x, y, "biased"), abs=FLOAT32)


@pytest.mark.parametrize("route", ["features", "gram"])
def test_cka_with_a_massive_activation_and_a_large_mean(route):
    # One token 2000 times the others in one dimension, on columns whose mean is 1000 deviations away.
    x, y = pair(300)
    x, y = x + 1000, y + 1000
    x[7, 2], y[7, 3] = 4000.0, 5000.0
    for estimator in ("biased", "debiased"):
        found = float(getattr(cka._statistics([x], [y], route), estimator))
        expected = naive_cka(x.double() - x.double().mean(0), y.double() - y.double().mean(0), estimator)
        assert found == pytest.approx(expected, abs=1e-5)


def test_one_sink_token_makes_independent_data_look_alike():
    # Trap 1, which the panel guards against: not even debiasing helps, leaving out the sink does.
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(512, 64, generator=generator), torch.randn(512, 64, generator=generator)
    x[::128], y[::128] = 20 * torch.randn(64, generator=generator), 20 * torch.randn(64, generator=generator)
    kept = torch.arange(512) % 128 != 0
    assert measures.linear_cka(x, y, estimator="debiased") > 0.95
    assert abs(measures.linear_cka(x[kept], y[kept], estimator="debiased")) < 0.02


def test_cka_edges():
    x, y = pair(2)
    assert measures.linear_cka(x, y) == pytest.approx(1)  # two centred rows are one direction
    with pytest.raises(InputError, match=r"xs?: expected at least 4"):
        measures.linear_cka(x, y, estimator="debiased")
    with pytest.raises(InputError, match="the same row 9 times"):
        measures.linear_cka(torch.full((9, 3), 0.1), torch.randn(9, 3))
    with pytest.raises(InputError, match="equally far"):
        measures.linear_cka(torch.eye(6), torch.randn(6, 3), estimator="debiased")
    with pytest.raises(InputError, match="did you mean 'debiased'"):
        measures.linear_cka(x, y, estimator="debias")  # type: ignore[arg-type]


def test_effective_rank():
    x = torch.randn(4000, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.eigvalsh(torch.cov(x.T))
    assert measures.effective_rank(x) == pytest.approx(float(values.sum() ** 2 / values.square().sum()))
    found = measures.linear_cka_statistics([x], [x * torch.tensor([100, 1, 1, 1, 1])])
    assert float(found.effective_rank_x) == pytest.approx(measures.effective_rank(x))
    assert 1 < float(found.effective_rank_y) < 1.01


def naive_correlation(x: Tensor, y: Tensor) -> float:
    with np.errstate(invalid="ignore"):
        rs = [np.corrcoef(x[:, j].double(), y[:, j].double())[0, 1] for j in range(x.shape[1])]
    return float(np.nanmean(rs))


def test_dimension_correlation_equals_numpy():
    xs = [pair(70, 9, 9, seed=seed)[0] for seed in range(2)]
    ys = [pair(70, 9, 9, seed=seed)[1] for seed in range(3)]
    expected = torch.tensor([[naive_correlation(x, y) for y in ys] for x in xs], dtype=torch.float64)
    torch.testing.assert_close(measures.dimension_correlation_matrix(xs, ys), expected, rtol=0, atol=FLOAT32)
    assert measures.dimension_correlation(xs[0], ys[1]) == pytest.approx(float(expected[0, 1]), abs=FLOAT32)


def test_dimension_correlation_leaves_constant_columns_out():
    x, y = pair(50)
    x[:, 1], y[:, 4] = 0.1, -3.0
    used = [0, 2, 3, 5, 6, 7]
    assert measures.dimension_correlation(x, y) == pytest.approx(naive_correlation(x[:, used], y[:, used]), abs=FLOAT32)
    assert measures.constant_columns(x).nonzero().flatten().tolist() == [1]
    with pytest.raises(InputError, match="a column that varies in both"):
        measures.dimension_correlation(torch.ones(9, 2), torch.randn(9, 2))


def test_dimension_correlation_on_values_whose_squares_overflow():
    x, y = pair(50)
    assert measures.dimension_correlation(x * 1e30, y) == pytest.approx(naive_correlation(x, y), abs=FLOAT32)


def test_standardised_and_top_dimension():
    x, _ = pair(50)
    x[:, 3] = 7.0
    z = measures.standardised(x)
    varying = [0, 1, 2, 4, 5, 6, 7]
    torch.testing.assert_close(z[:, varying].std(0, correction=0), torch.ones(7))
    assert not z[:, 3].any()
    variances = x.double().var(0)
    assert measures.top_dimension_share(x) == pytest.approx(float(variances.max() / variances.sum()))
    assert measures.top_dimension_share(torch.ones(4, 2)) == 0


def test_procrustes_equals_scipy_on_its_own_training_rows():
    x, y = pair(90, 6, 6)
    groups = torch.arange(90) // 3
    found = measures.procrustes(x, y, groups=groups, seed=4)
    assert (found.train_rows, found.test_rows) == (72, 18)
    # The split is drawn from the groups alone, so it can be found again here.
    test = np.isin(groups, np.random.default_rng(4).permutation(30)[:6])
    a, b = x.double().numpy(), y.double().numpy()
    a, b = a - a[~test].mean(0), b - b[~test].mean(0)
    expected, trace = scipy.linalg.orthogonal_procrustes(a[~test], b[~test])
    np.testing.assert_allclose(found.map, expected, atol=1e-10)
    scale = trace / (a[~test] ** 2).sum()
    assert found.scale == pytest.approx(scale)
    assert found.residual == pytest.approx(((scale * a[test] @ expected - b[test]) ** 2).sum() / (b[test] ** 2).sum())
    entropy = -np.mean([sum(o * o * math.log(o * o) for o in row) for row in expected])
    assert found.inverse_row_entropy == pytest.approx(1 - entropy / math.log(6))
    assert found.determined


def test_procrustes_finds_a_rotation_exactly_and_scores_unseen_rows():
    x, _ = pair(400, 12, 12)
    rotation = torch.from_numpy(scipy.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0])
    found = measures.procrustes(x, 3 * x.double() @ rotation + 5)
    assert found.residual < 1e-12
    assert found.scale == pytest.approx(3)
    # Trap 6: with fewer rows than dimensions the fit is perfect on its own rows and worthless on others.
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(48, 128, generator=generator), torch.randn(48, 128, generator=generator)
    unrelated = measures.procrustes(a, b)
    assert unrelated.residual > 0.95
    assert not unrelated.determined
    assert unrelated.rank <= unrelated.train_rows - 1


def test_procrustes_with_a_massive_activation_keeps_the_small_dimensions():
    x, _ = pair(400, 12, 12)
    x[::20, 3] = 3e5
    found = measures.procrustes(x, x)
    assert found.inverse_row_entropy == pytest.approx(1, abs=1e-6)  # a float32 X'X gives 0.6 and less
    assert found.determined


def test_procrustes_refuses():
    x, y = pair(40)
    for change, message in (
        ({"groups": [0] * 40}, "at least 2, one to fit"),
        ({"groups": [0, 1]}, "one per row"),
        ({"test_share": 1.0}, "test_share"),
    ):
        with pytest.raises(InputError, match=message):
            measures.procrustes(x, y, **change)
    with pytest.raises(InputError, match="8 columns like x, got 5"):
        measures.procrustes(x, y[:, :5])


def naive_overlap(x: Tensor, y: Tensor, k: int) -> float:
    near = [
        NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute")
        .fit(z.double())
        .kneighbors(return_distance=False)
        for z in (x, y)
    ]
    return float(np.mean([len(set(a) & set(b)) / len(set(a) | set(b)) for a, b in zip(*near, strict=True)]))


def test_knn_overlap_equals_sklearn(monkeypatch):
    x, y = pair(120, 10, 6)
    expected = {k: naive_overlap(x, y, k) for k in (1, 5, 30, 119)}
    assert expected[119] == 1
    assert measures.knn_overlap(x, y, k=(30, 5, 119, 1)) == pytest.approx(expected, abs=1e-12)
    monkeypatch.setattr("st_reasoning.hrsa.measures.neighbours.SIMILARITIES", 120 * 7)  # 7 queries at a time
    assert measures.knn_overlap(x, y, k=[1, 5, 30, 119]) == pytest.approx(expected, abs=1e-12)
    assert measures.knn_overlap(x, y, k=5) == pytest.approx({5: expected[5]}, abs=1e-12)


def test_equal_rows_are_neighbours_in_row_order_wherever_they_stand():
    # A product of matrices may round equal rows differently: OpenBLAS does, in other columns for other numbers of rows.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1003, 64, generator=generator)
    equal = torch.randperm(1003, generator=generator)[:300].sort().values
    x[equal] = x[equal[0]].clone()
    units = neighbours.unit_rows(x, "x")
    queries = equal[torch.tensor([0, 17, 150, 299])]
    (near,) = neighbours.neighbours(units, queries, 50)
    for query, found in zip(queries, near, strict=True):
        assert found.tolist() == equal[equal != query][:50].tolist()
    bits = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [0.5, 1.0]])
    assert [found.tolist() for found in neighbours._repeated(bits)] == [[2], [0]]


def test_knn_overlap_of_bfloat16_states_looks_at_float32_similarities():
    # Trap 12: on a common direction 30 times the rest all bfloat16 cosines are 1.
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(200, 16, generator=generator) + 30).bfloat16()
    y = (x.float() + 0.3 * torch.randn(200, 16, generator=generator)).bfloat16()
    expected = naive_overlap(x, y, 10)
    assert measures.knn_overlap(x, y, k=10)[10] == pytest.approx(expected, abs=0.005)  # float32 near-ties
    units = [torch.nn.functional.normalize(z, dim=1) for z in (x, y)]
    near = [(unit @ unit.T).fill_diagonal_(-1).topk(10).indices.tolist() for unit in units]
    spoilt = np.mean([len({*a} & {*b}) / len({*a} | {*b}) for a, b in zip(*near, strict=True)])
    assert abs(spoilt - expected) > 0.05  # the trap is set


def test_knn_overlap_of_duplicates():
    # Every row eight times: ties everywhere, broken alike on both sides.
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)).repeat(8, 1)
    assert measures.knn_overlap(x, 2 * x, k=(3, 10)) == {3: 1, 10: 1}


def test_knn_overlap_refuses():
    x, y = pair(20)
    for k in (0, 20, ()):
        with pytest.raises(InputError, match="k: expected numbers from 1 to 19"):
            measures.knn_overlap(x, y, k=k)
    x[4] = 0
    with pytest.raises(InputError, match="x: expected rows with a direction, got zeros in row 4"):
        measures.knn_overlap(x, y, k=1)


def labelled(m: int = 120, d: int = 10) -> tuple[Tensor, list[str]]:
    generator = torch.Generator().manual_seed(0)
    labels = [("red", "green", "blue")[number % 3] for number in range(m)]
    centres = 2 * torch.randn(3, d, generator=generator)
    return centres.repeat(m // 3, 1) + torch.randn(m, d, generator=generator), labels


def test_probe_equals_sklearn_on_its_own_split():
    x, labels = labelled()
    y = x + 2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    found = measures.linear_probe_transfer(x, y, labels, seed=3)
    assert (found.classes, found.train_rows, found.test_rows) == (3, 96, 24)
    from st_reasoning.hrsa.measures.probe import held_out

    scored = held_out(np.arange(120) % 3, 0.2, 3)
    train, test = np.flatnonzero(~scored), np.flatnonzero(scored)
    assert np.bincount(test % 3).tolist() == [8, 8, 8]
    a, b, answers = x.double().numpy(), y.double().numpy(), np.array(labels)
    mean, deviation = a[train].mean(0), a[train].std(0)
    probe = LogisticRegression(solver="newton-cholesky", tol=1e-10).fit((a[train] - mean) / deviation, answers[train])
    assert found.own == probe.score((a[test] - mean) / deviation, answers[test])
    assert found.transferred == probe.score((b[test] - mean) / deviation, answers[test])
    assert found.difference == found.transferred - found.own < 0
    assert found.chance == pytest.approx(1 / 3)
    assert found.converged


def test_probe_is_the_same_when_called_twice_and_survives_a_dead_feature():
    x, labels = labelled()
    x[:, 2] = 1.0
    first = measures.linear_probe_transfer(x, x, labels, seed=0)
    assert first == measures.linear_probe_transfer(x, x, labels, seed=0)
    assert first.difference == 0


def test_probe_refuses_labels_it_cannot_use():
    x, labels = labelled()
    for bad, message in (
        (labels[:-1], "expected 120, one per sentence, got 119"),
        (["red"] * 120, "at least 2 classes"),
        (["pink"] * 4 + labels[4:], r"fewer for 1 of 4: 'pink' \(4\)"),
    ):
        with pytest.raises(InputError, match=message):
            measures.linear_probe_transfer(x, x, bad, seed=0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(5), "expected a tensor \\[n, d\\], got shape \\[5\\]"),
        (torch.zeros(5, 3, dtype=torch.long), "floating-point tensor, got torch.int64"),
        (torch.full((5, 3), math.nan), "finite values"),
        (torch.zeros(1, 3), "at least"),
        ([[1.0]], "got list"),
    ],
)
def test_malformed_input_is_named(bad, message):
    good = torch.randn(5, 3)
    for function in (
        measures.linear_cka,
        measures.dimension_correlation,
        measures.procrustes,
        lambda x, y: measures.knn_overlap(x, y, k=1),
    ):
        with pytest.raises(InputError, match=f"^x: .*{message}"):
            function(bad, good)
        with pytest.raises(InputError, match=f"^y: .*{message}"):
            function(good, bad)
    with pytest.raises(InputError, match="xs: expected at least one layer"):
        measures.linear_cka_matrix([], [good])
    with pytest.raises(InputError, match=r"ys\[1\]: expected 5 rows"):
        measures.linear_cka_matrix([good], [good, good[:4]])


def test_ties_are_broken_in_row_order():
    from st_reasoning.hrsa.measures.neighbours import neighbours

    near = neighbours(torch.full((300, 4), 0.5), torch.arange(300), 3)[0]
    assert near[0].tolist() == [1, 2, 3]
    assert near[1].tolist() == [0, 2, 3]
    assert (near[3:] == torch.tensor([0, 1, 2])).all()


def test_the_nearest_of_many_are_found_by_groups():
    from st_reasoning.hrsa.measures.neighbours import nearest

    # 165 columns are 20 groups and five more; lists of up to 10 with the next one take that way.
    similarity = torch.randn(50, 165, generator=torch.Generator().manual_seed(0))
    similarity[:, -3] += 2
    similarity[::2] = similarity[::2].round(decimals=1)  # ties
    similarity[:5, 7:] = -torch.inf
    expected = similarity.sort(dim=1, descending=True, stable=True)
    columns = expected.indices.masked_fill(expected.values == -torch.inf, -1)
    for length in (1, 8, 9, 10, 40):
        assert torch.equal(nearest(similarity, length), columns[:, :length])


def test_excluded_candidates_are_dropped_from_all_similarities():
    from st_reasoning.hrsa.measures.neighbours import Excluded

    generator = torch.Generator().manual_seed(0)
    queries, everyone = torch.tensor([0, 4, 4, 29]), torch.arange(30).expand(4, -1)
    for excluded in (
        Excluded(types=torch.randint(7, 12, (30,), generator=generator)),
        Excluded(types=torch.arange(30)),
        Excluded(types=torch.zeros(30, dtype=torch.int64)),
        Excluded(rows=torch.rand(30, generator=generator) < 0.3),
        Excluded(rows=torch.zeros(30, dtype=torch.bool)),
    ):
        similarity = torch.rand(4, 30, generator=generator)
        expected = similarity.masked_fill(excluded.of(queries, everyone), -torch.inf)
        assert torch.equal(excluded.drop(similarity, queries), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_are_broken_exactly_whatever_the_size_of_the_cosine(dtype):
    from st_reasoning.hrsa.measures.neighbours import nearest

    # Small cosines whose next larger one is a rounding step away, each many times, so that lists end within ties.
    generator = torch.Generator().manual_seed(0)
    low = torch.tensor(2.0**-9, dtype=dtype)
    steps = torch.stack([low, torch.nextafter(low, torch.tensor(1.0, dtype=dtype)), low / 2])
    similarity = steps[torch.randint(0, 3, (40, 500), generator=generator)]
    similarity[::4, ::3] = -torch.inf
    similarity[0, 20:] = -torch.inf
    for length in (1, 5, 60, 200, 499, 500):
        expected = similarity.sort(dim=1, descending=True, stable=True)
        columns = expected.indices.masked_fill(expected.values == -torch.inf, -1)[:, :length]
        assert torch.equal(nearest(similarity, length), columns), length


def test_ridge_probe_is_the_closed_form():
    """Least squares on +-1 indicators with alpha on the coefficients, intercept free; answers by the largest."""
    x, y = pair(90, 6, 6, seed=4)
    labels = x[:, :3].argmax(dim=1).tolist()
    found = measures.linear_probe_transfer(x, y, labels, seed=1, kind="ridge", penalty=3.0)
    from st_reasoning.hrsa.measures.probe import held_out

    names = {name: number for number, name in enumerate(dict.fromkeys(labels))}
    classes = np.array([names[label] for label in labels])
    test = held_out(classes, 0.2, 1)
    train = ~test
    rows = x.double().numpy()
    mean, deviation = rows[train].mean(0), rows[train].std(0)
    wanted = np.where(classes[train][:, None] == np.arange(3), 1.0, -1.0)
    design = (rows[train] - mean) / deviation
    weights = np.linalg.solve(design.T @ design + 3.0 * np.eye(6), design.T @ (wanted - wanted.mean(0)))
    own = (((rows[test] - mean) / deviation) @ weights + wanted.mean(0)).argmax(1) == classes[test]
    assert found.own == pytest.approx(own.mean())
    assert found.converged
    with pytest.raises(InputError, match="unknown probe 'rigde': did you mean 'ridge'"):
        measures.linear_probe_transfer(x, y, labels, seed=1, kind="rigde")
