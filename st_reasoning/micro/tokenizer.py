"""The micro models' tokenizer: byte-level BPE with a small vocabulary, trained on their own corpus."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

END, PAD = "<|end|>", "<|pad|>"

# A digit is a token, for sums are learnt digit by digit; signs take the spaces around them along, which shortens
# formulas; a word has the space before it.
PIECES = r"\d| ?[+\-*/=#]+ ?| ?[^\s\d+\-*/=#]+|\s"


def train_tokenizer(texts: Iterable[str], *, vocabulary: int, longest: int) -> Any:
    """Train a tokenizer that any text goes through and comes back from unchanged.

    Args:
        texts: What it is trained on.
        vocabulary: Tokens in all, with the 256 bytes, the end of a text and padding.
        longest: Longest text that the model reads, in tokens.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=longest,
        clean_up_tokenization_spaces=False,
    )
