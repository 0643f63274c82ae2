"""LoRA adapters on a base LLM, merged into plain weights and compared with what they were before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from st_reasoning.backbone.sources import Source, adapter_base, has_tokenizer, load_causal_lm, loading
from st_reasoning.errors import ConversionError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Relative distance of final states. Merging adds a product of two small matrices to a large one and rounds once more
# per weight; measured on tiny and on 135M models in float32: below 1e-5.
MERGED_TOLERANCE = {"float32": 1e-3, "float16": 3e-2, "bfloat16": 1e-1}


def load_merged(source: Source, *, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the base that an adapter names, merge the adapter, and prove that nothing was lost.

    Args:
        source: A folder or hub name with ``adapter_config.json``.
        dtype: Name of a torch dtype.

    Returns:
        The merged causal LLM, and the adapter's tokenizer, or else its base's.

    Raises:
        InputError: if adapter or base cannot be loaded.
        ConversionError: if the adapter does not reach the model, or merging changes what the model computes.
    """
    from peft import PeftModel
    from transformers import AutoTokenizer

    base_name = adapter_base(source)
    base, tokenizer = load_causal_lm(base_name, dtype=dtype)
    own_tokenizer = has_tokenizer(source)
    with loading(source):
        adapted = PeftModel.from_pretrained(base, source.location)
        if own_tokenizer:
            # With a config, or it looks for the one that an adapter does not have.
            tokenizer = AutoTokenizer.from_pretrained(source.location, config=base.config)
    adapted.eval()
    with adapted.disable_adapter():
        before = final_states(adapted)
    wanted = final_states(adapted)
    if distance(before, wanted) == 0:
        raise ConversionError(
            f"the adapter {source.name} changes nothing in {base_name}: its weights are zero, or their names do not "
            "match the model's"
        )
    return merged(adapted, f"the adapter {source.name}", dtype=dtype), tokenizer


def merged(adapted: Any, name: str, *, dtype: str) -> Any:
    """Return the causal LLM inside a peft model, its added weights merged, and prove that it computes the same.

    Raises:
        ConversionError: naming what was merged, if final states differ by more than rounding.
    """
    adapted.eval()
    wanted = final_states(adapted)
    model = adapted.merge_and_unload(safe_merge=True)
    gap = distance(wanted, final_states(model))
    # NaN is no number within any tolerance.
    if not gap <= MERGED_TOLERANCE[dtype]:
        raise ConversionError(f"merging {name} changes final states by {gap:.1e} of their size")
    return model


def final_states(model: Any) -> Tensor:
    """Return the final states of a fixed random text, [tokens, d]."""
    import torch

    vocabulary = model.get_input_embeddings().num_embeddings
    ids = torch.randint(vocabulary // 4, vocabulary, (1, 32), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = model(input_ids=ids.to(model.device), output_hidden_states=True, use_cache=False)
    states: Tensor = found.hidden_states[-1][0].double().cpu()
    return states


def distance(a: Tensor, b: Tensor) -> float:
    """Return the distance of two arrays relative to the size of the first."""
    return float((a - b).norm() / a.norm().clamp(min=1e-30))
