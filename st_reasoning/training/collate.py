"""Texts to token ids, each query with its own instruction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

from st_reasoning.backbone import format_instruction


@dataclass
class InstructedCollator(SentenceTransformerDataCollator):
    """Collates rows with the columns ``instruction``, ``query``, ``positive``, ``negative_1`` ... ``negative_n``.

    The library's collator knows one prompt a batch. Here each query carries the instruction of its row, and
    ``query_prompt_length`` is [batch]: how many of its tokens are not pooled. Documents carry nothing.

    Attributes:
        template: How an instruction is put before a query, already fitted to the tokenizer.
        tokenizer: Pads what was tokenised under different prompts to one width.
    """

    template: str = "{instruction}"
    tokenizer: Any = field(default=None, repr=False)

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return token ids, masks and prompt lengths by column, queries first."""
        documents = [{k: v for k, v in row.items() if k not in ("instruction", "query")} for row in features]
        prompts = [format_instruction(self.template, row["instruction"]) for row in features]
        queries = self._queries([row["query"] for row in features], prompts)
        return {f"query_{key}": value for key, value in queries.items()} | super().__call__(documents)

    def _queries(self, texts: list[str], prompts: list[str]) -> dict[str, Any]:
        ids: list[list[int]] = [[] for _ in texts]
        lengths = torch.zeros(len(texts), dtype=torch.long)
        limit = {} if self.max_length is None else {"max_length": self.max_length}
        for prompt in dict.fromkeys(prompts):
            rows = [row for row, other in enumerate(prompts) if other == prompt]
            found = self.preprocess_fn([texts[row] for row in rows], prompt=prompt or None, task=None, **limit)
            lengths[rows] = int(torch.as_tensor(found.get("prompt_length", 0)).flatten()[0])
            for row, tokens, mask in zip(rows, found["input_ids"], found["attention_mask"], strict=True):
                ids[row] = tokens[mask.bool()].tolist()
        padded = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt")
        return {**padded, "prompt_length": lengths}

    def maybe_warn_about_column_order(self, column_names: list[str]) -> None:
        """Say nothing: without the query, the library takes the first negative for one in the wrong place."""
