"""Statistics of columns in float64, a block of rows at a time so that memory stays bounded."""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

# Elements per block of float64 work: 2 MB a block. Python's loop does not show, and what stays is small: the memory of
# larger blocks goes back to the heap, not to the system, and small results then break it up layer after layer.
BLOCK_ELEMENTS = 1 << 18
# Bytes from which on memory comes straight from the system.
_LARGE = 4 << 20
# Products summed in float32 before float64 takes over: enough for a GEMM to be fast, few enough to keep six digits.
FLOAT32_RUN = 4096


def row_blocks(n: int, width: int, elements: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) over n rows of the given width, at most so many elements (``BLOCK_ELEMENTS``) at a time."""
    rows = max(1, (BLOCK_ELEMENTS if elements is None else elements) // max(1, width))
    for start in range(0, n, rows):
        yield start, min(n, start + rows)


def products(left: Tensor, right: Tensor, *, out: Tensor) -> Tensor:
    """Return the products of rows left [..., r, d] with rows right [..., c, d], written to ``out`` [..., r, c]."""
    if out.device.type != "cpu":
        return torch.matmul(left, right.transpose(-1, -2), out=out)
    # NumPy's BLAS, on the same memory: measured on an AMD EPYC, 80 GFLOP/s a core where the one in torch does 56.
    np.matmul(left.numpy(), right.transpose(-1, -2).numpy(), out=out.numpy())
    return out


def empty(*shape: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Tensor:
    """Return memory, large pieces of it straight from the system, in huge pages, and given back when it is dropped.

    malloc keeps what is dropped of up to 32 MB, in each thread apart, and gives larger pieces in pages of 4 kB, which
    cost up to 6 % of a forward pass where they are new at each batch. On a ``device`` other than the CPU it is torch's.
    """
    size = math.prod(shape) * dtype.itemsize
    elsewhere = device is not None and device.type != "cpu"
    if elsewhere or size < _LARGE or not hasattr(mmap, "MADV_HUGEPAGE"):  # Linux has it
        return torch.empty(shape, dtype=dtype, device=device)
    # Private: what may be shared with another process is not given in huge pages.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without them gives small ones
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return zeros in memory as :func:`empty` gives it."""
    return empty(*shape, dtype=dtype).zero_()


def column_means(x: Tensor) -> Tensor:
    """Return the column means [d] of x [n, d], summed in float64."""
    total = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    for start, stop in row_blocks(*x.shape):
        total += x[start:stop].double().sum(dim=0)
    return total / x.shape[0]


def constant_columns(x: Tensor) -> Tensor:
    """Return which columns of x [n, d] hold one value only, as a boolean [d]; exact, no tolerance."""
    return x.amax(dim=0) == x.amin(dim=0)


def standardised(x: Tensor) -> Tensor:
    """Return x [n, d] with every column at mean 0 and variance 1; constant columns become 0."""
    deviations = column_variances(x).sqrt()
    factors = torch.where(constant_columns(x), 0.0, 1 / deviations)
    means = column_means(x)
    return torch.cat([
        ((x[start:stop].double() - means) * factors).to(torch.promote_types(x.dtype, torch.float32))
        for start, stop in row_blocks(*x.shape)
    ])  # fmt: skip


def top_dimension_share(x: Tensor) -> float:
    """Return the share of all variance of x [n, d] that its most varying column holds; 0 without variance."""
    variances = column_variances(x)
    total = float(variances.sum())
    return float(variances.max()) / total if total > 0 else 0.0


def column_variances(x: Tensor) -> Tensor:
    """Return the population variance of each column [d], in float64."""
    means = column_means(x)
    total = torch.zeros_like(means)
    for start, stop in row_blocks(*x.shape):
        total += (x[start:stop].double() - means).square().sum(dim=0)
    return total / x.shape[0]
