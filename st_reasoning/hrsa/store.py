"""States of many layers on disk, one file a layer: memory holds a few layers at a time, whatever the number of tokens.

The files have no name once they are open, so that a process that is killed leaves nothing behind.

Symbols: n rows, width d, L layers.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from st_reasoning.hrsa.cores import Over, each
from st_reasoning.hrsa.measures.columns import empty

_FLOAT = np.dtype(np.float32)


class Store:
    """The layers of one model.

    Args:
        folder: An empty folder for the files; whoever made it removes it.
        layers: L.
        width: d.
    """

    def __init__(self, folder: Path, layers: int, width: int) -> None:
        folder.mkdir(parents=True)
        self.folder, self.width = folder, width
        self._files = []
        for layer in range(layers):
            path = folder / f"{layer}.f32"
            self._files.append(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            path.unlink()

    def __len__(self) -> int:
        return len(self._files)

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.pop())

    def write(self, states: Tensor, slots: Tensor) -> None:
        """Put row i of every layer of ``states`` [L, n, d] where ``slots[i]`` says."""
        if not len(slots):
            return  # np.split would make one empty run of it
        places = slots.cpu().numpy()
        order = np.argsort(places, kind="stable")
        runs = np.split(order, np.flatnonzero(np.diff(places[order]) != 1) + 1)
        for file, layer in zip(self._files, states, strict=True):
            rows = np.ascontiguousarray(layer.detach().cpu().float().numpy())
            for run in runs:
                straight = (np.diff(run) == 1).all()
                part = rows[run[0] : run[-1] + 1] if straight else rows[run]
                _write(file, part, int(places[run[0]]) * self.width * _FLOAT.itemsize)

    def write_layer(self, layer: int, rows: Tensor) -> None:
        """Make ``rows`` [n, d] all there is of a layer."""
        _write(self._files[layer], rows.numpy(), 0)

    def read(self, layer: int, start: int, stop: int) -> Tensor:
        """Return rows start..stop [stop - start, d] of a layer."""
        rows = empty(stop - start, self.width)
        if start == stop:
            return rows  # memoryview cannot look at nothing
        left = memoryview(rows.numpy().reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        at = start * self.width * _FLOAT.itemsize
        while left:
            done = os.preadv(self._files[layer], [left], at)
            if done == 0:
                raise OSError(f"{self.folder}: expected {stop} rows of layer {layer}, found fewer")
            left, at = left[done:], at + done
        return rows

    def pick(self, layer: int, rows: Tensor) -> Tensor:
        """Return some rows [m, d] of a layer by their numbers [m], in any order; no others are copied."""
        # Mapped only while it is read: pages that stay mapped would count as memory of this process.
        mapped = mmap.mmap(self._files[layer], 0, prot=mmap.PROT_READ)
        every = np.frombuffer(mapped, dtype=_FLOAT).reshape(-1, self.width)
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(every):
            # The next step takes the nearest row there is, which would be a wrong one.
            raise IndexError(f"{self.folder}: expected rows from 0 to {len(every) - 1} of layer {layer}, got others")
        picked = empty(len(rows), self.width)
        np.take(every, rows.numpy(), axis=0, out=picked.numpy(), mode="clip")
        return picked

    def arrange(self, order: Tensor, *, over: Over = map) -> None:
        """Keep the rows ``order`` [n] of every layer, in that order; ``over`` is how to go over the layers."""
        stop = int(order.max()) + 1
        if not torch.equal(order, torch.arange(stop)):
            each(over(lambda layer: self.write_layer(layer, self.pick(layer, order)), range(len(self))))


def _write(file: int, rows: np.ndarray, at: int) -> None:
    left = memoryview(np.ascontiguousarray(rows).reshape(-1).view(np.uint8))  # type: ignore[arg-type]
    while left:
        done = os.pwrite(file, left, at)
        left, at = left[done:], at + done
