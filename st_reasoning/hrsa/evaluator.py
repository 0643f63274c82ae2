"""How far a model has moved from a reference while it is trained."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa import measures
from st_reasoning.hrsa.activations import batches, tokenise
from st_reasoning.hrsa.align import align
from st_reasoning.hrsa.forward import Arm
from st_reasoning.hrsa.settings import Settings
from st_reasoning.hrsa.tokens import sinks_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SCHEMA = 1
SINK_RATIO = Settings.sink_ratio  # as in a panel


class HRSAEvaluator(SentenceEvaluator):
    """HRSA at the final layer, against a reference, at every evaluation of a training.

    The reference is run once, when the evaluator is made, and its final states of the sample are kept on the CPU
    (``sample_tokens`` x width x 4 bytes); the model itself is not. It may therefore be the very model that is about to
    be trained: then the curve starts at 1. Each evaluation costs one forward pass over the sample.

    An evaluation returns ``NAME_linear_cka`` (debiased; the primary metric), ``NAME_knn_overlap``,
    ``NAME_dimension_correlation`` and ``NAME_inverse_row_entropy``: 1 where nothing has changed. The last two need
    equal widths, and the last one tokens enough to determine a rotation; else they are left out. With an output path,
    as the trainer gives one, each evaluation adds a line of JSON to ``NAME_results.jsonl``: these values, their chance
    levels, and how far a few tokens or one dimension dominate.

    It runs on the process that evaluates, by itself: texts are not shared out.

    Args:
        reference: The model to compare with, as it is now.
        texts: Texts in the order of preference: those that come first and fill the sample are used, run as plain text.
        k: Number of neighbours.
        sample_tokens: Tokens of the reference at most, whole texts; neighbours cost its square.
        max_tokens: Longer texts are cut; by default to the reference's ``max_seq_length``. A text that the model under
            training reads in part only is left out.
        batch_tokens: Positions per forward pass, pads included.
        seed: Of the sentences that Procrustes is fitted on.
        cache: Where the reference's states are looked up and kept, see :func:`~st_reasoning.hrsa.forward.lockstep`.
        name: First part of the names of values and file.

    Raises:
        InputError: for unusable texts, or too few tokens for ``k``.
    """

    def __init__(
        self,
        reference: SentenceTransformer,
        texts: Sequence[str],
        *,
        k: int = 10,
        sample_tokens: int = 4096,
        max_tokens: int | None = None,
        batch_tokens: int = 2048,
        seed: int = 0,
        cache: Path | None = None,
        name: str = "hrsa",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        for argument, value in (("k", k), ("sample_tokens", sample_tokens), ("batch_tokens", batch_tokens)):
            if value < 1:
                raise InputError(f"{argument}: expected at least 1, got {value}")
        self.k, self.seed, self.batch_tokens, self.name = k, seed, batch_tokens, name
        limit = max_tokens if max_tokens is not None else reference.max_seq_length
        ids = tokenise(reference, texts, max_tokens=limit)
        # What align() asks of a model, when the model is gone.
        self._reader: Any = SimpleNamespace(tokenizer=reference.tokenizer, max_seq_length=limit)
        total, count = 0, 0
        while count < len(ids) and total + len(ids[count]) <= sample_tokens:
            total += len(ids[count])
            count += 1
        if total <= max(k, 4):
            raise InputError(
                f"texts: expected first texts of more than {max(k, 4)} tokens, and at most sample_tokens = "
                f"{sample_tokens}, got {count} texts of {total} tokens"
            )
        self.texts, self.tokens, self._ids = list(texts[:count]), total, ids[:count]
        self._states = _final_states(Arm.of(reference, batch_tokens=batch_tokens, cache=cache), self._ids)
        self.primary_metric = f"{name}_linear_cka" if name else "linear_cka"

    def __call__(  # type: ignore[override] # the library's trainer gives a float epoch, its signature says int
        self,
        model: SentenceTransformer,
        output_path: str | Path | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        """Compare a model with the reference; see the class.

        Args:
            model: The model to look at.
            output_path: A folder for the file of results.
            epoch: When in the training; -1 outside of one.
            steps: Likewise.

        Raises:
            InputError: if too few tokens are the same in both models.
        """
        x, y, sentences = self._aligned(model)
        found, context = self._compare(x, y, sentences)
        if output_path is not None:
            record = {"schema": SCHEMA, "epoch": epoch, "steps": steps, **found, **context}
            folder = Path(output_path)
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / f"{self.name or 'hrsa'}_results.jsonl").open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({key: _finite(value) for key, value in record.items()}) + "\n")
        metrics: dict[str, float] = self.prefix_name_to_metrics(found, self.name)
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)  # type: ignore[arg-type] # as it is given
        return metrics

    def get_config_dict(self) -> dict[str, Any]:
        """Return what decides the values beside the models."""
        return {"texts": len(self.texts), "tokens": self.tokens, "k": self.k, "seed": self.seed}

    def _aligned(self, model: SentenceTransformer) -> tuple[Tensor, Tensor, Tensor]:
        """Return the final states of the reference and of a model, of the same tokens, and the text of each."""
        limits = [limit for limit in (self._reader.max_seq_length, model.max_seq_length) if limit is not None]
        alignment = align(self._reader, model, self.texts, max_tokens=min(limits, default=None))
        # The reference has read its texts already: one that has to be cut to what the model reads cannot be taken.
        whole = [n for n, ids in enumerate(self._ids) if alignment.ids_a[n] == ids]
        count = sum(len(alignment.positions_a[n]) for n in whole)
        if count <= max(self.k, 4):
            raise InputError(
                f"model: expected more than {max(self.k, 4)} tokens in common with the reference in texts that both "
                f"read as a whole, got {count}; set max_tokens to what the model reads"
            )
        theirs = _final_states(Arm.of(model, batch_tokens=self.batch_tokens), [alignment.ids_b[n] for n in whole])
        x = torch.cat([self._states[n][alignment.positions_a[n]] for n in whole])
        y = torch.cat([states[alignment.positions_b[n]] for n, states in zip(whole, theirs, strict=True)])
        lengths = torch.tensor([len(alignment.positions_a[n]) for n in whole])
        return x, y, torch.repeat_interleave(torch.tensor(whole), lengths)

    def _compare(self, x: Tensor, y: Tensor, sentences: Tensor) -> tuple[dict[str, float], dict[str, float | bool]]:
        """Return the values, and what they are to be read beside."""
        n = len(x)
        found = {
            "linear_cka": measures.linear_cka(x, y, estimator="debiased"),
            "knn_overlap": measures.knn_overlap(x, y, k=self.k)[self.k],
        }
        kept = ~torch.stack([sinks_of(side.norm(dim=1)[None], SINK_RATIO)[0] for side in (x, y)]).any(dim=0)
        enough = int(kept.sum()) >= 4
        context: dict[str, float | bool] = {
            "tokens": n,
            "texts": len(set(sentences.tolist())),
            "k": self.k,
            "knn_overlap_chance": measures.knn_overlap_chance(n, self.k),
            "sink_tokens": n - int(kept.sum()),
            "linear_cka_without_sinks": (
                measures.linear_cka(x[kept], y[kept], estimator="debiased") if enough else math.nan
            ),
            "top_dimension_share": measures.top_dimension_share(y),
            "top_dimension_share_reference": measures.top_dimension_share(x),
        }
        if x.shape[1] == y.shape[1]:
            found["dimension_correlation"] = measures.dimension_correlation(x, y)
            fitted = measures.procrustes(x, y, groups=sentences, seed=self.seed)
            if fitted.determined:
                found["inverse_row_entropy"] = fitted.inverse_row_entropy
            context |= {
                "procrustes_determined": fitted.determined,
                "procrustes_residual": fitted.residual,
                "inverse_row_entropy_chance": measures.inverse_row_entropy_chance(x.shape[1]),
            }
        return found, context


def _final_states(arm: Arm, ids: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the final states of each text, [n, d] each, float32 on the CPU."""
    found: dict[int, Tensor] = {}
    for batch in batches([len(row) for row in ids], arm.batch_tokens):
        last = arm.states([ids[number] for number in batch]).tokens[-1].cpu()
        starts = torch.tensor([0, *(len(ids[number]) for number in batch)]).cumsum(0).tolist()
        for number, start in zip(batch, starts[:-1], strict=True):
            # A view would keep all layers of the batch alive.
            found[number] = last[start : start + len(ids[number])].clone()
    return [found[number] for number in range(len(ids))]


def _finite(value: Any) -> Any:
    """Return None for what JSON has no number for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
