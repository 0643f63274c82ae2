"""Which examples are trained on together, and that every door shows what the order's hash says."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import ConcatDataset

from st_reasoning.training.batches import GlobalBatchSampler, order_hash, plan_epoch

SIZES = [(17, 40, 3), (8,), (5, 2), (64, 64), (1,)]


def sampler(sizes: tuple[int, ...], batch_size: int, devices: int, *, seed: int = 0) -> GlobalBatchSampler:
    parts = [list(range(size)) for size in sizes]

    class Part(list[list[int]]):
        drop_last = True  # as the library sets it on several devices

    part = Part([[0]])
    part.batch_size = batch_size  # type: ignore[attr-defined]
    return GlobalBatchSampler(ConcatDataset(parts), [part] * len(sizes), devices=devices, seed=seed)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("batch_size", "devices"), [(4, 1), (2, 2), (3, 2), (2, 4)])
def test_an_epoch_shows_each_example_once_and_full_batches_are_of_one_set(
    sizes: tuple[int, ...], batch_size: int, devices: int
) -> None:
    steps = plan_epoch(sizes, batch_size=batch_size, devices=devices, seed=3, epoch=0)
    seen = np.concatenate([step.ravel() for step in steps]) if steps else np.empty(0)
    assert len(set(seen.tolist())) == len(seen) > sum(sizes) - devices
    assert [step.shape for step in steps[:-1]] == [(devices, batch_size)] * (len(steps) - 1)
    ends = np.cumsum(sizes)
    of_one_set = [len({int(np.searchsorted(ends, i, side="right")) for i in step.ravel()}) == 1 for step in steps]
    size = batch_size * devices
    assert sum(of_one_set) >= sum(examples // size for examples in sizes)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("devices", [1, 2, 3])
def test_accelerate_gives_each_device_its_part_of_every_step(sizes: tuple[int, ...], devices: int) -> None:
    """Through accelerate's own sharding, as the trainer uses it; each device gets batches of the same sizes."""
    shards = [
        list(BatchSamplerShard(sampler(sizes, 4, devices), devices, rank, even_batches=False))
        for rank in range(devices)
    ]
    steps = plan_epoch(sizes, batch_size=4, devices=devices, seed=0, epoch=0)
    assert [list(step) for step in zip(*shards, strict=True)] == [step.tolist() for step in steps]
    assert len(sampler(sizes, 4, devices)) == len(steps) * devices


def test_the_order_does_not_depend_on_the_number_of_devices() -> None:
    one, two = (plan_epoch([40, 24], batch_size=8 // n, devices=n, seed=1, epoch=2) for n in (1, 2))
    assert [a.ravel().tolist() for a in one] == [b.ravel().tolist() for b in two]


def test_seed_and_epoch_change_the_order() -> None:
    orders = [
        np.concatenate([s.ravel() for s in plan_epoch([64], batch_size=4, devices=1, seed=seed, epoch=epoch)]).tolist()
        for seed, epoch in itertools.product(range(3), range(3))
    ]
    assert len({tuple(order) for order in orders}) == 9


def test_an_epoch_told_through_accelerates_wrapper_arrives() -> None:
    """Its loader tells a wrapped sampler nothing but through ``.sampler``; without it every epoch is the first."""
    from accelerate.data_loader import DataLoaderShard

    inner = sampler((64,), 4, 2)
    loader = DataLoaderShard(list(range(64)), batch_sampler=BatchSamplerShard(inner, 2, 0, even_batches=False))
    loader.set_epoch(5)
    assert inner.epoch == 5


@pytest.mark.parametrize("change", [{"seed": 1}, {"epochs": 2}, {"devices": 2}, {"content": "other"}])
def test_the_hash_changes_with_what_is_shown(change: dict[str, Any]) -> None:
    known: dict[str, Any] = {"content": "a", "sizes": [20], "batch_size": 4, "devices": 1, "seed": 0, "epochs": 1}
    assert order_hash(**known) == order_hash(**known) != order_hash(**{**known, **change})
