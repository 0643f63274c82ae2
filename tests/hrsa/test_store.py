"""States on disk, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from st_reasoning.hrsa.measures.columns import empty
from st_reasoning.hrsa.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Two layers of 40 rows of width 3; row i of layer l holds 100 l + i."""
    found = Store(tmp_path / "states", 2, 3)
    found.write((torch.arange(2)[:, None] * 100.0 + torch.arange(40)).unsqueeze(2).expand(-1, -1, 3), torch.arange(40))
    yield found
    found.close()


def test_rows_are_picked_in_any_order_and_more_than_once(store: Store) -> None:
    assert store.pick(1, torch.tensor([39, 0, 7, 7]))[:, 2].tolist() == [139, 100, 107, 107]
    assert store.pick(0, torch.empty(0, dtype=torch.int64)).shape == (0, 3)


@pytest.mark.parametrize("row", [-1, 40])
def test_rows_that_are_not_there_are_an_error(store: Store, row: int) -> None:
    with pytest.raises(IndexError, match="from 0 to 39 of layer 1"):
        store.pick(1, torch.tensor([3, row]))


def test_arranging_moves_every_layer(store: Store) -> None:
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    store.arrange(order)
    for layer in range(2):
        assert store.read(layer, 0, 40)[:, 0].tolist() == (100 * layer + order).tolist()


@pytest.mark.parametrize("rows", [3, 1 << 21])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_memory_is_of_the_shape_and_type_that_was_asked_for(rows: int, dtype: torch.dtype) -> None:
    found = empty(rows, 2, dtype=dtype)
    assert found.shape == (rows, 2)
    assert found.dtype == dtype
    found.fill_(1)
    assert found.sum() == 2 * rows
