"""Which examples are trained on together: each batch, over all devices together, from one data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sentence_transformers.base.sampler import MultiDatasetDefaultBatchSampler

if TYPE_CHECKING:
    from numpy.typing import NDArray


def plan_epoch(
    sizes: Sequence[int], *, batch_size: int, devices: int, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Draw the batches of one epoch.

    The examples of each data set are shuffled and cut into global batches of ``batch_size * devices``; what is left
    over of all data sets is shuffled together and cut the same way. These batches come in random order. The last one
    may be smaller; it has equal parts on all devices, so fewer than ``devices`` examples are left out of an epoch.

    Args:
        sizes: Examples of each data set; an index counts through all of them.
        batch_size: Examples per device.
        devices: Number of devices; the order of the examples does not depend on it, only on the product.
        seed: Same seed, same batches.
        epoch: Another order for each.

    Returns:
        One array of indices for each step, [devices, batch_size]; the last one perhaps narrower.
    """
    draw = np.random.default_rng([seed, epoch])
    size = batch_size * devices
    whole, left, first = [], [], 0
    for examples in sizes:
        order = first + draw.permutation(examples)
        first += examples
        cut = examples - examples % size
        whole.append(order[:cut])
        left.append(order[cut:])
    rest = draw.permutation(np.concatenate(left))
    cut = len(rest) - len(rest) % size
    steps = np.concatenate([*whole, rest[:cut]]).reshape(-1, devices, batch_size)
    rest = rest[cut : len(rest) - len(rest) % devices]
    return [*draw.permutation(steps), *([rest.reshape(devices, -1)] if len(rest) else [])]


def order_hash(content: str, sizes: Sequence[int], *, batch_size: int, devices: int, seed: int, epochs: int) -> str:
    """Return a hash of all examples in the order in which they are trained on, batch by batch.

    Args:
        content: Hash of the examples, prompts included.
        sizes: Examples of each data set.
        batch_size: Examples per device.
        devices: Number of devices.
        seed: Of the training.
        epochs: How many epochs are begun.
    """
    digest = hashlib.sha256(content.encode())
    for epoch in range(epochs):
        for step in plan_epoch(sizes, batch_size=batch_size, devices=devices, seed=seed, epoch=epoch):
            digest.update(np.ascontiguousarray(step, dtype="<i8").tobytes())
            digest.update(b"|")
    return digest.hexdigest()


class GlobalBatchSampler(MultiDatasetDefaultBatchSampler):
    """Hands out :func:`plan_epoch` to the devices.

    sentence-transformers mixes data sets among devices: its batches are of one data set on each device only, and the
    negatives gathered from the others come from other sets. accelerate gives consecutive batches to consecutive
    devices, so each step is handed out as that many batches in a row.
    """

    def __init__(self, dataset: Any, batch_samplers: list[Any], *, devices: int, seed: int = 0, **_: Any) -> None:
        super().__init__(dataset, batch_samplers=batch_samplers, seed=seed)
        # The library asks for it on several devices, because its last batches are uneven; ours has equal parts.
        self.drop_last = False
        self.devices = devices
        self.sizes = [len(part) for part in dataset.datasets]
        # accelerate's loader tells the epoch to a sampler's own sampler when it has wrapped it for several devices.
        self.sampler: Any = self

    def _plan(self) -> list[NDArray[np.int64]]:
        return plan_epoch(
            self.sizes, batch_size=self.batch_size, devices=self.devices, seed=self.seed, epoch=self.epoch
        )

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batch of each device in turn, step by step."""
        for step in self._plan():
            yield from step.tolist()

    def __len__(self) -> int:
        size = self.batch_size * self.devices
        whole, rest = divmod(sum(self.sizes), size)
        return (whole + bool(rest // self.devices)) * self.devices

    def set_epoch(self, epoch: int) -> None:
        """Draw another order from now on."""
        self.epoch = epoch
