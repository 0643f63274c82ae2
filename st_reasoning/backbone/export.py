"""What is written beside the weights, so that the folder means the same in every sentence-transformers since 5.2.

The folder layout of sentence-transformers 5 says less than that of version 6, and version 6 reads it exactly as we want
it read: one module after the other, plain text through the transformer's ``forward``, never through a chat template.

One difference remains: version 5 strips white space from a prompt when it counts the tokens to leave out. Under an
instruction template that ends in a line break it pools one token more (measured with 5.2.0 on a tiny random model:
cosines of 0.84 to 0.94; texts without a prompt agree exactly).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from st_reasoning.files import read_json, write_json, write_text

# Import paths that sentence-transformers 5 has and 6 keeps.
PORTABLE = "sentence_transformers.models."
DENSE = ("in_features", "out_features", "bias", "activation_function")
LEGACY_POOLING = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def make_portable(folder: Path, *, max_seq_length: int, implementation: str) -> None:
    """Rewrite the module files of a saved SentenceTransformer in the layout of version 5.

    Args:
        folder: A folder that sentence-transformers 6 has just written: transformer, pooling and what follows.
        max_seq_length: Longest input in tokens.
        implementation: The attention implementation that was proven. Anything but SDPA, the default, is written down:
            some architectures are bidirectional under eager attention only, and a reload must not fall back.
    """
    modules = read_json(folder / "modules.json")
    for module in modules:
        module["type"] = PORTABLE + module["type"].rsplit(".", 1)[-1]
        if module["type"].endswith(".Pooling"):
            _rewrite_pooling(folder / module["path"] / "config.json")
        if module["type"].endswith(".Dense"):
            config = read_json(folder / module["path"] / "config.json")
            write_json(folder / module["path"] / "config.json", {key: config[key] for key in DENSE})
    write_json(folder / "modules.json", modules)
    transformer: dict[str, Any] = {"max_seq_length": max_seq_length, "do_lower_case": False}
    if implementation != "sdpa":
        transformer["model_args"] = {"attn_implementation": implementation}
    write_json(folder / "sentence_bert_config.json", transformer)


def _rewrite_pooling(path: Path) -> None:
    config = read_json(path)
    mode = config["pooling_mode"]
    modes = {mode} if isinstance(mode, str) else set(mode)
    write_json(
        path,
        {
            "word_embedding_dimension": config["embedding_dimension"],
            **{legacy: name in modes for name, legacy in LEGACY_POOLING.items()},
            "include_prompt": config["include_prompt"],
        },
    )


def write_card(folder: Path, record: dict[str, Any], prompts: Mapping[str, str | None]) -> None:
    """Write the model card: what the embedder was made from, how, what was proven, and how to use it."""
    attention = record["attention"]
    proven = "; ".join(f"{p['batch']} batch of {p['length']} tokens: {p['attention']}" for p in attention["probes"])
    base = Path(record["backbone"]).name
    metadata = ["library_name: sentence-transformers", "pipeline_tag: sentence-similarity"]
    # The hub takes only its own names here; a path on this disk would be refused and would tell about the disk.
    if record["source"] == "hub":
        metadata.append(f"base_model: {record['backbone']}")
    text = f"""---
{chr(10).join(metadata)}
tags:
- sentence-transformers
- st-reasoning
---
# Embedder from {base}

| | |
|---|---|
| backbone | {base} ({record["architecture"]}) |
| attention | {attention["attention"]}, under {attention["implementation"]} |
| proven by running it | {proven} |
| pooling | {record["pooling"]}, without the prompt; then L2 normalisation |
| dimension | {record["dimension"]} |
| longest input | {record["max_seq_length"]} tokens |
| instruction template | `{record["instruction_template"]!r}`, on queries only |
| default query prompt | `{prompts.get("query") or ""!r}` |
| weights | {record["dtype"]}, safetensors |

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("this folder")
queries = model.encode_query(["How many apples are 3 apples and 4 apples?"])
documents = model.encode_document(["3 + 4 = 7"])
print(model.similarity(queries, documents))
```

Made with {", ".join(f"{name} {version}" for name, version in record["versions"].items())}.
"""
    write_text(folder / "README.md", text)
