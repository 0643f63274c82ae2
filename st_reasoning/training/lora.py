"""Training a few added weights (LoRA) instead of all, and merging them into plain weights at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from st_reasoning.attention import verify_attention
from st_reasoning.backbone import conversion_of
from st_reasoning.backbone.adapters import distance
from st_reasoning.errors import ConversionError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from st_reasoning.backbone.lora import LoRA

# Largest distance of embeddings before and after merging, relative to their size: one rounding more per weight.
MERGED_TOLERANCE = {"float32": 5e-5, "float16": 3e-2, "bfloat16": 1e-1}


def has_adapter(model: SentenceTransformer) -> bool:
    """Whether an adapter has been added to ``model`` and not yet merged."""
    return hasattr(model[0].model, "merge_and_unload")


def add_lora(model: SentenceTransformer, lora: LoRA, *, seed: int) -> None:
    """Freeze the transformer inside ``model`` and add low-rank weights beside its linear layers.

    Args:
        model: An embedder made by :func:`st_reasoning.convert`.
        lora: Rank, scaling, dropout and where.
        seed: Decides the initial weights: both arms of a study begin with the same.
    """
    from peft import get_peft_model
    from transformers import set_seed

    transformer: Any = model[0]
    set_seed(seed)
    transformer.model = get_peft_model(transformer.model, lora.configuration("FEATURE_EXTRACTION"))


def merge_lora(model: SentenceTransformer) -> None:
    """Merge the adapter of ``model`` into its weights, and prove that it computes and attends as before.

    Raises:
        ConversionError: if merging changes embeddings or attention.
    """
    if not has_adapter(model):
        return
    transformer: Any = model[0]
    conversion = conversion_of(model)
    model.eval()
    texts = ["One apple and two pears.", "Seven."]
    before = model.encode_query(texts, convert_to_tensor=True).float()
    transformer.model = transformer.model.merge_and_unload(safe_merge=True)
    gap = distance(before, model.encode_query(texts, convert_to_tensor=True).float())
    # NaN is no number within any tolerance.
    if not gap <= MERGED_TOLERANCE[conversion.dtype]:
        raise ConversionError(f"merging LoRA weights changes embeddings by {gap:.1e}")
    transformer.model.requires_grad_(True)
    verify_attention(model, _asked(conversion.attention.attention), partial=conversion.attention.partly)


def _asked(seen: str) -> Any:
    """Return what a conversion was asked for: a hybrid that was accepted is "mixed", and was to be bidirectional."""
    return "bidirectional" if seen == "mixed" else seen
