"""What stands between stored embeddings and mine_hard_negatives: which documents a query must not be given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from st_reasoning.training.embeddings import Embeddings, StoredEmbeddings

if TYPE_CHECKING:
    import torch


def text_key(text: str) -> str:
    """Return what texts share that differ in white space and case only."""
    return " ".join(text.split()).casefold()


def repeats(pairs: Sequence[tuple[str, str]]) -> dict[str, set[str]]:
    """Return for each query the keys of what is no negative of it: itself and all its positives."""
    keys = {query: {text_key(query)} for query, _ in pairs}
    for query, positive in pairs:
        keys[query].add(text_key(positive))
    return keys


class Miner:
    """What mine_hard_negatives asks of a SentenceTransformer.

    It embeds from the store, and gives a document that repeats a query, or a positive of it, no similarity to that
    query: mine_hard_negatives itself knows a positive by its exact text, and the query not at all.
    """

    def __init__(self, stored: StoredEmbeddings) -> None:
        self.stored = stored
        self.model = stored.embedder.model
        self.device = self.model.device
        self.texts: list[str] = []
        self.documents: Embeddings | None = None
        self.on_device: torch.Tensor | None = None
        self.by_key: dict[str, list[int]] = {}
        self.keys: dict[str, set[str]] = {}
        self.repeated: list[list[int]] = []
        self.next = 0

    def start(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Take the pairs of query and positive that are searched for next."""
        self.keys = repeats(pairs)

    def encode_document(self, texts: list[str], **_: Any) -> Embeddings:
        """Embed the corpus; once, though it is asked for with every instruction."""
        import torch

        if self.documents is None or texts != self.texts:
            self.texts, self.documents = texts, self.stored.documents(texts)
            self.on_device = torch.from_numpy(self.documents).to(self.device)
            self.by_key = {}
            for index, text in enumerate(texts):
                self.by_key.setdefault(text_key(text), []).append(index)
        return self.documents

    def encode_query(self, texts: list[str], *, prompt: str | None, **_: Any) -> Embeddings:
        """Embed queries, each of them once; they are compared in this order."""
        self.repeated = [[i for key in self.keys[text] for i in self.by_key.get(key, [])] for text in texts]
        self.next = 0
        return self.stored.queries(texts, prompt)

    def similarity(self, queries: Embeddings, _documents: torch.Tensor) -> torch.Tensor:
        """Return the similarities of the next queries to all documents, [q, n]; minus infinity where one repeats."""
        import torch

        assert self.on_device is not None  # the corpus is embedded first
        scores = self.model.similarity(torch.from_numpy(queries).to(self.device), self.on_device)
        repeated = self.repeated[self.next : self.next + len(queries)]
        self.next += len(queries)
        rows = [row for row, columns in enumerate(repeated) for _ in columns]
        scores[rows, [column for columns in repeated for column in columns]] = -torch.inf
        return scores

    def similarity_pairwise(self, queries: Embeddings, documents: Any) -> torch.Tensor:
        """Return the similarity of each query to its document, [q]."""
        return self.model.similarity_pairwise(queries, documents)
