"""Which families of causal language models become bidirectional, and how: every one built tiny and probed.

``python -m tests.backbone.architectures`` writes the table to st_reasoning/backbone/ARCHITECTURES.md.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from transformers import AutoConfig, AutoModel

from st_reasoning.attention import AttentionReport, probe_transformer
from st_reasoning.errors import ConversionError

DOCUMENT = Path(__file__).parents[2] / "st_reasoning" / "backbone" / "ARCHITECTURES.md"
COMMAND = "python -m tests.backbone.architectures"

Verdict = Literal["bidirectional", "eager only", "partly", "refused"]


@dataclass(frozen=True)
class Family:
    """What is expected of a family, and the few values besides ``SIZES`` that make it small.

    Attributes:
        verdict: What :func:`classify` must find.
        causal: Layers that stay causal by themselves.
        note: What those layers are, or what else a reader should know.
        values: Config values of this family alone.
    """

    verdict: Verdict = "bidirectional"
    causal: tuple[int, ...] = ()
    note: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """What was found: one line of the table.

    Attributes:
        family: ``model_type`` of the config.
        architecture: Class of the transformer.
        verdict: See the head of the document.
        implementation: The attention implementation that was accepted; empty if none was.
        causal: Layers that stay causal by themselves, of a family that is accepted in part.
        layers: How many layers were looked at.
        reason: Why the verdict is not plainly bidirectional, as seen.
    """

    family: str
    architecture: str
    verdict: Verdict
    implementation: str
    causal: tuple[int, ...]
    layers: int
    reason: str


# What the families call their sizes, by the value all of them get; a config is given the names that it has.
SIZES: dict[float, str] = {
    600: "vocab_size",
    256: "max_position_embeddings n_positions n_ctx max_seq_len",
    48: "intermediate_size ffn_dim n_inner dff ffn_hidden_size shared_intermediate_size",
    32: "hidden_size n_embd d_model word_embed_proj_dim",
    16: "sliding_window moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size "
    "q_lora_rank kv_lora_rank",
    8: "head_dim qk_nope_head_dim qk_rope_head_dim v_head_dim linear_key_head_dim linear_value_head_dim",
    4: "num_hidden_layers n_layer num_layers n_layers "
    "num_attention_heads n_head n_heads num_heads attention_heads "
    "num_experts num_local_experts n_routed_experts rotary_dim linear_num_value_heads "
    "mamba_d_state mamba_d_conv state_size conv_kernel linear_conv_kernel_dim",
    2: "eos_token_id num_key_value_heads num_experts_per_tok mamba_expand linear_num_key_heads",
    1: "bos_token_id n_group topk_group",
    0: "pad_token_id",
    # Ten times the default, so that attention is far from uniform and a wrong mask shows.
    0.2: "initializer_range init_std",
}
TINY = {name: value for value, names in SIZES.items() for name in names.split()}

MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": "auto", "mamba_n_groups": 1, "mamba_chunk_size": 16}
LATENT = {"num_key_value_heads": 4}
EXPERTS_LATER = {"n_shared_experts": 1, "first_k_dense_replace": 1}
LINEAR_THEN_FULL = {"layer_types": ["linear_attention", "full_attention"] * 2}
CONVOLUTION_THEN_FULL = {"layer_types": ["conv", "full_attention"] * 2}
STATE_SPACE = "state space layers"
LINEAR = "linear attention layers"

FAMILIES: dict[str, Family] = {
    "afmoe": Family(),
    "apertus": Family(),
    "arcee": Family(),
    "bamba": Family("partly", causal=(0, 2), note=STATE_SPACE, values={**MAMBA2, "attn_layer_indices": [1, 3]}),
    "biogpt": Family(),
    "bitnet": Family(),
    "bloom": Family("eager only"),
    "codegen": Family("eager only"),
    "cohere": Family(),
    "cohere2": Family(),
    "ctrl": Family(),
    "cwm": Family(),
    "deepseek_v2": Family(values={**LATENT, **EXPERTS_LATER}),
    "deepseek_v3": Family(values={**LATENT, **EXPERTS_LATER, "qk_head_dim": 16}),
    "diffllama": Family(),
    "doge": Family(),
    "ernie4_5": Family(),
    "ernie4_5_moe": Family(),
    "exaone4": Family(),
    "exaone_moe": Family(),
    "falcon": Family(),
    "falcon_h1": Family(
        note="each layer has a state space part beside its attention, and that part stays causal",
        values={**MAMBA2, "mamba_d_head": 8, "mamba_d_ssm": 64},
    ),
    "falcon_mamba": Family("refused", note=STATE_SPACE),
    "flex_olmo": Family(),
    "gemma": Family(),
    "gemma2": Family("eager only"),
    "gemma3_text": Family(),
    "gemma3n_text": Family(
        values={
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 0,
            "activation_sparsity_pattern": None,
            "vocab_size_per_layer_input": 600,
            "hidden_size_per_layer_input": 8,
            "laurel_rank": 4,
        }
    ),
    "gemma4_text": Family(
        values={
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "vocab_size_per_layer_input": 600,
            "hidden_size_per_layer_input": 8,
        }
    ),
    "glm": Family(),
    "glm4": Family(),
    "glm4_moe": Family(),
    "glm4_moe_lite": Family(values=LATENT),
    "gpt2": Family(),
    "gpt_bigcode": Family(),
    "gpt_neo": Family("refused", values={"attention_types": [[["global", "local"], 2]], "window_size": 16}),
    "gpt_neox": Family(),
    "gpt_neox_japanese": Family("eager only"),
    "gpt_oss": Family("eager only"),
    "gptj": Family("eager only"),
    "granite": Family(),
    "granitemoe": Family(),
    "granitemoehybrid": Family(
        "partly", causal=(0, 2), note=STATE_SPACE, values={**MAMBA2, "layer_types": ["mamba", "attention"] * 2}
    ),
    "granitemoeshared": Family(),
    "helium": Family(),
    "hunyuan_v1_dense": Family(),
    "hunyuan_v1_moe": Family(),
    "jais2": Family(),
    "jamba": Family(
        "partly",
        causal=(0, 2),
        note=STATE_SPACE,
        values={
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
        },
    ),
    "jetmoe": Family(),
    "lfm2": Family(
        "partly",
        causal=(0, 2),
        note="convolutions",
        values={**CONVOLUTION_THEN_FULL, "block_auto_adjust_ff_dim": False},
    ),
    "lfm2_moe": Family(
        "partly", causal=(0, 2), note="convolutions", values={**CONVOLUTION_THEN_FULL, "num_dense_layers": 1}
    ),
    "llama": Family(),
    "llama4_text": Family(
        "partly",
        causal=(0, 1, 2),
        note="chunked attention",
        values={"intermediate_size_mlp": 48, "attention_chunk_size": 16, "layer_types": None},
    ),
    "longcat_flash": Family(values={**LATENT, "num_layers": 2, "zero_expert_num": 2, "moe_topk": 2}),
    "mamba": Family("refused", note=STATE_SPACE, values={"time_step_rank": 4}),
    "mamba2": Family(
        "refused", note=STATE_SPACE, values={"num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 16}
    ),
    "minicpm3": Family(values=LATENT),
    "minimax": Family("partly", causal=(1, 3), note=LINEAR),
    "minimax_m2": Family(),
    "ministral": Family(),
    "ministral3": Family(),
    "mistral": Family(),
    "mixtral": Family(),
    "modernbert-decoder": Family(),
    "mpt": Family("refused"),
    "nanochat": Family(),
    "nemotron": Family("eager only"),
    "olmo": Family(),
    "olmo2": Family(),
    "olmo3": Family(),
    "olmo_hybrid": Family("partly", causal=(0, 1, 2), note=LINEAR),
    "olmoe": Family(),
    "openai-gpt": Family("refused"),
    "opt": Family(),
    "persimmon": Family(),
    "phi": Family(),
    "phi3": Family(),
    "phimoe": Family(),
    "qwen2": Family(),
    "qwen2_moe": Family(),
    "qwen3": Family(),
    "qwen3_5_moe_text": Family("partly", causal=(0, 2), note=LINEAR, values=LINEAR_THEN_FULL),
    "qwen3_5_text": Family("partly", causal=(0, 2), note=LINEAR, values=LINEAR_THEN_FULL),
    "qwen3_moe": Family(),
    "qwen3_next": Family("partly", causal=(0, 2), note=LINEAR, values=LINEAR_THEN_FULL),
    "recurrent_gemma": Family(
        "partly",
        causal=(0, 2),
        note="recurrent layers",
        values={
            "lru_width": 32,
            "attention_window_size": 16,
            "conv1d_width": 4,
            "block_types": ["recurrent", "attention"],
        },
    ),
    "rwkv": Family("refused", note="linear recurrence", values={"attention_hidden_size": 32, "context_length": 128}),
    "seed_oss": Family(),
    "smollm3": Family(),
    "solar_open": Family(),
    "stablelm": Family("eager only"),
    "starcoder2": Family(),
    "vaultgemma": Family("eager only"),
    "xglm": Family("eager only"),
    "youtu": Family(values=LATENT),
}


def tiny_config(family: str) -> Any:
    """Return the config of a tiny model of this family."""
    default = AutoConfig.for_model(family)
    kind = type(default)
    names = vars(default).keys() | kind.attribute_map.keys()
    common = {name: value for name, value in TINY.items() if name in names}
    return kind(**{**common, **FAMILIES[family].values})


def tiny_model(family: str, *, is_causal: bool, dtype: torch.dtype = torch.float32) -> Any:
    """Return a tiny model with random weights, with the attention implementation that transformers chooses."""
    torch.manual_seed(0)
    model = AutoModel.from_config(tiny_config(family)).to(dtype)
    # After construction, as convert does.
    model.config.is_causal = is_causal
    return model


def look(model: Any) -> tuple[AttentionReport | None, str]:
    """Return what the probe saw if the model passes, in whole or in part; otherwise None and why not."""
    try:
        report = probe_transformer(model)
    except ConversionError as error:
        return None, "crashes: " + str(error).split("tokens: ", 1)[-1]
    if report.attention == "bidirectional" or report.partly:
        return report, ""
    if report.two_embeddings:
        return None, "two embeddings for one text, alone and in a padded batch"
    return None, "stays causal" if report.attention == "causal" else "only some tokens see later ones"


@functools.cache
def classify(family: str, dtype: torch.dtype = torch.float32) -> Row:
    """Build a family, ask for bidirectional attention, and try what convert tries: SDPA where there is one, then eager.

    As in :func:`st_reasoning.convert` with ``partial=True``, the first implementation that passes is taken.
    """
    model = tiny_model(family, is_causal=False, dtype=dtype)
    architecture, chosen = type(model).__name__, model.config._attn_implementation
    reasons = []
    for implementation in dict.fromkeys((chosen, "eager")):
        model.set_attn_implementation(implementation)
        report, reason = look(model)
        if report is None:
            reasons.append(f"{implementation}: {reason}")
            continue
        if implementation == chosen == "eager":
            reasons.append("transformers has no SDPA for it")
        if not report.layers:
            reasons.append("its layers were not looked at one by one")
        whole: Verdict = "bidirectional" if implementation == "sdpa" else "eager only"
        verdict: Verdict = "partly" if report.partly else whole
        layers = report.causal_layers, len(report.layers)
        return Row(family, architecture, verdict, implementation, *layers, "; ".join(reasons))
    return Row(family, architecture, "refused", "", (), 0, "; ".join(reasons))


HEAD = """\
# Architectures

Written by `{command}`; a test compares it with what is found anew.

`st-reasoning convert` proves on every model that its attention is what was asked for. This table says what to expect
of {count} families of causal language models in transformers {version}. Each was built with 2 to 4 layers of width 32
and random weights, in float32 on a CPU, and `is_causal` was set to false in its config. Then its last token was
changed and every earlier token watched: in short texts, and in texts longer than the sliding window where there is one,
unpadded and padded, in the whole model and in each layer by itself. With `is_causal` true, every one of them is causal.

| verdict | meaning | families |
|---|---|---|
| bidirectional | converts, under SDPA attention | {bidirectional} |
| eager only | converts under eager attention, which is slower; the embedder's folder keeps that choice | {eager} |
| partly | a hybrid, some of whose layers stay causal; converts with `partial=True` (`--partial`) only | {partly} |
| refused | does not convert; use it with `attention="causal"` | {refused} |

The causal layers of a hybrid are those of the tiny model (counted from 0); a real one has the same kinds in its own
order, and its own proof names them.

| family | class | verdict | implementation | causal layers | remark |
|---|---|---|---|---|---|
"""


def render(rows: list[Row]) -> str:
    """Return the document."""
    count = {verdict: sum(row.verdict == verdict for row in rows) for verdict in Verdict.__args__}
    head = HEAD.format(
        command=COMMAND,
        count=len(rows),
        version=".".join(transformers.__version__.split(".")[:2]),
        eager=count.pop("eager only"),
        **count,
    )
    return head + "".join(map(_line, rows))


def _line(row: Row) -> str:
    layers = f"{', '.join(map(str, row.causal))} of {row.layers}" if row.verdict == "partly" else ""
    remark = "; ".join(filter(None, (FAMILIES[row.family].note, row.reason)))
    cells = (row.family, f"`{row.architecture}`", row.verdict, row.implementation, layers, remark)
    return f"| {' | '.join(cells)} |\n".replace("|  |", "| |").replace("|  |", "| |")


def main() -> None:
    """Write the document."""
    transformers.logging.set_verbosity_error()
    DOCUMENT.write_text(render([classify(family) for family in FAMILIES]), encoding="utf-8")


if __name__ == "__main__":
    main()
