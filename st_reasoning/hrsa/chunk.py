"""What the activation pass hands to the measures, piece by piece."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Chunk:
    """States of the same tokens of a few whole texts in both models.

    Symbols: n tokens of s texts; L_a, L_b transformer layers and d_a, d_b widths of the two models.

    Attributes:
        a: [L_a + 1, n, d_a], float32.
        b: [L_b + 1, n, d_b], float32.
        sentences: [n], int64: number of the text each token belongs to, non-decreasing.
        types: [n], int64: token id in model a; equal numbers are tokens of the same type.
        pooled_a: [L_a + 1, s, d_a]: mean over each text's tokens, or the embedder's pooling; None if not wanted.
        pooled_b: [L_b + 1, s, d_b], likewise.
        texts: [s], int64: numbers of the texts in this chunk, ascending.
    """

    a: Tensor
    b: Tensor
    sentences: Tensor
    types: Tensor
    pooled_a: Tensor | None
    pooled_b: Tensor | None
    texts: Tensor
