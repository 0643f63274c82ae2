"""What a panel depends on beside models and texts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from st_reasoning.errors import InputError, unknown_name

Precision = Literal["fast", "exact"]


@dataclass(frozen=True)
class Settings:
    """What a panel depends on beside models and texts.

    Attributes:
        k: Numbers of neighbours, ascending.
        seed: Of the splits of Procrustes (sentences) and the probe, and of what ``"fast"`` draws.
        sink_ratio: A token is a sink where its norm is more than this many times the median norm of the
            layer. Massive activations are some hundred times it, ordinary tokens hardly twice. Values
            "without sinks" leave out the tokens that are one at any layer of either model.
        test_share: Share of sentences that Procrustes and the probe are scored on.
        estimator: ``"exact"`` follows the paper: all tokens, all pairs. ``"fast"`` estimates CKA from minibatches with
            one token of each sentence, and takes a sample of the tokens as queries of k-NN.
        tokens: The most tokens that ``"fast"`` looks at; of more, that many are drawn.
        probe: ``"logistic"`` or ``"ridge"``.
        queries: The most queries of k-NN for ``"fast"``, which takes an eighth of them in standardised columns; there
            ``"exact"`` takes them all, while elsewhere it takes every token. Candidates are all tokens looked at.
        minibatch: Tokens per minibatch for ``"fast"``.
        blocks: Into how many blocks of whole sentences the jackknife divides the texts, if there are as many texts.
    """

    k: tuple[int, ...] = (5, 10, 50)
    seed: int = 0
    sink_ratio: float = 10.0
    test_share: float = 0.2
    estimator: Precision = "exact"
    probe: Literal["logistic", "ridge"] = "logistic"
    tokens: int = 16_384
    queries: int = 2048
    minibatch: int = 128
    blocks: int = 32

    def __post_init__(self) -> None:
        if not self.k or min(self.k) < 1:
            raise InputError(f"k: expected numbers of neighbours of at least 1, got {self.k}")
        if list(self.k) != sorted(set(self.k)):
            raise InputError(f"k: expected numbers of neighbours in ascending order, each once, got {self.k}")
        if not self.sink_ratio > 1:
            raise InputError(f"sink_ratio: expected more than 1, got {self.sink_ratio}")
        if not 0 < self.test_share < 1:
            raise InputError(f"test_share: expected a share between 0 and 1, got {self.test_share}")
        if self.estimator not in ("fast", "exact"):
            raise unknown_name("HRSA estimator", self.estimator, ("fast", "exact"))
        for name, least in (("tokens", 64), ("queries", 1), ("minibatch", 4), ("blocks", 2)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: expected at least {least}, got {getattr(self, name)}")


@dataclass
class Stopwatch:
    """Seconds spent by part; a part entered again adds up, also one that several threads are in at a time."""

    seconds: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a block under a name."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            with self._lock:
                self.seconds[name] = self.seconds.get(name, 0.0) + spent
