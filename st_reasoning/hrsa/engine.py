"""All measures at all layers from a stream of chunks, in memory that does not grow with the number of tokens."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa import compute
from st_reasoning.hrsa.chunk import Chunk
from st_reasoning.hrsa.cores import Cores, each
from st_reasoning.hrsa.measures.sampling import hashed
from st_reasoning.hrsa.settings import Settings, Stopwatch
from st_reasoning.hrsa.store import Store
from st_reasoning.hrsa.tokens import Tokens

# Numbers of texts and places in them share an int64, so that one number names a token.
_PLACES = 1 << 24
# Layers measured side by side, and bytes that they may take; one layer always may.
_LAYERS = 4
_LAYERS_BYTES = 2 << 30


class Engine:
    """Takes chunks in any order, keeps their rows on disk and measures layer by layer at the end.

    Disk, not memory, holds 4 (L_a d_a + L_b d_b) bytes of each token looked at: 2 GB for 14,000 tokens of two models
    of 31 x 576. ``"fast"`` looks at ``settings.tokens`` of them at most, drawn by a hash of text and place: whichever
    process saw them, and in whatever order, they are the same tokens.

    Args:
        settings: See :class:`~st_reasoning.hrsa.settings.Settings`.
        names: What the two models are called in the result.
        labels: A class per text, by number of the text, for the probe; needs pooled states in the chunks.
        scratch: Where to make the temporary folder; by default where the system wants it.
        stopwatch: Where to add the seconds of each part.
        progress: Whether to show bars.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        names: tuple[str, str] = ("a", "b"),
        labels: Sequence[Hashable] | None = None,
        scratch: Path | None = None,
        stopwatch: Stopwatch | None = None,
        progress: bool = False,
    ) -> None:
        self.settings = settings if settings is not None else Settings()
        self.names, self.labels, self.progress = names, labels, progress
        self.watch = stopwatch if stopwatch is not None else Stopwatch()
        self._folder = tempfile.TemporaryDirectory(prefix="hrsa-", dir=scratch)
        self._stores: tuple[Store, Store] | None = None
        self._pooled: tuple[Store, Store] | None = None
        self._texts: dict[int, int] = {}  # tokens of each text
        self._pooled_texts: list[int] = []
        self._keys, self._types, self._ranks = (torch.empty(0, dtype=torch.int64) for _ in range(3))
        self._norms: tuple[Tensor, Tensor] | None = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove what is on disk; the engine cannot be used any more."""
        for store in (*(self._stores or ()), *(self._pooled or ())):
            store.close()
        self._folder.cleanup()

    @property
    def tokens_seen(self) -> int:
        """Tokens of all chunks, of which ``"fast"`` may have drawn a part."""
        return sum(self._texts.values())

    @property
    def shapes(self) -> list[list[int]]:
        """Hidden states and width of each model, once a chunk was seen."""
        return [[len(store), store.width] for store in self._stores or ()]

    def update(self, chunk: Chunk) -> None:
        """Add the states of some whole texts.

        Raises:
            InputError: for a malformed chunk, states that are not finite, or a text that was there before.
        """
        with self.watch.part("store"):
            # The books are kept on the CPU, wherever the models are.
            sentences, types, texts = (values.cpu() for values in (chunk.sentences, chunk.types, chunk.texts))
            chunk = replace(chunk, sentences=sentences, types=types, texts=texts)
            self._check(chunk)
            if self._stores is None:
                self._open(chunk)
            assert self._stores is not None
            norms = (_norms(chunk.a, self.names[0]).cpu(), _norms(chunk.b, self.names[1]).cpu())
            starts = torch.searchsorted(chunk.sentences.contiguous(), chunk.sentences)
            keys = chunk.sentences * _PLACES + torch.arange(len(starts)) - starts
            self._texts |= Counter(chunk.sentences.tolist())
            taken, slots = self._take(keys, chunk.types, norms)

            def write(side: tuple[Store, Tensor]) -> None:
                store, states = side
                store.write(states if len(taken) == len(keys) else states[:, taken.to(states.device)], slots)

            with Cores(2) as cores:
                each(cores.map(write, zip(self._stores, (chunk.a, chunk.b), strict=True)))
            if self._pooled is not None:
                assert chunk.pooled_a is not None
                assert chunk.pooled_b is not None
                first = len(self._pooled_texts)
                self._pooled_texts += chunk.texts.tolist()
                slots = torch.arange(first, len(self._pooled_texts))
                for store, states in zip(self._pooled, (chunk.pooled_a, chunk.pooled_b), strict=True):
                    store.write(states, slots)

    def sync(self, group: dist.ProcessGroup | None = None) -> None:
        """Exchange what each process has seen, so that each computes what one process would have.

        A text that several processes saw counts once. Without a process group nothing happens.
        """
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) == 1:
            return
        shapes: list[Any] = [None] * dist.get_world_size(group)
        mine = None if self._stores is None else [(len(s), s.width) for s in self._stores]
        dist.all_gather_object(shapes, (mine, self._pooled is not None), group=group)
        known = [shape for shape in shapes if shape[0] is not None]
        if not known:
            return
        everyone = _Merged(self._folder.name, known[0], self, group)
        everyone.exchange()

    def compute(self) -> dict[str, Any]:
        """Return layers, matrices, sensitivity and what they are to be read with; see :func:`~.compute.measure`.

        Raises:
            InputError: for too few texts or tokens.
        """
        if self._stores is None or self._norms is None:
            raise InputError("texts: expected at least one chunk before compute, got none")
        tokens = Tokens.arrange(self._keys // _PLACES, self._keys % _PLACES, self._types, self._norms, self.settings)
        width = max(store.width for store in self._stores)
        with Cores(_layers_at_a_time(width, len(tokens.order), tokens.block_count)) as cores:
            for store in self._stores:
                store.arrange(tokens.order, over=cores.map)
            # From here on rows are in the order of tokens, also for chunks that come later.
            self._keys, self._types, self._ranks = (
                values[tokens.order] for values in (self._keys, self._types, self._ranks)
            )
            self._norms = (self._norms[0][:, tokens.order], self._norms[1][:, tokens.order])
            return compute.measure(
                self._stores,
                tokens,
                pooled=self._pooled,
                pooled_texts=torch.tensor(self._pooled_texts, dtype=torch.int64),
                labels=self.labels,
                names=self.names,
                settings=self.settings,
                tokens_seen=self.tokens_seen,
                watch=self.watch,
                cores=cores,
                progress=self.progress,
            )

    def _open(self, chunk: Chunk) -> None:
        folder = Path(self._folder.name)
        self._stores = (
            Store(folder / "a", len(chunk.a), chunk.a.shape[2]),
            Store(folder / "b", len(chunk.b), chunk.b.shape[2]),
        )
        self._norms = (torch.empty(len(chunk.a), 0), torch.empty(len(chunk.b), 0))
        if chunk.pooled_a is not None and chunk.pooled_b is not None:
            self._pooled = (
                Store(folder / "pooled_a", len(chunk.a), chunk.pooled_a.shape[2]),
                Store(folder / "pooled_b", len(chunk.b), chunk.pooled_b.shape[2]),
            )

    def _take(self, keys: Tensor, types: Tensor, norms: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return which new tokens are kept, and the slots of their rows; older ones may lose theirs."""
        assert self._norms is not None
        ranks = hashed(keys, self.settings.seed)
        old, limit = len(self._keys), self.settings.tokens if self.settings.estimator == "fast" else None
        if limit is None or old + len(keys) <= limit:
            taken, slots = torch.arange(len(keys)), torch.arange(old, old + len(keys))
        else:
            kept = torch.cat([self._ranks, ranks]).argsort()[:limit]
            taken = (kept[kept >= old] - old).sort().values
            free = torch.ones(limit, dtype=torch.bool)
            free[kept[kept < old]] = False
            slots = free.nonzero().flatten()[: len(taken)]
        size = max(old, int(slots.max()) + 1 if len(slots) else 0)

        def placed(before: Tensor, new: Tensor) -> Tensor:
            grown = torch.cat([before, before.new_zeros(*before.shape[:-1], size - old)], dim=-1)
            grown[..., slots] = new[..., taken]
            return grown

        self._keys, self._types = placed(self._keys, keys), placed(self._types, types)
        self._ranks = placed(self._ranks, ranks)
        self._norms = (placed(self._norms[0], norms[0]), placed(self._norms[1], norms[1]))
        return taken, slots

    def _check(self, chunk: Chunk) -> None:
        n = len(chunk.sentences)
        for name, states, store in (("a", chunk.a, 0), ("b", chunk.b, 1)):
            if states.ndim != 3 or states.shape[1] != n or not n:
                raise InputError(f"chunk.{name}: expected [layers, {n}, width] with rows, got {list(states.shape)}")
            if self._stores is not None:
                held = self._stores[store]
                if (len(states), states.shape[2]) != (len(held), held.width):
                    raise InputError(
                        f"chunk.{name}: expected {len(held)} layers of width {held.width} as before, "
                        f"got {list(states.shape)}"
                    )
        if chunk.types.shape != (n,) or (chunk.sentences.diff() < 0).any():
            raise InputError("chunk: expected a type and a sentence for each token, sentences non-decreasing")
        again = self._texts.keys() & set(chunk.texts.tolist())
        if again or set(chunk.sentences.tolist()) != set(chunk.texts.tolist()):
            said = f"got {min(again)} again" if again else "got tokens of others"
            raise InputError(f"chunk.texts: expected each text once and whole, {said}")
        wanted = self._pooled is not None if self._stores is not None else chunk.pooled_a is not None
        if (chunk.pooled_a is None) != (chunk.pooled_b is None) or wanted != (chunk.pooled_a is not None):
            raise InputError("chunk: expected pooled states of both models in every chunk or in none")


class _Merged:
    """The exchange between processes: facts by object, rows layer by layer."""

    def __init__(self, folder: str, shapes: Any, engine: Engine, group: dist.ProcessGroup | None) -> None:
        # A folder of its own each time: engines may exchange what they have more than once.
        self.folder, self.engine, self.group = Path(tempfile.mkdtemp(dir=folder)), engine, group
        self.widths, self.pools = shapes

    def exchange(self) -> None:
        """Give the engine what all processes hold."""
        engine = self.engine
        norms = engine._norms or tuple(torch.empty(layers, 0) for layers, _ in self.widths)
        facts: list[Any] = [None] * dist.get_world_size(self.group)
        mine = (engine._keys, engine._types, engine._ranks, *norms, engine._texts, engine._pooled_texts)
        dist.all_gather_object(facts, mine, group=self.group)
        keys, types, ranks, *both = (torch.cat([fact[i] for fact in facts], dim=-1) for i in range(5))
        # One process keeps a duplicate; np.unique would do the same, but does not name the first.
        order = keys.argsort(stable=True)
        order = order[torch.cat([torch.ones(1, dtype=torch.bool), keys[order].diff() != 0])]
        if engine.settings.estimator == "fast":
            order = order[ranks[order].argsort()[: engine.settings.tokens]]
        engine._stores = self._rows(engine._stores, [len(fact[0]) for fact in facts], order, "")
        engine._keys, engine._types, engine._ranks = keys[order], types[order], ranks[order]
        engine._norms = (both[0][:, order], both[1][:, order])
        engine._texts = {text: count for fact in facts for text, count in fact[5].items()}
        if self.pools:
            texts = torch.tensor([text for fact in facts for text in fact[6]])
            order = texts.argsort(stable=True)
            order = order[torch.cat([torch.ones(1, dtype=torch.bool), texts[order].diff() != 0])]
            engine._pooled = self._rows(engine._pooled, [len(fact[6]) for fact in facts], order, "pooled_")
            engine._pooled_texts = texts[order].tolist()

    def _rows(
        self, old: tuple[Store, Store] | None, counts: list[int], order: Tensor, name: str
    ) -> tuple[Store, Store]:
        stores = []
        for side, (layers, width) in zip("ab", self.widths, strict=True):
            new = Store(self.folder / f"{name}{side}", layers, width)
            for layer in range(layers):
                rows = torch.zeros(max(counts), width)
                mine = counts[dist.get_rank(self.group)]
                if old is not None and mine:
                    rows[:mine] = old["ab".index(side)].read(layer, 0, mine)
                rows = rows.to(_device(self.group))
                received = [torch.empty_like(rows) for _ in counts]
                dist.all_gather(received, rows, group=self.group)
                whole = torch.cat([part[:count].cpu() for part, count in zip(received, counts, strict=True)])
                new.write_layer(layer, whole[order])
            stores.append(new)
        for store in old or ():
            store.close()
        return stores[0], stores[1]


def _layers_at_a_time(width: int, tokens: int, blocks: int) -> int:
    """Return how many layers may be in memory; Procrustes needs most of it, for X'Y [d, d] of each block."""
    each = 4 * width * (2 * tokens + 2 * blocks * width + 40 * width)
    return max(1, min(_LAYERS, _LAYERS_BYTES // each))


def _device(group: dist.ProcessGroup | None) -> torch.device:
    """Return where tensors must be for a process group to exchange them: NCCL knows GPUs only."""
    if dist.get_backend(group) == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _norms(states: Tensor, name: str) -> Tensor:
    """Return the length of every row [L, n] of states [L, n, d]."""
    norms: Tensor = torch.linalg.vector_norm(states, dim=2)
    if not torch.isfinite(norms).all():
        layer = int((~torch.isfinite(norms)).any(dim=1).nonzero()[0])
        raise InputError(f"model {name}: expected finite hidden states, got NaN or infinity at layer {layer}")
    return norms
