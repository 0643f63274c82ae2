"""Mini-batches of texts of like length: as many rows as fit a budget of tokens, padding counted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from st_reasoning.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Features = dict[str, Any]
Tokens = Sequence["NDArray[np.int64]"]


@dataclass(frozen=True)
class Packed:
    """The texts of a batch, sorted into mini-batches.

    Attributes:
        mini_batches: Features as the model takes them; all texts of one have the same prompt length.
        places: Where, in the embeddings of all mini-batches together, the embedding of each text is, [columns, batch].
        texts: A 64-bit hash of each text's token ids, [columns, batch]; equal for equal texts.
        cells: Tokens that the model sees in all mini-batches, padding included.
    """

    mini_batches: list[Features]
    places: Tensor
    texts: Tensor
    cells: int


def pack(columns: Sequence[Features], budget: int | None, *, merge: bool = False, prompts: Tokens = ()) -> Packed:
    """Sort the texts of a batch by length and cut them into mini-batches.

    Queries (column 0) and documents (all others) never share a mini-batch, since what is embedded may depend on which
    one a text is; the documents of all columns do.

    Args:
        columns: Tokenised texts, [batch, width of the column] each, padded on either side. ``prompt_length`` may be a
            number, a tensor of one, or a tensor with one entry per text.
        budget: Rows times the longest of them is at most this; a longer text is alone. None: no bound.
        merge: Give texts with the same token ids and prompt length one row.
        prompts: Token ids of prompts. A query without ``prompt_length`` that begins with one gets its length; of
            several the longest.

    Raises:
        InputError: for features that are not padded texts, or columns of different sizes.
    """
    import torch

    device = _mask(columns[0]).device
    mini_batches: list[Features] = []
    places: list[list[int]] = []
    texts: list[list[int]] = []
    cells = offset = 0
    for pool, known in ((columns[:1], prompts), (columns[1:], ())):
        tokens = [text for column in pool for text in read_tokens(column)]
        prompt = [length for column in pool for length in _prompt_lengths(column, known)]
        first: dict[Any, int] = {}
        keys = (
            (length, text.tobytes(), 0 if merge else i)
            for i, (length, text) in enumerate(zip(prompt, tokens, strict=True))
        )
        source = [first.setdefault(key, i) for i, key in enumerate(keys)]
        rows, ranges = cut([len(text) for text in tokens], prompt, sorted(set(source)), budget)
        joined, left = _join(pool)
        for begin, end in ranges:
            chosen = rows[begin:end]
            longest = max(1, len(tokens[chosen[0]]))
            mini_batches.append(_take(joined, chosen, longest, left=left, prompt_length=prompt[chosen[0]]))
            cells += len(chosen) * longest
        rank = {row: offset + k for k, row in enumerate(rows)}
        offset += len(rows)
        places += _by_column([rank[i] for i in source], len(pool))
        texts += _by_column([_hash(text) for text in tokens], len(pool))
    if len({len(column) for column in places}) > 1:
        raise InputError(f"expected columns of one size, got {[len(column) for column in places]} texts")
    return Packed(mini_batches, torch.tensor(places, device=device), torch.tensor(texts, device=device), cells)


def cut(
    lengths: Sequence[int], groups: Sequence[int], rows: Sequence[int], budget: int | None
) -> tuple[list[int], list[tuple[int, int]]]:
    """Sort rows by group, the longest first, and cut them where the group changes or the budget ends.

    The longest first: what does not fit into memory fails at once.

    Args:
        lengths: Tokens of every text.
        groups: Which texts may share a mini-batch.
        rows: Which texts to sort.
        budget: See :func:`pack`.

    Returns:
        The sorted rows, and where each mini-batch begins and ends among them.
    """
    order = sorted(rows, key=lambda row: (groups[row], -lengths[row]))
    ranges = []
    begin = 0
    while begin < len(order):
        size = len(order) if budget is None else max(1, budget // max(1, lengths[order[begin]]))
        end = begin + 1
        while end < min(begin + size, len(order)) and groups[order[end]] == groups[order[begin]]:
            end += 1
        ranges.append((begin, end))
        begin = end
    return order, ranges


def read_tokens(column: Features) -> list[NDArray[np.int64]]:
    """Return the token ids of each text without padding."""
    mask = _mask(column).cpu().numpy().astype(bool)
    ids = column["input_ids"].cpu().numpy()
    return [row[real] for row, real in zip(ids, mask, strict=True)]


def _mask(column: Features) -> Tensor:
    mask: Tensor | None = column.get("attention_mask")
    if mask is None or mask.dim() != 2 or "input_ids" not in column:
        raise InputError(
            "expected padded texts (input_ids and attention_mask, [batch, width]), "
            f"got {', '.join(sorted(column))}; set model[0].unpad_inputs = False"
        )
    return mask


def _prompt_lengths(column: Features, prompts: Tokens) -> list[int]:
    import torch

    rows = len(_mask(column))
    if "prompt_length" in column:
        lengths: list[int] = torch.as_tensor(column["prompt_length"]).flatten().tolist()
        if len(lengths) not in (1, rows):
            raise InputError(f"expected one prompt_length or one per text ({rows}), got {len(lengths)}")
        return lengths if len(lengths) == rows else lengths * rows
    if not prompts:
        return [0] * rows
    longest_first = sorted(prompts, key=len, reverse=True)
    return [
        next((len(p) for p in longest_first if np.array_equal(text[: len(p)], p)), 0) for text in read_tokens(column)
    ]


def _join(pool: Sequence[Features]) -> tuple[Features, bool]:
    """Put columns below each other, padded to one width on the side where they are padded (left: True)."""
    import torch

    masks = [_mask(column) for column in pool]
    width = max(mask.shape[1] for mask in masks)
    left = any(bool((mask[:, 0] < mask[:, -1]).any()) for mask in masks)
    joined: Features = {}
    for key, value in pool[0].items():
        if key == "prompt_length":
            continue
        joined[key] = value
        if isinstance(value, torch.Tensor):
            parts = [column[key] for column in pool]
            if any(part.shape != mask.shape for part, mask in zip(parts, masks, strict=True)):
                raise InputError(f"expected one number per token in the feature {key!r}, got shape {list(value.shape)}")
            gaps = [width - part.shape[1] for part in parts]
            sides = [(gap, 0) if left else (0, gap) for gap in gaps]
            joined[key] = torch.cat([torch.nn.functional.pad(p, side) for p, side in zip(parts, sides, strict=True)])
    return joined, left


def _take(joined: Features, rows: list[int], longest: int, *, left: bool, prompt_length: int) -> Features:
    import torch

    index = torch.tensor(rows, device=_mask(joined).device)
    width = _mask(joined).shape[1]
    span = slice(width - longest, width) if left else slice(0, longest)
    taken: Features = {k: v[index, span] if isinstance(v, torch.Tensor) else v for k, v in joined.items()}
    # A plain number: of a tensor, Pooling reads only the first entry.
    return {**taken, "prompt_length": prompt_length} if prompt_length else taken


def _by_column(values: list[int], columns: int) -> list[list[int]]:
    size = len(values) // max(1, columns)
    return [values[k * size : (k + 1) * size] for k in range(columns)]


def _hash(text: NDArray[np.int64]) -> int:
    return int.from_bytes(hashlib.blake2b(text.tobytes(), digest_size=8).digest(), "big", signed=True)
