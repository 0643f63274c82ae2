"""Hidden states of real tokens, from a SentenceTransformer, in the order of the texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from st_reasoning.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class Activations:
    """All hidden states of some texts through one model.

    Symbols: n tokens of m texts, width d, L transformer layers.

    Attributes:
        states: L + 1 tensors [n, d], float32 on the CPU: 0 is the token embedding, L comes after the final
            norm where the model has one. Texts follow one another; there are no pads.
        features: L + 1 tensors [m, d], float32: the mean over each text's tokens.
        token_ids: [n], int64.
        sentence: [n], int64: the number of each token's text, ascending.
    """

    states: list[Tensor]
    features: list[Tensor]
    token_ids: Tensor
    sentence: Tensor


def tokenise(model: SentenceTransformer, texts: Sequence[str], *, max_tokens: int | None = None) -> list[list[int]]:
    """Return the token ids of each text, taken as plain text.

    The tokenizer's special tokens are added; a prompt or a chat template is not.

    Args:
        model: Whose tokenizer.
        texts: m texts.
        max_tokens: Longer texts are cut to this many tokens; by default to the model's ``max_seq_length``, if
            any.

    Raises:
        InputError: without texts, or for a text that has no tokens, named by its number (from 0).
    """
    if isinstance(texts, str) or len(texts) == 0:
        raise InputError(f"texts: expected a non-empty sequence of texts, got {texts!r}")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"texts[{number}]: expected a text, got {type(text).__name__}")
    limit = max_tokens if max_tokens is not None else model.max_seq_length
    if limit is not None and limit < 1:
        raise InputError(f"max_tokens: expected at least 1, got {limit}")
    cut = {} if limit is None else {"truncation": True, "max_length": limit}
    encoded = model.tokenizer(list(texts), padding=False, verbose=False, **cut)["input_ids"]
    ids: list[list[int]] = [list(row) for row in encoded]
    for number, row in enumerate(ids):
        if not row:
            raise InputError(f"texts[{number}]: expected at least one token, got none from {texts[number]!r}")
    return ids


def hidden_states(
    model: SentenceTransformer,
    texts: Sequence[str],
    *,
    batch_tokens: int = 4096,
    max_tokens: int | None = None,
    progress: bool = True,
) -> Activations:
    """Run texts through a model once and keep every hidden state of every real token.

    The transformer below the pooling is called in eval mode, on its own device and in its own dtype. Texts
    are sorted by length and batched so that no batch holds more than ``batch_tokens`` positions, pads
    included; a text longer than that is a batch of its own.

    Args:
        model: Any SentenceTransformer whose first module holds a transformers model.
        texts: m texts.
        batch_tokens: Positions per batch.
        max_tokens: See :func:`tokenise`.
        progress: Whether to show a bar, counting tokens.

    Raises:
        InputError: for unusable texts (see :func:`tokenise`) or a model that yields no hidden states.
    """
    if batch_tokens < 1:
        raise InputError(f"batch_tokens: expected at least 1, got {batch_tokens}")
    ids = tokenise(model, texts, max_tokens=max_tokens)
    network = transformer(model)
    lengths = torch.tensor([len(row) for row in ids])
    starts = [0, *lengths.cumsum(0).tolist()]
    kept: list[Tensor] = []
    pooled: list[Tensor] = []
    training = network.training
    network.eval()
    try:
        with (
            torch.inference_mode(),
            tqdm(total=starts[-1], unit="token", disable=not progress, desc="hidden states") as bar,
        ):
            for batch in batches(lengths.tolist(), batch_tokens):
                states = forward(network, [ids[number] for number in batch])
                if not kept:
                    widths = [state.shape[-1] for state in states]
                    kept = [torch.empty(starts[-1], width) for width in widths]
                    pooled = [torch.empty(len(ids), width) for width in widths]
                for layer, state in enumerate(states):
                    for row, number in zip(state.float().cpu(), batch, strict=True):
                        real = row[: len(ids[number])]
                        kept[layer][starts[number] : starts[number + 1]] = real
                        pooled[layer][number] = real.double().mean(dim=0)
                bar.update(sum(len(ids[number]) for number in batch))
    finally:
        network.train(training)
    return Activations(
        states=kept,
        features=pooled,
        token_ids=torch.tensor([token for row in ids for token in row]),
        sentence=torch.repeat_interleave(torch.arange(len(ids)), lengths),
    )


def transformer(model: SentenceTransformer) -> Any:
    """Return the transformers model inside a SentenceTransformer.

    Raises:
        InputError: if its first module holds none.
    """
    network = getattr(model[0], "model", None)
    if network is None or not hasattr(network, "config"):
        got = type(model[0]).__name__
        raise InputError(f"model: expected a transformers model in its first module, got {got} without one")
    return network


def forward(network: Any, ids: Sequence[Sequence[int]]) -> tuple[Tensor, ...]:
    """Return all hidden states [batch, length, d] of token ids, padded on the right.

    Whatever side the tokenizer prefers, pads on the right leave the position of every real token as it is
    without padding. The last one is what the model hands on, after the final norm where it has one.

    Raises:
        InputError: if the model yields no hidden states.
    """
    longest = max(map(len, ids))
    tokens = torch.zeros(len(ids), longest, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for row, text in enumerate(ids):
        tokens[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
    device = network.device
    output = network(
        input_ids=tokens.to(device),
        attention_mask=mask.to(device),
        output_hidden_states=True,
        use_cache=False,  # keys and values of every layer, for tokens that are never generated
    )
    states = getattr(output, "hidden_states", None)
    if not states:
        raise InputError(f"model: expected hidden states from {type(network).__name__}, got none")
    last = getattr(output, "last_hidden_state", None)
    # Some architectures keep what comes before the final norm.
    if last is not None and last.shape == states[-1].shape:
        return (*states[:-1], last)
    return tuple(states)


def batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Return text numbers in batches of at most ``batch_tokens`` positions, pads included.

    The longest come first: what does not fit in memory fails at once. A text longer than a batch is one of its own.
    """
    order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    found: list[list[int]] = []
    for number in order:
        if found and (len(found[-1]) + 1) * lengths[found[-1][0]] <= batch_tokens:
            found[-1].append(number)
        else:
            found.append([number])
    return found
