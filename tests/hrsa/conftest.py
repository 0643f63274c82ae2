"""A random three-layer llama with a word tokenizer, made in code: no network, no file that is not ours."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "plus", "minus", "is", "so"]

MakeModel = Callable[..., SentenceTransformer]


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Return a maker of tiny SentenceTransformers; the same seed gives the same weights."""

    def make(
        seed: int = 0,
        *,
        width: int = 32,
        layers: int = 3,
        words: list[str] = WORDS,
        causal: bool | None = None,
        pooling_mode: str = "mean",
    ) -> SentenceTransformer:
        folder: Path = tmp_path_factory.mktemp("llama")
        vocabulary = {word: number for number, word in enumerate(["<pad>", *words])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        # Left padding on purpose: ours must not depend on the tokenizer's side.
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<pad>", padding_side="left"
        ).save_pretrained(folder)
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=64,
            initializer_range=0.2,
        )
        LlamaModel(config).save_pretrained(folder)
        transformer = Transformer(str(folder))
        if causal is not None:
            transformer.model.config.is_causal = causal
        pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode=pooling_mode)
        return SentenceTransformer(modules=[transformer, pooling], device="cpu")

    return make


@pytest.fixture(scope="session")
def tiny(make_model: MakeModel) -> SentenceTransformer:
    return make_model()


@pytest.fixture(scope="session")
def noisy(tiny: SentenceTransformer) -> SentenceTransformer:
    """Return the tiny model with a tenth of noise on every weight."""
    model = copy.deepcopy(tiny)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight += 0.1 * weight.std() * torch.randn(weight.shape, generator=generator)
    return model


@pytest.fixture(scope="session")
def texts() -> list[str]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 16, (40,), generator=generator).tolist()
    return [
        " ".join(WORDS[number] for number in torch.randint(0, len(WORDS), (length,), generator=generator).tolist())
        for length in lengths
    ]
