"""What makes one loaded model differ from another: weights, and the settings it works by."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def memory_hash(model: Any) -> str:
    """Return the SHA-256, in hex, of a ``SentenceTransformer``: its state and the settings it works by."""
    import torch

    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    use = {"tokenizer": tokenizer_state(model), "prompts": model.prompts, **settings(model)}
    use["default_prompt_name"] = model.default_prompt_name
    digest.update(json.dumps(use, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def weights_sample(model: Any, *, values: int = 8) -> str:
    """Return a hash of every tensor's name, dtype, shape, and first and last few values.

    It costs milliseconds where the whole state takes seconds, and tells training, merging and casting, which change
    all tensors or nearly all.
    """
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        flat = value.detach().reshape(-1)
        ends = [flat[:values].double().tolist(), flat[-values:].double().tolist()]
        digest.update(f"{key} {value.dtype} {tuple(value.shape)} {ends}\n".encode())
    return digest.hexdigest()


def settings(model: Any) -> dict[str, Any]:
    """Return what besides weights, tokenizer and prompts decides a ``SentenceTransformer``'s embeddings."""
    config = getattr(model.transformers_model, "config", None)
    use = {
        "modules": [(type(module).__qualname__, _settings(module)) for module in model],
        "config": config.to_dict() if config is not None else {},
        "max_seq_length": model.max_seq_length,
        "truncate_dim": model.truncate_dim,
        "similarity": model.similarity_fn_name,
    }
    use["config"].pop("_name_or_path", None)  # where it lay, not what it is
    return use


def tokenizer_state(model: Any) -> str:
    """Return the tokenizer as JSON where it is a fast one; its truncation and padding change with use."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    return backend.to_str() if backend is not None else repr(model.tokenizer)


def _settings(module: Any) -> Any:
    return module.get_config_dict() if hasattr(module, "get_config_dict") else {}
