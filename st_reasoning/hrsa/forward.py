"""The activation pass: two models forward once, side by side, and nothing is kept.

Symbols: n tokens of s texts; L transformer layers and width d of a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from st_reasoning.errors import InputError
from st_reasoning.hrsa.activations import batches, forward, transformer
from st_reasoning.hrsa.align import Alignment, align
from st_reasoning.hrsa.cache import StateCache, batch_key, model_key
from st_reasoning.hrsa.chunk import Chunk
from st_reasoning.hrsa.cores import Cores
from st_reasoning.hrsa.measures.columns import empty

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def lockstep(
    model_a: SentenceTransformer,
    model_b: SentenceTransformer,
    texts: Sequence[str],
    *,
    max_tokens: int | None = None,
    batch_tokens: int = 2048,
    pooled: bool = True,
    cache: Path | None = None,
    progress: bool = True,
    alignment: Alignment | None = None,
) -> Iterator[Chunk]:
    """Run texts through two models once and yield the states of the tokens they share, batch by batch.

    Texts are run as plain text, without prompt or chat template, in eval mode, each model on its own device and in its
    own dtype. They come longest first, in an order that depends on their tokens in model a alone. No chunk is kept
    here: memory is that of one batch, all layers, of both models, as long as the caller drops a chunk before it asks
    for the next one.

    In a process group (torch.distributed, and so accelerate) each rank yields its share: batches are dealt out, and
    where there are fewer batches than ranks they are split. Shares differ in size; a rank without any yields nothing.

    Args:
        model_a: One model.
        model_b: The other one, of any depth and width; where its tokenizer differs, see
            :func:`~st_reasoning.hrsa.align.align`.
        texts: m texts.
        max_tokens: Longer texts are cut; by default to the shorter ``max_seq_length`` of the two.
        batch_tokens: Positions per forward pass, pads included; a longer text is a batch of its own.
        pooled: Whether to pool each text: as the model's own Pooling does without a prompt, or, without one, by the
            mean. All tokens of the text are pooled, also those that the other model has no counterpart of.
        cache: A folder of :class:`~st_reasoning.hrsa.cache.StateCache`; batches that are there are not run.
        progress: Whether to show a bar, counting tokens of model a.
        alignment: What :func:`~st_reasoning.hrsa.align.align` has returned for these models, texts and
            ``max_tokens``, where it was called before.

    Returns:
        An iterator of chunks, on the device of model a.

    Raises:
        InputError: for unusable texts or models, before anything is run.
    """
    if batch_tokens < 1:
        raise InputError(f"batch_tokens: expected at least 1, got {batch_tokens}")
    arms = [Arm.of(model, batch_tokens=batch_tokens, pooled=pooled, cache=cache) for model in (model_a, model_b)]
    if alignment is None:
        alignment = align(model_a, model_b, texts, max_tokens=max_tokens)
    rank, world = _place()
    share = shares([len(row) for row in alignment.ids_a], batch_tokens, world)[rank]
    return _chunks(arms[0], arms[1], alignment, share, progress=progress and rank == 0)


def shares(lengths: Sequence[int], batch_tokens: int, world: int) -> list[list[list[int]]]:
    """Return the batches of each of ``world`` ranks, as text numbers, ascending in each batch.

    The batches do not depend on the number of ranks unless they are fewer: then those of most texts are halved, so
    that no rank is without text as long as another one has two.
    """
    found = [sorted(batch) for batch in batches(lengths, batch_tokens)]
    while len(found) < world and (most := max(found, key=len))[1:]:
        place = found.index(most)
        found[place : place + 1] = [most[: len(most) // 2], most[len(most) // 2 :]]
    return [found[rank::world] for rank in range(world)]


@dataclass(frozen=True)
class States:
    """All hidden states of the tokens of a few texts, one text after the other.

    Attributes:
        tokens: [L + 1, n, d], float32: 0 is the token embedding, L comes after the final norm where there is one.
        pooled: [L + 1, s, d], float32, or None if not wanted. Wider where the model's Pooling joins several modes.
    """

    tokens: Tensor
    pooled: Tensor | None


@dataclass(frozen=True)
class Arm:
    """One model, ready to run.

    Attributes:
        network: The transformers model.
        pooling: The model's Pooling module, if it has one.
        batch_tokens: Positions per forward pass.
        pooled: Whether to pool.
        cache: Where its batches are kept, if anywhere.
        key: What the cache knows the model by.
    """

    network: Any
    pooling: Any
    batch_tokens: int
    pooled: bool
    cache: StateCache | None
    key: str

    @classmethod
    def of(
        cls, model: SentenceTransformer, *, batch_tokens: int, pooled: bool = False, cache: Path | None = None
    ) -> Arm:
        """Take a model as it is now; with a cache its weights are read once, to know it again."""
        from sentence_transformers.sentence_transformer.modules import Pooling

        network = transformer(model)
        pooling = next((module for module in model if isinstance(module, Pooling)), None)
        if cache is None:
            return cls(network, pooling, batch_tokens, pooled, None, "")
        settings = None if pooling is None else pooling.get_config_dict()
        return cls(network, pooling, batch_tokens, pooled, StateCache(cache), model_key(network, settings))

    def states(self, ids: Sequence[Sequence[int]]) -> States:
        """Return the states of token ids of s texts, from the cache where they are there.

        Raises:
            InputError: if the model yields no hidden states, or not all of one shape.
        """
        parts = batches([len(row) for row in ids], self.batch_tokens)
        if self.cache is None:
            return self._run(ids, parts, pooled=self.pooled)
        # Which texts are padded together changes the last bits.
        key = batch_key(self.key, [[list(ids[number]) for number in part] for part in parts])
        stored = self.cache.read(key)
        if stored is None:
            found = self._run(ids, parts, pooled=True)
            assert found.pooled is not None
            self.cache.write(key, {"tokens": found.tokens, "pooled": found.pooled})
        else:
            device = self.network.device
            found = States(stored["tokens"].to(device), stored["pooled"].to(device))
        return found if self.pooled else States(found.tokens, None)

    def _run(self, ids: Sequence[Sequence[int]], parts: list[list[int]], *, pooled: bool) -> States:
        training = self.network.training
        self.network.eval()
        try:
            # Not inference mode: what it makes cannot be changed in place outside of it.
            with torch.no_grad():
                return self._forward(ids, parts, pooled=pooled)
        finally:
            self.network.train(training)

    def _forward(self, ids: Sequence[Sequence[int]], parts: list[list[int]], *, pooled: bool) -> States:
        lengths = [len(row) for row in ids]
        starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
        tokens = features = torch.empty(0)
        for count, part in enumerate(parts):
            layers: list[Tensor | None] = list(forward(self.network, [ids[number] for number in part]))
            first = layers[0]
            assert first is not None
            mask = _mask([lengths[number] for number in part], first.device)
            for layer in range(len(layers)):
                state = layers[layer]
                assert state is not None
                if state.shape != (*mask.shape, first.shape[-1]):
                    raise InputError(
                        f"model: expected hidden states of {mask.shape[0]} x {mask.shape[1]} tokens, all of one "
                        f"width, got {list(state.shape)} at layer {layer} of {type(self.network).__name__}"
                    )
                if count == layer == 0:
                    tokens = empty(len(layers), starts[-1], state.shape[-1], device=state.device)
                for row, number in enumerate(part):
                    tokens[layer, starts[number] : starts[number + 1]] = state[row, : lengths[number]]
                if pooled:
                    summary = self._pool(state, mask)
                    if count == layer == 0:
                        features = summary.new_empty(len(layers), len(ids), summary.shape[-1])
                    features[layer, part] = summary
                layers[layer] = None  # freed as it is copied, so that a batch is not held twice
        return States(tokens, features if pooled else None)

    def _pool(self, state: Tensor, mask: Tensor) -> Tensor:
        """Return one row per text [s, d], float32, of padded states [s, longest, d]."""
        state = state.float()
        if self.pooling is None:
            return (state * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        pooled: Tensor = self.pooling({"token_embeddings": state, "attention_mask": mask})["sentence_embedding"]
        return pooled


def _chunks(a: Arm, b: Arm, alignment: Alignment, share: list[list[int]], *, progress: bool) -> Iterator[Chunk]:
    total = sum(len(alignment.ids_a[number]) for batch in share for number in batch)
    with tqdm(total=total, unit="token", disable=not progress, desc="hidden states") as bar:
        for numbers in share:
            yield _chunk(a, b, alignment, numbers)
            bar.update(sum(len(alignment.ids_a[number]) for number in numbers))


def _both(a: Arm, b: Arm, ids_a: list[list[int]], ids_b: list[list[int]]) -> tuple[States, States]:
    """Run both models, on the CPU side by side with half of the threads each.

    But not a model beside itself, nor beside another one that the cache takes for it: the second finds what it asks.
    """
    same = a.network is b.network or (a.cache is not None and a.key == b.key)
    if same or {a.network.device.type, b.network.device.type} != {"cpu"}:
        return a.states(ids_a), b.states(ids_b)
    with Cores(2) as cores:
        found_a, found_b = cores.map(lambda one: one[0].states(one[1]), ((a, ids_a), (b, ids_b)))
    return found_a, found_b


def _chunk(a: Arm, b: Arm, alignment: Alignment, numbers: list[int]) -> Chunk:
    ids_a, ids_b = ([rows[number] for number in numbers] for rows in (alignment.ids_a, alignment.ids_b))
    found_a, found_b = _both(a, b, ids_a, ids_b)
    tokens_a, tokens_b = found_a.tokens, found_b.tokens
    types = torch.tensor([token for row in ids_a for token in row])
    if alignment.method == "spans":
        rows_a = _rows(ids_a, [alignment.positions_a[number] for number in numbers])
        rows_b = _rows(ids_b, [alignment.positions_b[number] for number in numbers])
        tokens_a = tokens_a.index_select(1, rows_a.to(tokens_a.device))
        tokens_b = tokens_b.index_select(1, rows_b.to(tokens_b.device))
        types = types[rows_a]
    texts = torch.tensor(numbers)
    compared = torch.tensor([len(alignment.positions_a[number]) for number in numbers])
    device = tokens_a.device
    return Chunk(
        a=tokens_a,
        b=tokens_b.to(device),
        sentences=torch.repeat_interleave(texts, compared).to(device),
        types=types.to(device),
        pooled_a=found_a.pooled,
        pooled_b=None if found_b.pooled is None else found_b.pooled.to(device),
        texts=texts.to(device),
    )


def _rows(ids: list[list[int]], positions: list[Tensor]) -> Tensor:
    """Return where the tokens at some positions of each text stand when the texts follow one another."""
    starts = torch.tensor([0, *(len(row) for row in ids)]).cumsum(0)[:-1]
    return torch.cat([start + places for start, places in zip(starts, positions, strict=True)])


def _mask(lengths: list[int], device: torch.device) -> Tensor:
    """Return which positions of texts padded on the right are tokens, [s, longest], int64."""
    return (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long().to(device)


def _place() -> tuple[int, int]:
    """Return the rank of this process and the number of ranks."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
