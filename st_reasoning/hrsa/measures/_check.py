"""Validation at the public edge of the measures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa.measures.columns import row_blocks


def check_matrix(x: Tensor, name: str, *, min_rows: int, min_columns: int = 1) -> None:
    """Refuse anything but a finite floating-point matrix [n, d] of at least the given size."""
    if not isinstance(x, Tensor) or x.ndim != 2:
        got = f"shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"{name}: expected a tensor [n, d], got {got}")
    if not x.dtype.is_floating_point:
        raise InputError(f"{name}: expected a floating-point tensor, got {x.dtype}")
    if x.shape[0] < min_rows or x.shape[1] < min_columns:
        raise InputError(f"{name}: expected at least {min_rows} x {min_columns} values, got {list(x.shape)}")
    if not all(bool(torch.isfinite(x[start:stop]).all()) for start, stop in row_blocks(*x.shape)):
        raise InputError(f"{name}: expected finite values, got NaN or infinity")


def check_pair(x: Tensor, y: Tensor, *, min_rows: int, min_columns: int = 1, same_width: bool = False) -> None:
    """Check ``x`` and ``y`` and that their rows (and, if asked, columns) can stand for the same things."""
    check_matrix(x, "x", min_rows=min_rows, min_columns=min_columns)
    check_matrix(y, "y", min_rows=min_rows, min_columns=min_columns)
    if x.shape[0] != y.shape[0]:
        raise InputError(f"y: expected {x.shape[0]} rows like x, got {y.shape[0]}")
    if same_width and x.shape[1] != y.shape[1]:
        raise InputError(f"y: expected {x.shape[1]} columns like x, got {y.shape[1]}")


def check_layers(xs: Sequence[Tensor], ys: Sequence[Tensor], *, min_rows: int, same_width: bool = False) -> None:
    """Check two lists of layers: all of one number of rows and, if asked, of one width."""
    for name, layers in (("xs", xs), ("ys", ys)):
        if len(layers) == 0:
            raise InputError(f"{name}: expected at least one layer, got none")
        for number, layer in enumerate(layers):
            check_matrix(layer, f"{name}[{number}]", min_rows=min_rows)
            if layer.shape[0] != xs[0].shape[0]:
                raise InputError(f"{name}[{number}]: expected {xs[0].shape[0]} rows like xs[0], got {layer.shape[0]}")
            if same_width and layer.shape[1] != xs[0].shape[1]:
                raise InputError(
                    f"{name}[{number}]: expected {xs[0].shape[1]} columns like xs[0], got {layer.shape[1]}"
                )
