"""Work side by side: what it yields is what one thread yields, and nothing is left changed behind it."""

from __future__ import annotations

import copy
import mmap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from threadpoolctl import threadpool_info, threadpool_limits
from torch import Tensor

from st_reasoning.hrsa import Engine, Settings
from st_reasoning.hrsa.cores import Cores, workers
from st_reasoning.hrsa.engine import _layers_at_a_time
from st_reasoning.hrsa.exact import _Source, _sums, _sums_of_pair
from st_reasoning.hrsa.facts import Columns
from st_reasoning.hrsa.forward import lockstep
from st_reasoning.hrsa.measures.columns import empty
from st_reasoning.hrsa.store import Store
from st_reasoning.hrsa.tokens import Tokens
from tests.hrsa.test_engine import EXACT, FAST, corpus


@pytest.fixture
def threads() -> Iterator[None]:
    """Four threads, whatever the machine has: fewer would leave no second worker its own two."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.mark.parametrize(
    ("threads", "most", "expected"),
    [(1, 4, 1), (8, 1, 1), (2, 4, 2), (3, 2, 2), (5, 4, 4), (6, 4, 3), (7, 4, 3), (8, 4, 4), (64, 4, 4)],
)
def test_few_threads_are_left_idle(threads: int, most: int, expected: int) -> None:
    assert workers(threads, most) == expected


def test_results_come_in_order_from_several_threads(threads: None) -> None:
    both = threading.Barrier(2, timeout=60)

    def work(item: int) -> tuple[int, int, int]:
        both.wait()  # never returns unless two of them run at a time
        return item, threading.get_ident(), torch.get_num_threads()

    with Cores(2) as cores:
        found = [*cores.map(work, range(6))]
    assert [item for item, _, _ in found] == [*range(6)]
    assert len({thread for _, thread, _ in found}) == 2
    assert {share for _, _, share in found} == {2}


def test_threads_are_as_before_also_after_an_error(threads: None) -> None:
    def fail(item: int) -> int:
        if item == 3:
            raise KeyError(item)
        return item

    def work() -> None:
        with Cores(2) as cores:
            assert set(blas_threads()) == {2}
            list(cores.map(fail, range(100)))

    with threadpool_limits(4, user_api="blas"):
        with pytest.raises(KeyError):
            work()
        assert torch.get_num_threads() == 4
        assert set(blas_threads()) == {4}


def test_one_thread_works_where_it_is() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with Cores(4) as cores:
            assert {*cores.map(lambda _: threading.get_ident(), range(3))} == {threading.get_ident()}
    finally:
        torch.set_num_threads(before)


def test_workers_do_under_what_torch_keeps_by_thread(threads: None) -> None:
    def work(_: int) -> tuple[bool, bool, torch.dtype]:
        product = torch.ones(2, 2) @ torch.ones(2, 2)
        return torch.is_inference_mode_enabled(), torch.is_grad_enabled(), product.dtype

    with Cores(2) as cores:
        assert {*cores.map(work, range(4))} == {(False, True, torch.float32)}
        with torch.no_grad():
            assert {*cores.map(work, range(4))} == {(False, False, torch.float32)}
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            assert {*cores.map(work, range(4))} == {(True, False, torch.bfloat16)}


def test_the_engine_works_in_inference_mode(threads: None) -> None:
    with torch.inference_mode(), Engine(FAST) as engine:
        engine.update(corpus())
        assert len(engine.compute()["layers"]) == 3


@pytest.mark.parametrize(("width", "layers"), [(64, 4), (576, 4), (1024, 3), (4096, 1)])
def test_wide_layers_are_fewer_at_a_time(width: int, layers: int) -> None:
    assert _layers_at_a_time(width, 16_384, 32) == layers


def test_equal_models_with_a_cache_run_one_after_the_other(
    tiny: SentenceTransformer, texts: list[str], tmp_path: Path, threads: None
) -> None:
    twin = copy.deepcopy(tiny)
    (first, *_), (again, *_) = ([*lockstep(tiny, twin, texts, cache=tmp_path, progress=False)] for _ in range(2))
    assert torch.equal(first.a, first.b)
    assert torch.equal(first.a, again.a)


def test_memory_needs_no_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stubborn(mmap.mmap):
        def madvise(self, *_: int) -> None:
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", Stubborn)
    assert empty(1 << 21).fill_(1).sum() == 1 << 21


def values(found: object) -> list[float]:
    """All numbers of a record, in its order."""
    if isinstance(found, dict):
        return [number for key in sorted(found) for number in values(found[key])]
    if isinstance(found, list):
        return [number for one in found for number in values(one)]
    return [float(found)] if isinstance(found, int | float) else []


@pytest.mark.parametrize("settings", [FAST, EXACT], ids=["fast", "exact"])
@pytest.mark.parametrize("layers", [(3, 3), (5, 3), (2, 5)])
def test_a_panel_is_the_same_with_any_number_of_threads(settings: Settings, layers: tuple[int, int]) -> None:
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 4):
            torch.set_num_threads(count)
            with Engine(settings) as engine:
                engine.update(corpus(layers=layers))
                found.append(engine.compute())
    finally:
        torch.set_num_threads(before)
    one, many = (torch.tensor(values(record), dtype=torch.float64) for record in found)
    assert [*found[0]] == [*found[1]]
    # Sums of float32 run in another order; intervals are differences of such sums.
    torch.testing.assert_close(many, one, rtol=1e-4, atol=1e-5)


def test_models_run_side_by_side_as_one_after_the_other(
    tiny: SentenceTransformer, noisy: SentenceTransformer, texts: list[str], threads: None
) -> None:
    def states(a: SentenceTransformer, b: SentenceTransformer) -> tuple[Tensor, Tensor]:
        chunks = [*lockstep(a, b, texts, progress=False)]
        return torch.cat([chunk.a for chunk in chunks], dim=1), torch.cat([chunk.b for chunk in chunks], dim=1)

    side_by_side = states(tiny, noisy)
    # One and the same network cannot run twice at a time, so that these run one after the other.
    for found, model in zip(side_by_side, (tiny, noisy), strict=True):
        for alone in states(model, model):
            torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)


def test_sums_of_a_pair_by_columns_are_those_by_tiles(tmp_path: Path) -> None:
    chunk = corpus()
    n = len(chunk.sentences)
    norms = (chunk.a.norm(dim=2), chunk.b.norm(dim=2))
    places = torch.arange(n) - torch.searchsorted(chunk.sentences, chunk.sentences)
    tokens = Tokens.arrange(chunk.sentences, places, chunk.types, norms, EXACT)
    sources = []
    for side, states in (("a", chunk.a), ("b", chunk.b)):
        store = Store(tmp_path / side, len(states), states.shape[2])
        store.write(states, torch.arange(n))
        store.arrange(tokens.order)
        facts = Columns.of(store.read(1, 0, n), tokens.sentences)
        sources.append(_Source(store, 1, facts.mean, facts.factors))
    assert n > 6 * sources[0].store.width
    by_columns = _sums_of_pair(sources, tokens, size=1 << 20)
    by_tiles = _sums(sources, 1, tokens, size=1 << 20)[0]
    torch.testing.assert_close(
        by_columns.cross, by_tiles.cross, rtol=1e-4, atol=1e-4 * float(by_tiles.cross.abs().max())
    )
    torch.testing.assert_close(by_columns.own, by_tiles.own, rtol=1e-4, atol=1e-4 * float(by_tiles.own.max()))
    for source in sources:
        source.store.close()
