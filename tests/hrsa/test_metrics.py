"""Each metric per batch, in aggregate and over two processes against the function over all rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor
from torchmetrics import Metric

from st_reasoning.errors import InputError
from st_reasoning.hrsa import DimensionCorrelation, KNNOverlap, LinearCKA, Procrustes, measures
from st_reasoning.hrsa.measures.sampling import chosen

WIDTH, ROWS = 10, 600
NAMES = ("biased", "debiased", "correlation", "procrustes", "knn", "knn_sample")


def rows() -> tuple[Tensor, Tensor, Tensor]:
    """Related rows with a mean 1000 deviations away, a massive activation, and a constant column."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    y = x @ torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64) + x
    x, y = x + 1000, y - 1000
    x[7, 2], y[7, 3] = 4000, 5000
    x[:, 4] = 0.1
    return x, y, torch.arange(ROWS) // 6


def metric(name: str, **options: Any) -> Metric:
    if name in ("biased", "debiased"):
        return LinearCKA(WIDTH, estimator=name, **options)  # type: ignore[arg-type]
    if name == "correlation":
        return DimensionCorrelation(WIDTH, **options)
    if name == "procrustes":
        return Procrustes(WIDTH, **options)
    return KNNOverlap((3, 9), rows=ROWS if name == "knn" else 200, **options)


def feed(found: Metric, name: str, part: slice) -> None:
    x, y, groups = (values[part] for values in rows())
    extra = {"procrustes": (groups,), "knn": (torch.arange(ROWS)[part],)}.get(name.split("_")[0], ())
    found.update(x, y, *extra)


def value(found: Metric) -> list[float]:
    result = found.compute()
    return [float(part) for part in result.values()] if isinstance(result, dict) else [float(result)]


def expected(name: str) -> list[float]:
    x, y, groups = rows()
    if name in ("biased", "debiased"):
        return [measures.linear_cka(x, y, estimator=name)]  # type: ignore[arg-type]
    if name == "correlation":
        return [measures.dimension_correlation(x, y)]
    if name == "procrustes":
        fit = measures.procrustes(x, y, held_out=chosen(groups, 0.2, 0))
        keys = ("inverse_row_entropy", "residual", "scale", "rank", "train_rows", "test_rows")
        return [float(getattr(fit, key)) for key in keys]
    if name == "knn_sample":
        found = metric(name)
        feed(found, name, slice(None))
        return value(found)
    return list(measures.knn_overlap(x, y, k=(3, 9)).values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cuts", [[ROWS], [5, 6, 300, ROWS]])
def test_batches_add_up_to_the_function(name, cuts):
    found = metric(name)
    for _ in range(2):
        for start, stop in zip([0, *cuts], cuts, strict=False):
            feed(found, name, slice(start, stop))
        assert value(found) == pytest.approx(expected(name), rel=1e-6, abs=1e-9)
        found.reset()  # and again, from the start


@pytest.mark.parametrize("name", ["biased", "debiased", "correlation"])
def test_calling_it_gives_the_value_of_the_batch(name):
    found = metric(name)
    x, y, _ = rows()
    one = measures.linear_cka(x[:90], y[:90], estimator=name) if name != "correlation" else None
    batch = found(x[:90], y[:90])
    if one is not None:
        assert float(batch) == pytest.approx(one, rel=1e-6)
    found(x[90:], y[90:])
    assert value(found) == pytest.approx(expected(name), rel=1e-6)


def test_memory_does_not_grow():
    for name in NAMES:
        found = metric(name)
        sizes = []
        for part in range(3):
            x, y, _ = rows()
            keys = torch.arange(ROWS) + part * ROWS
            found.update(x, y, *((keys,) if name[:3] in ("pro", "knn") else ()))
            states = [s for key in found._defaults for s in _as_list(getattr(found, key))]
            sizes.append(sum(state.numel() for state in states))
        assert sizes[0] == sizes[1] == sizes[2], name


def _as_list(state: Any) -> list[Tensor]:
    return state if isinstance(state, list) else [state]


def test_sample_does_not_depend_on_order():
    x, y, _ = rows()
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(0))
    found = metric("knn_sample")
    for part in order.split(77):
        found.update(x[part], y[part], part)
    assert value(found) == pytest.approx(expected("knn_sample"), abs=1e-12)
    assert len(found.x[0]) == 200


def test_refusals():
    x, y, groups = rows()
    for call, message in (
        (lambda: LinearCKA(0), "width_x: expected at least 1"),
        (lambda: LinearCKA(3, estimator="debias"), "did you mean 'debiased'"),  # type: ignore[arg-type]
        (lambda: LinearCKA(3).update(x, y), "x: expected 3 columns, got 10"),
        (lambda: Procrustes(WIDTH).update(x, y, groups[:4]), "groups: expected one per row"),
        (lambda: Procrustes(WIDTH, test_share=0), "test_share"),
        (lambda: KNNOverlap(3).update(x, y, groups[:4]), "keys: expected one per row"),
        (lambda: DimensionCorrelation(WIDTH).update(x * math.nan, y), "x: expected finite values"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    found = {}
    for name in NAMES:
        one = metric(name)
        # 37 rows here, 563 there, in unequal batches.
        for part in (slice(0, 20), slice(20, 37)) if rank else (slice(37, 600),):
            feed(one, name, part)
        found[name] = value(one)
        assert value(one) == found[name]  # states are the process's own again after compute
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_with_uneven_shards_are_one(tmp_path: Path):
    mp.spawn(_work, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for name in NAMES:
            assert found[name] == pytest.approx(expected(name), rel=1e-6, abs=1e-9), name
