"""The causal LLM inside a model that reads images or sound as well, taken out and compared with what it was inside."""

from __future__ import annotations

from typing import Any

from st_reasoning.backbone.adapters import distance, final_states
from st_reasoning.errors import ConversionError, InputError

# Relative distance of final states: the same weights in the same order of operations.
TOLERANCE = 1e-5


def language_part(model: Any, name: str) -> Any:
    """Return the causal LLM inside a model, sharing its weights; the model itself where there is nothing else in it.

    An embedder made of the whole would carry weights that no text reaches, and need the packages that prepare images.

    Args:
        model: A model of transformers, as AutoModelForCausalLM loads it.
        name: Names the backbone in errors.

    Raises:
        InputError: if transformers has no class for the language part alone.
        ConversionError: if the part computes something else than the whole did on text.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config, inner = model.config, model.config.get_text_config()
    if type(inner) not in AutoModelForCausalLM._model_mapping:
        raise InputError(
            f"{name} is a {config.model_type} model whose language part transformers cannot load alone; "
            "expected a causal language model, or one whose language part is a model of its own"
        )
    if inner is config:
        return model
    decoder = model.get_decoder()
    with torch.device("meta"):  # a shell for weights that are there already
        part: Any = AutoModelForCausalLM.from_config(inner)  # type: ignore[no-untyped-call]
    if type(part.base_model) is not type(decoder):
        raise InputError(
            f"the language part of {name} is a {type(decoder).__name__}; expected a {type(part.base_model).__name__}"
        )
    setattr(part, part.base_model_prefix, decoder)
    part.set_output_embeddings(model.get_output_embeddings())
    part.config, part.generation_config = decoder.config, model.generation_config
    part.eval()
    gap = distance(final_states(model), final_states(part))
    if gap > TOLERANCE:
        raise ConversionError(f"the language part of {name} alone changes final states by {gap:.1e} of their size")
    return part
