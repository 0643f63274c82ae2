"""A sentence-transformers folder of a few thousand random parameters, made without a network."""

import string
import tempfile
from pathlib import Path


def save_tiny_embedder(
    folder: Path, *, seed: int = 0, include_prompt: bool = True, default_prompt: str | None = None
) -> Path:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    # One token per character, so that what reaches the tokenizer can be counted by eye.
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<unk>", *string.printable[:95], "\n"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    torch.manual_seed(seed)
    llama = LlamaModel(
        LlamaConfig(
            vocab_size=len(vocabulary), max_position_embeddings=1024,
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        )
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        llama.save_pretrained(scratch)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>").save_pretrained(
            scratch
        )
        modules = [
            Transformer(scratch, max_seq_length=900),
            Pooling(16, "mean", include_prompt=include_prompt),
        ]
        prompts = {"query": default_prompt, "document": default_prompt} if default_prompt else None
        model = SentenceTransformer(
            modules=modules, prompts=prompts, default_prompt_name="document" if default_prompt else None
        )
        model.save(str(folder), create_model_card=False)
    return folder
