"""A contrastive loss plus the next-token loss of the backbone on worked solutions.

The question it answers: can an objective that still asks for reasoning force what reasoning training has taught into
the embeddings? The same transformer runs twice: with the embedder's attention for the contrastive part, and causally
for the other, as the language model that it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState, is_initialized
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import get_world_size
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor

from st_reasoning.attention import probe_transformer
from st_reasoning.errors import ConversionError, InputError
from st_reasoning.training.packing import cut, read_tokens

# How many logits exist at once, 64 MB in float32.
LOGITS = 2**24
# Config keys of architectures whose logits are more than states times the head.
SCALED_LOGITS = ("final_logit_softcapping", "logits_scaling", "logit_scale", "lm_head_multiplier", "dim_model_base")


class HybridLoss(nn.Module):
    """A loss, and ``weight`` times the next-token loss on the column ``positive``, given the column ``query``.

    Both are returned, by name; the trainer adds and logs them.

    A text is the query as it is embedded, prompt included, then ``separator``, then the positive; only tokens of the
    positive are predicted, and their losses averaged over all devices. That part is computed and differentiated during
    the forward pass, in mini-batches; its gradient is added when the contrastive loss is differentiated. It costs the
    memory of one more gradient. FSDP and reentrant gradient checkpointing are not supported.

    MatryoshkaLoss goes inside: ``HybridLoss(model, MatryoshkaLoss(model, PackedInfoNCE(model), dims))``.

    Args:
        model: The embedder, of either attention.
        loss: Any loss over (query, positive, ...) columns.
        weight: Of the next-token loss.
        head: The language-model head of the backbone, [vocabulary, width]; it is not trained. None: the input
            embeddings, where the backbone ties both.
        mini_batch_tokens: See :class:`~st_reasoning.training.loss.PackedInfoNCE`.
        separator: Put between query and positive.

    Raises:
        InputError: if there is no head, or the backbone's logits are more than a product with it.
        ConversionError: if the transformer cannot be made to run causally.
    """

    head: Tensor | None
    # Says to MatryoshkaLoss that it may not wrap the model's forward; see calculate_loss.
    uses_gradient_cache = True

    def __init__(
        self,
        model: SentenceTransformer,
        loss: nn.Module,
        *,
        weight: float = 1.0,
        head: Tensor | None = None,
        mini_batch_tokens: int | None = 4096,
        separator: str = "\n",
    ) -> None:
        super().__init__()
        if weight < 0:
            raise InputError(f"weight must not be negative, got {weight}")
        transformer: Any = model[0].model
        _check_head(transformer, head)
        with causally(transformer):
            report = probe_transformer(transformer)
        if report.attention != "causal":
            raise ConversionError(f"the next-token loss needs causal attention, but {report.describe()}")
        self.model = model
        self.loss = loss
        self.weight = weight
        self.mini_batch_tokens = mini_batch_tokens
        self.separator = separator
        self.register_buffer("head", None if head is None else head.detach().clone(), persistent=False)
        self._special = list(model.tokenizer.all_special_ids)
        self._between = model.tokenizer(separator, add_special_tokens=False)["input_ids"] if separator else []

    @property
    def calculate_loss(self) -> Any:
        """Refuse what MatryoshkaLoss would put here."""
        raise InputError("HybridLoss cannot be inside MatryoshkaLoss; put MatryoshkaLoss inside HybridLoss")

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> dict[str, Tensor]:
        """Return the scalars ``contrastive`` and ``next_token`` (weighted), to be added up."""
        columns = list(sentence_features)
        # First: it reads the features before the other loss can change them, and no DDP forward is under way.
        value, gradients = self.next_token(columns)
        contrastive = self.loss(columns, labels) * 1.0
        if gradients:

            def add(grad_output: Tensor) -> None:
                # Before the contrastive backward: DDP averages over processes what it finds at its end.
                for parameter, gradient in gradients:
                    more = (gradient * (self.weight * grad_output)).to(parameter.dtype)
                    parameter.grad = more if parameter.grad is None else parameter.grad.add_(more)

            contrastive.register_hook(add)
        return {"contrastive": contrastive, "next_token": self.weight * value}

    def next_token(self, columns: list[dict[str, Any]]) -> tuple[Tensor, list[tuple[nn.Parameter, Tensor]]]:
        """Compute the next-token loss and, unless gradients are off, its gradient.

        Args:
            columns: Features of query and positive; further columns are not used.

        Returns:
            The mean loss per predicted token, a scalar, and each parameter that has a gradient with it.
        """
        transformer = _unwrapped(self.model)[0].model
        parameters = [p for p in transformer.parameters() if p.requires_grad and torch.is_grad_enabled()]
        if any(isinstance(p, DTensor) for p in parameters) or any(
            isinstance(m, FullyShardedDataParallel) for m in self.modules()
        ):
            raise InputError("the hybrid objective does not run under FSDP; use plain data parallelism (DDP)")
        head = transformer.get_input_embeddings().weight if self.head is None else self.head
        texts, starts = self._texts(columns, limit=_longest(transformer))
        lengths = [len(text) for text in texts]
        device = columns[0]["input_ids"].device
        count = torch.tensor(max(1, sum(lengths) - sum(starts)), device=device)
        if get_world_size() > 1:
            # Every process averages over the tokens of all; DDP then averages the processes.
            dist.all_reduce(count)
            count = count / get_world_size()
        total = torch.zeros((), device=device)
        sums: list[Tensor | None] = [None] * len(parameters)
        rows = [row for row, text in enumerate(texts) if starts[row] < len(text)]
        order, ranges = cut(lengths, [0] * len(texts), rows, self.mini_batch_tokens)
        for begin, end in ranges:
            chosen = order[begin:end]
            # The backward pass too: gradient checkpointing runs layers again there.
            with causally(transformer), _autocast(device):
                part, found = _part(
                    transformer, head, [texts[r] for r in chosen], [starts[r] for r in chosen], parameters
                )
            total = total + part
            for k, gradient in enumerate(found):
                kept = sums[k]
                sums[k] = gradient if kept is None or gradient is None else kept.add_(gradient)
        gradients = [(p, s / count) for p, s in zip(parameters, sums, strict=True) if s is not None]
        return total / count, gradients

    def _texts(self, columns: list[dict[str, Any]], *, limit: int | None) -> tuple[list[Any], list[int]]:
        """Join queries and positives; return their token ids and where the first predicted token of each is."""
        texts, starts = [], []
        for query, positive in zip(read_tokens(columns[0]), read_tokens(columns[1]), strict=True):
            # What the tokenizer puts at the end of every text, or at its start, would stand in the middle.
            query = query[: len(query) - _run(self._special, query[::-1])]
            positive = positive[_run(self._special, positive) :] if len(query) else positive
            text = np.concatenate([query, np.array(self._between, dtype=query.dtype), positive])[:limit]
            texts.append(text)
            # Nothing precedes a first token, so it cannot be predicted.
            starts.append(min(max(1, len(query) + len(self._between)), len(text)))
        return texts, starts

    def get_config_dict(self) -> dict[str, Any]:
        """Return what the model card says about this loss."""
        return {"loss": type(self.loss).__name__, "weight": self.weight, "separator": self.separator}


@contextlib.contextmanager
def causally(transformer: Any) -> Iterator[None]:
    """Run a transformer with its causal mask, whatever its config says."""
    configs = list({id(c): c for c in (transformer.config, transformer.config.get_text_config())}.values())
    kept = [getattr(config, "is_causal", True) for config in configs]
    try:
        for config in configs:
            config.is_causal = True
        yield
    finally:
        for config, value in zip(configs, kept, strict=True):
            config.is_causal = value


def head_loss(states: Tensor, head: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Sum the cross-entropy of ``states @ head.T``, with few logits in memory at once.

    Args:
        states: [t, d].
        head: [vocabulary, d].
        targets: Token ids, [t].

    Returns:
        The sum, and its gradients by states and head; None where gradients are off or the head is not trained.
    """
    total = torch.zeros((), device=states.device)
    size = max(1, LOGITS // len(head))
    head_gradient: Tensor | None = None
    state_gradients = []
    for chunk, wanted in zip(torch.split(states.detach(), size), torch.split(targets, size), strict=True):
        chunk.requires_grad_(torch.is_grad_enabled())
        part = nn.functional.cross_entropy((chunk @ head.T).float(), wanted, reduction="sum")
        total = total + part.detach()
        if torch.is_grad_enabled():
            by = [chunk, head] if head.requires_grad else [chunk]
            found = torch.autograd.grad(part, by)
            state_gradients.append(found[0])
            if head.requires_grad:
                head_gradient = found[1] if head_gradient is None else head_gradient.add_(found[1])
    return total, torch.cat(state_gradients) if state_gradients else None, head_gradient


def _part(
    transformer: Any, head: Tensor, texts: list[Any], starts: list[int], parameters: list[nn.Parameter]
) -> tuple[Tensor, list[Tensor | None]]:
    """Return the summed loss of one mini-batch and its gradient by each parameter."""
    device = head.device
    ids = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    wanted = torch.zeros_like(ids, dtype=torch.bool)
    for row, (text, start) in enumerate(zip(texts, starts, strict=True)):
        ids[row, : len(text)] = torch.from_numpy(text)
        mask[row, : len(text)] = 1
        wanted[row, start : len(text)] = True
    ids, mask, wanted = ids.to(device), mask.to(device), wanted.to(device)
    # The state before a token predicts it.
    states = transformer(input_ids=ids, attention_mask=mask).last_hidden_state[:, :-1][wanted[:, 1:]]
    total, by_states, by_head = head_loss(states, head, ids[wanted])
    if by_states is None or not parameters:
        return total, []
    found: list[Tensor | None] = list(torch.autograd.grad(states, parameters, by_states, allow_unused=True))
    if by_head is not None:
        # The head is one of the parameters: the input embeddings.
        place = next(k for k, parameter in enumerate(parameters) if parameter is head)
        other = found[place]
        found[place] = by_head if other is None else other + by_head
    return total, found


def _check_head(transformer: Any, head: Tensor | None) -> None:
    config = transformer.config.get_text_config()
    width = transformer.get_input_embeddings().weight.shape[1]
    if head is None and not getattr(config, "tie_word_embeddings", False):
        raise InputError(
            "this backbone has a head of its own, apart from its input embeddings: "
            "pass head=load_causal_lm(BACKBONE)[0].get_output_embeddings().weight"
        )
    if head is not None and (head.dim() != 2 or head.shape[1] != width):
        raise InputError(f"head must be [vocabulary, {width}], got {list(head.shape)}")
    if scaled := [key for key in SCALED_LOGITS if getattr(config, key, None) not in (None, 1, False)]:
        raise InputError(
            f"the next-token loss does not know logits that are changed by {scaled[0]} of {config.model_type}"
        )


def _unwrapped(model: Any) -> Any:
    """Return the SentenceTransformer inside what torch.compile and DDP make of it."""
    model = getattr(model, "_orig_mod", model)
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def _autocast(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return the mixed precision of the run: accelerate gives it to the forward of the whole model only."""
    precision = AcceleratorState().mixed_precision if is_initialized() else "no"
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def _longest(transformer: Any) -> int | None:
    longest: int | None = getattr(transformer.config.get_text_config(), "max_position_embeddings", None)
    return longest


def _run(special: list[int], ids: Any) -> int:
    """Return how many special tokens there are at the start."""
    return int(np.argmin(np.append(np.isin(ids, special), False)))
