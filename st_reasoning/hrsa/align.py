"""Which tokens of each text stand for the same in two models."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa.activations import tokenise

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Below this share of the tokens of the coarser tokenizer, what is left is no sample of the text.
LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Alignment:
    """The tokens of m texts in two models, and which of them are compared.

    Attributes:
        ids_a: Token ids of each text in model a, as they are forwarded, special tokens included.
        ids_b: The same for model b.
        positions_a: For each text the positions in ``ids_a`` of the compared tokens, ascending, int64.
        positions_b: Where their counterparts stand in ``ids_b``.
        method: ``"ids"`` where every text has the same ids in both models: all tokens, one to one. Otherwise
            ``"spans"``, for all texts.
        tokens: How many tokens are compared.
        share_a: Their share in the tokens of model a; with ``"spans"``, in those that stand for characters.
        share_b: Their share in the tokens of model b.
        same_span: Share of the compared tokens that begin at the same character too, white space before them aside.
        cut: Texts cut to what both models read of them within the limit of tokens.
    """

    ids_a: list[list[int]]
    ids_b: list[list[int]]
    positions_a: list[Tensor]
    positions_b: list[Tensor]
    method: Literal["ids", "spans"]
    tokens: int
    share_a: float
    share_b: float
    same_span: float
    cut: int

    def to_mapping(self) -> dict[str, Any]:
        """Return what a reader must know of it, as JSON values."""
        facts = ("method", "tokens", "share_a", "share_b", "same_span", "cut")
        return {name: getattr(self, name) for name in facts}


def align(
    model_a: SentenceTransformer,
    model_b: SentenceTransformer,
    texts: Sequence[str],
    *,
    max_tokens: int | None = None,
) -> Alignment:
    """Tokenise texts with both models and say which tokens are compared.

    Ids are compared text by text. If all are equal, so are the tokens, special ones included. If not, a token of one
    model is compared with the token of the other that ends at the same character of the text: there, both have read
    the same of it. A token that holds only part of the bytes of the character it ends in has not read it; the one that
    completes it has. Tokens that begin at different characters are compared as well, a whole word with its last piece;
    ``same_span`` says how many do not. Special tokens stand for no character and are left out.

    Args:
        model_a: One model.
        model_b: The other one.
        texts: m texts, taken as plain text.
        max_tokens: Longer texts are cut; by default to the shorter ``max_seq_length`` of the two. Where tokens differ,
            a text that one model would cut is cut for both after the last character at which both end a token: under
            attention that looks ahead, and pooled, they would otherwise have read different texts.

    Raises:
        InputError: for unusable texts, tokens that differ without both tokenizers telling the characters they stand
            for, or too few tokens in common.
    """
    models = (model_a, model_b)
    if max_tokens is None:
        max_tokens = min((m.max_seq_length for m in models if m.max_seq_length is not None), default=None)
    ids_a, ids_b = (tokenise(model, texts, max_tokens=max_tokens) for model in models)
    if ids_a == ids_b:
        every = [torch.arange(len(row)) for row in ids_a]
        return Alignment(ids_a, ids_b, every, every, "ids", sum(map(len, ids_a)), 1.0, 1.0, 1.0, 0)
    return _by_span(models, texts, max_tokens)


@dataclass(frozen=True)
class _Read:
    """One text as one tokenizer reads it: ids, and (begin, end, position) of each token that stands for characters."""

    ids: list[int]
    spans: list[tuple[int, int, int]]

    def ends(self) -> dict[int, tuple[int, int]]:
        """Return begin and position of the token that has read the text up to each character, and no further.

        A token of which the next one overlaps, as those do that share the bytes of a character, has not read its last.
        """
        following = [*(begin for begin, _, _ in self.spans[1:]), sys.maxsize]
        return {
            end: (begin, position)
            for (begin, end, position), next_begin in zip(self.spans, following, strict=False)
            if next_begin >= end
        }


def _by_span(models: Sequence[SentenceTransformer], texts: Sequence[str], max_tokens: int | None) -> Alignment:
    _check_tokenizers(models)
    texts = list(texts)
    reads = [_read(model.tokenizer, texts, max_tokens) for model in models]
    cut = _cut(models, texts, reads, max_tokens)
    positions: tuple[list[Tensor], list[Tensor]] = ([], [])
    tokens = same = 0
    for number, text in enumerate(texts):
        ends = [read[number].ends() for read in reads]
        common = sorted(ends[0].keys() & ends[1].keys())
        if not common:
            within = "" if max_tokens is None else f" within {max_tokens} tokens"
            raise InputError(
                f"texts[{number}]: expected both models to end a token at the same character{within}, got no such "
                "character"
            )
        for side in range(2):
            positions[side].append(torch.tensor([ends[side][end][1] for end in common]))
        tokens += len(common)
        same += sum(
            len({end - len(text[ends[side][end][0] : end].lstrip()) for side in range(2)}) == 1 for end in common
        )
    counts = [sum(len(one.spans) for one in read) for read in reads]
    if tokens < LEAST_SHARE * min(counts):
        raise InputError(
            f"models: expected at least {LEAST_SHARE:.0%} of {min(counts)} tokens to end at the same character in both "
            f"models, got {tokens}; these tokenizers cannot be aligned on these texts"
        )
    ids_a, ids_b = ([one.ids for one in read] for read in reads)
    shares = [tokens / count for count in counts]
    return Alignment(ids_a, ids_b, *positions, "spans", tokens, shares[0], shares[1], same / tokens, cut)


def _check_tokenizers(models: Sequence[SentenceTransformer]) -> None:
    for model, name in zip(models, "ab", strict=True):
        if not getattr(model.tokenizer, "is_fast", False):
            raise InputError(
                f"model_{name}: expected a fast tokenizer, got {type(model.tokenizer).__name__}; the models' tokens "
                "differ, and only a fast one tells which characters they stand for"
            )


def _read(tokenizer: Any, texts: Sequence[str], max_tokens: int | None) -> list[_Read]:
    limit = {} if max_tokens is None else {"truncation": True, "max_length": max_tokens}
    found = tokenizer(
        list(texts),
        padding=False,
        verbose=False,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        **limit,
    )
    return [
        _Read(
            list(ids),
            [
                (begin, end, position)
                for position, ((begin, end), special) in enumerate(zip(offsets, specials, strict=True))
                # At 0 ends what a tokenizer puts before the text to mark the beginning of a word.
                if end and not special
            ],
        )
        for ids, offsets, specials in zip(
            found["input_ids"], found["offset_mapping"], found["special_tokens_mask"], strict=True
        )
    ]


def _cut(
    models: Sequence[SentenceTransformer], texts: list[str], reads: list[list[_Read]], max_tokens: int | None
) -> int:
    """Cut texts that a tokenizer did not read to the end, in place, and return how many there are."""
    if max_tokens is None:
        return 0
    full = [n for n in range(len(texts)) if any(len(read[n].ids) >= max_tokens for read in reads)]
    cut = 0
    for number in full:
        ends = [read[number].ends() for read in reads]
        last = max(ends[0].keys() & ends[1].keys(), default=0)
        if not texts[number][last:].strip():
            continue  # as long as the limit, not longer
        if any(model.tokenizer.truncation_side != "right" for model in models):
            raise InputError(
                f"texts[{number}]: expected at most {max_tokens} tokens, or tokenizers that cut a text at its end, "
                "where tokens differ"
            )
        texts[number] = texts[number][:last]
        for model, read in zip(models, reads, strict=True):
            read[number] = _read(model.tokenizer, [texts[number]], max_tokens)[0]
        cut += 1
    return cut
