"""InfoNCE whose memory follows a budget of tokens, not the batch."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from sentence_transformers.util import all_gather, all_gather_with_grad, get_rank, get_world_size
from torch import Tensor, nn
from torch.nn.functional import normalize

from st_reasoning.backbone.prompts import first_inexact
from st_reasoning.errors import InputError
from st_reasoning.training.packing import Packed, pack

# How many scores exist at once, 16 MB in float32.
SCORES = 2**22


def infonce(
    queries: Tensor,
    documents: Tensor,
    positives: Tensor,
    temperature: float,
    *,
    false_negatives: float | None = None,
    texts: Tensor | None = None,
) -> Tensor:
    """Return -log softmax of the positive's score among all documents, one per query.

    Args:
        queries: Unit vectors, [b, d].
        documents: Unit vectors, [m, d]; negatives of a query are all but its positive.
        positives: Which document is each query's positive, [b].
        temperature: Cosines are divided by it.
        false_negatives: Leave out negatives whose cosine exceeds the positive's by more than this, and negatives with
            the text of the positive (arXiv 2506.05176, section 3.2, where it is 0.1). None: leave out none.
        texts: What tells equal documents, [m]; only with ``false_negatives``.

    Returns:
        Losses, [b].
    """
    cosines = queries @ documents.T
    scores = cosines / temperature
    if false_negatives is not None:
        own = cosines.detach().gather(1, positives[:, None])
        false = cosines.detach() > own + false_negatives
        if texts is not None:
            false |= texts[None] == texts[positives][:, None]
        scores = scores.masked_fill(false.scatter(1, positives[:, None], False), -torch.inf)
    return nn.functional.cross_entropy(scores, positives, reduction="none")


class PackedInfoNCE(CachedLossMixin, nn.Module):
    """InfoNCE over queries, positives and negatives, with gradient caching over mini-batches of like length.

    The columns are query, positive and any number of negatives. Every other document of the batch is a negative of a
    query. Loss and gradients are those of ``MultipleNegativesRankingLoss`` with ``scale = 1 / temperature``, whatever
    the budget; unlike it, each text's own ``prompt_length`` is left out of pooling, so that a batch may mix prompts.

    Where the whole batch fits the budget, each text is embedded once and gradients are not cached. Where the model
    draws no random numbers, texts that repeat within a batch (hard negatives do) are embedded once.

    Args:
        model: The embedder.
        temperature: Cosines are divided by it.
        mini_batch_tokens: Texts times tokens of the longest in one forward pass: memory follows it. None: the whole
            batch at once.
        gather_across_devices: Take the documents of all devices as negatives; batches must be of one size.
        false_negatives: Margin above the positive's cosine from which a negative is left out, see :func:`infonce`.
        prompts: For ``SentenceTransformer.fit``, whose collator knows no prompts: queries that begin with one of these
            texts are pooled without it.
    """

    # Our mini-batches are cut before the mixin sees them; it takes each as it is.
    mini_batch_size = sys.maxsize

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        temperature: float = 0.02,
        mini_batch_tokens: int | None = 4096,
        gather_across_devices: bool = False,
        false_negatives: float | None = None,
        prompts: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise InputError(f"temperature must be positive, got {temperature}")
        if mini_batch_tokens is not None and mini_batch_tokens < 1:
            raise InputError(f"mini_batch_tokens must be at least 1, got {mini_batch_tokens}")
        self.model = model
        self.temperature = temperature
        self.mini_batch_tokens = mini_batch_tokens
        self.gather_across_devices = gather_across_devices
        self.false_negatives = false_negatives
        self.prompts = tuple(prompts)
        self._prompt_ids = [_prompt_ids(model, prompt) for prompt in prompts]

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Return the mean loss of the queries of this device, a scalar; ``labels`` are not used."""
        columns = list(sentence_features)
        if len(columns) < 2:
            raise InputError(f"expected at least the columns query and positive, got {len(columns)} column(s)")
        packed = pack(columns, self.mini_batch_tokens, merge=not _is_random(self.model), prompts=self._prompt_ids)
        packed = _in_step(packed)
        fits = self.mini_batch_tokens is None or packed.cells <= self.mini_batch_tokens
        if fits or not torch.is_grad_enabled():
            return self._forward_once(packed)
        # Each mini-batch is a column of its own to the mixin; what it hands through as labels puts them in order.
        return self.forward_cached(packed.mini_batches, packed)  # type: ignore[arg-type]

    def _forward_once(self, packed: Packed) -> Tensor:
        reps = [self.model(dict(features))["sentence_embedding"] for features in packed.mini_batches]
        if not torch.is_grad_enabled():
            return self.calculate_loss([[rep] for rep in reps], packed)
        # Gradients stop at the embeddings and are handed on, as with caching: MatryoshkaLoss needs with_backward.
        leaves = [rep.detach().requires_grad_() for rep in reps]
        loss = self.calculate_loss([[leaf] for leaf in leaves], packed, with_backward=True)
        # A number of gradient leaf.grad and value zero.
        pairs = [(rep.to(loss.dtype), leaf.grad) for rep, leaf in zip(reps, leaves, strict=True)]
        return loss + torch.stack([((rep - rep.detach()) * grad).sum() for rep, grad in pairs]).sum()

    def calculate_loss(self, reps: list[list[Tensor]], labels: Any = None, *, with_backward: bool = False) -> Tensor:
        """Compute the loss from the embeddings of all mini-batches, [rows, d] each.

        Args:
            reps: Embeddings, one list of one tensor per mini-batch.
            labels: The :class:`Packed` batch that they are the embeddings of.
            with_backward: Put gradients on ``reps`` and return the loss detached.
        """
        found = torch.cat([rep for column in reps for rep in column])
        # In half precision a cosine divided by 0.02 is off by tenths.
        found = found.to(torch.promote_types(found.dtype, torch.float32))
        with torch.autocast(found.device.type, enabled=False):
            embeddings = normalize(found, dim=-1)[labels.places]
            queries, documents = embeddings[0], embeddings[1:].transpose(0, 1).contiguous()
            texts = labels.texts[1:].T.contiguous()
            first = 0
            if self.gather_across_devices and get_world_size() > 1:
                documents = all_gather_with_grad(documents)
                texts = all_gather(texts)
                first = get_rank() * len(queries)
            # Row by row, so that a query's positive is followed by its negatives.
            positives = (first + torch.arange(len(queries), device=found.device)) * documents.shape[1]
            documents, texts = documents.flatten(0, 1), texts.flatten()
            return self._in_chunks(queries, documents, positives, texts, with_backward=with_backward)

    def _in_chunks(
        self, queries: Tensor, documents: Tensor, positives: Tensor, texts: Tensor, *, with_backward: bool
    ) -> Tensor:
        """Average :func:`infonce` over the queries, so many at a time that few scores exist at once."""
        size = max(1, SCORES // len(documents))
        chunks = torch.split(queries, size)
        targets = documents
        if with_backward:
            chunks = tuple(chunk.detach().requires_grad_() for chunk in chunks)
            targets = documents.detach().requires_grad_()
        total = queries.new_zeros(())
        for chunk, own in zip(chunks, torch.split(positives, size), strict=True):
            losses = infonce(chunk, targets, own, self.temperature, false_negatives=self.false_negatives, texts=texts)
            part = losses.sum() / len(queries)
            if with_backward:
                part.backward()  # type: ignore[no-untyped-call]
                part = part.detach()
            total = total + part
        if with_backward:
            # Once for all chunks: across devices, this step is a collective.
            gradient = torch.cat([chunk.grad for chunk in chunks if chunk.grad is not None])
            torch.autograd.backward([queries, documents], [gradient, targets.grad])
        return total

    def get_config_dict(self) -> dict[str, Any]:
        """Return what the model card says about this loss."""
        names = ("temperature", "mini_batch_tokens", "gather_across_devices", "false_negatives", "prompts")
        return {name: getattr(self, name) for name in names}


def _prompt_ids(model: SentenceTransformer, prompt: str) -> Any:
    """Return the token ids a text begins with if it begins with ``prompt``, [tokens]."""
    if not prompt:
        raise InputError("a prompt is empty; expected the text that queries begin with")
    if text := first_inexact(model.tokenizer, prompt):
        raise InputError(f"the prompt {prompt!r} does not end at a token boundary before {text!r}; see fit_template")
    ids = model.tokenizer(prompt)["input_ids"]
    return np.array(ids[:-1] if ids[-1] in model.tokenizer.all_special_ids else ids)


def _is_random(model: nn.Module) -> bool:
    """Tell whether two forward passes of a text may differ: then its repetitions must be embedded apart."""
    return any(
        module.training
        and (
            (isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0)
            # Attention drops out without a module, by a number that transformers keeps under such a name.
            or any(isinstance(v, float) and v > 0 and ("drop" in k or "jitter" in k) for k, v in vars(module).items())
        )
        for module in model.modules()
    )


def _in_step(packed: Packed) -> Packed:
    """Let every process run the model equally often: under FSDP each forward pass is a collective.

    A process with fewer mini-batches repeats its last, the shortest texts; nothing reads those embeddings.
    """
    if get_world_size() == 1:
        return packed
    most = torch.tensor([len(packed.mini_batches), packed.cells], device=packed.places.device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    count, cells = most.tolist()
    more = [packed.mini_batches[-1]] * (count - len(packed.mini_batches))
    return replace(packed, mini_batches=packed.mini_batches + more, cells=cells)
