"""Pieces of work side by side, each on cores of its own, instead of all cores on one piece after another.

What is measured of a layer is many small steps; cores that wait for one another at each of them do no more together
than one alone (measured with two, 31 layers of width 576: 134 s, one core 119 s, a layer on each 65 s).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

import torch
from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")
# What ``map`` is; something else may go over the items side by side.
Over = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


def each(results: Iterable[object]) -> None:
    """Go to the end of what a map yields, where nothing is asked but that it is done."""
    deque(results, maxlen=0)


class Cores:
    """Divides the threads that torch may use among workers; to be used in a ``with`` statement, by one thread.

    Until it ends, torch and BLAS use no more threads in any worker, nor in the thread that made it, than one worker's
    share.

    Args:
        most: The most workers, because each holds its own piece of work in memory.
    """

    def __init__(self, most: int) -> None:
        self.threads = torch.get_num_threads()
        self.workers = workers(self.threads, most)
        self._pool: ThreadPoolExecutor | None = None
        self._limits: threadpool_limits | None = None

    def __enter__(self) -> Cores:
        if self.workers > 1:
            # NumPy's BLAS by this, torch's own by the next line: new threads take over what is set when they start.
            self._limits = threadpool_limits(self.threads // self.workers, user_api="blas")
            torch.set_num_threads(self.threads // self.workers)
            self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="hrsa")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None and self._limits is not None:
            try:
                self._pool.shutdown(cancel_futures=True)
            finally:  # also when somebody does not want to wait for what runs
                self._limits.restore_original_limits()
                torch.set_num_threads(self.threads)
                self._pool = self._limits = None

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield what the function makes of each item, in order; it may run for several items at a time.

        What it raises is raised here. With one worker it runs in this thread, when its result is asked for.
        """
        if self._pool is None:
            return map(function, items)
        return self._pool.map(_as_here(function), items)


def workers(threads: int, most: int) -> int:
    """Return how many workers leave the fewest of some threads idle, each with as many as the others.

    More of them where that is equal, and no fewer than two where there may be two.
    """
    counts = range(min(2, threads, most), min(threads, most) + 1)
    return max(counts, key=lambda count: (threads // count * count, count))


def _as_here(function: Callable[[Item], Result]) -> Callable[[Item], Result]:
    """Return the function, run under what torch keeps by thread: gradients, inference mode and autocast as here."""
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    autocast, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def run(item: Item) -> Result:
        with (
            torch.inference_mode(inference),
            torch.set_grad_enabled(gradients),
            torch.autocast("cpu", dtype=dtype, enabled=autocast),
        ):
            return function(item)

    return run
