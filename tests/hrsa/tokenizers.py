"""Tokenizers that really differ, trained on the spot, and tiny models that read by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

TEXTS = [
    "How many apples does she have? First add the apples to the pears: 3 + 4 = 7.",
    "Then subtract the 2 that he ate: 7 - 2 = 5.\n#### 5",
    "  two  spaces\ttab\n\n\nthree line breaks, and a naïve café in Ångström's town  ",
    "数学の問題を解く, Сколько яблок осталось? \N{PARTY POPPER}\N{PARTY POPPER} done",
    "The sum of two numbers is the number that one gets by counting on from the first as far as the second.",
    "x",
]


def bpe(vocabulary: int, *, trim_offsets: bool | None = None) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer; trimmed, its offsets leave out white space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if trim_offsets is not None:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Often enough that pieces of words in other scripts, across the bytes of a character, are merged too.
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")


def wordpiece(vocabulary: int = 150) -> PreTrainedTokenizerFast:
    """Return a tokenizer as BERT's: lower case, no accents, unknown words, [CLS] and [SEP]."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def unigram(vocabulary: int = 160) -> PreTrainedTokenizerFast:
    """Return a tokenizer as T5's: NFKC, "▁" before each word, </s> at the end."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")


def every(characters: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer that ends a token at every so many characters, whatever they are."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.FixedLength(characters)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<unk>", unk_token="<unk>")


def reader(
    folder: Path,
    tokenizer: Any,
    *,
    seed: int = 0,
    width: int = 32,
    layers: int = 2,
    pooling: Any = "mean",
    causal: bool = True,
) -> SentenceTransformer:
    """Return a random llama that reads by a tokenizer; ``pooling=None`` for none."""
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=256,
        initializer_range=0.2,
    )
    LlamaModel(config).save_pretrained(folder)
    transformer = Transformer(str(folder))
    transformer.model.config.is_causal = causal
    modules = [transformer] if pooling is None else [transformer, Pooling(width, pooling, include_prompt=False)]
    return SentenceTransformer(modules=modules, device="cpu")
