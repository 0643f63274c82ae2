"""A small llama from scratch: next-token prediction on the corpus, through TRL's trainer."""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from st_reasoning.backbone import load_causal_lm, save_causal_lm
from st_reasoning.checkpoints import Checkpoints, step_of
from st_reasoning.config import versions
from st_reasoning.errors import ConversionError, InputError, MissingExtraError
from st_reasoning.files import content_hash, folder_hash, new_folder, read_json, write_json
from st_reasoning.micro.corpus import Document, Part, documents
from st_reasoning.micro.tokenizer import train_tokenizer
from st_reasoning.variants import VARIANT_RECORD
from st_reasoning.variants.saving import trained_on, trainer_arguments


@dataclass(frozen=True)
class Shape:
    """The architecture: llama, embeddings and head tied.

    Attributes:
        vocabulary: Tokens.
        width: Of the hidden states.
        layers: How many.
        heads: Of attention.
        key_value_heads: Groups of them that share keys and values.
        inner_width: Of the feed-forward part.
        longest: Longest text, in tokens.
    """

    vocabulary: int = 1024
    width: int = 128
    layers: int = 5
    heads: int = 4
    key_value_heads: int = 2
    inner_width: int = 288
    longest: int = 512


@dataclass(frozen=True)
class BaseRecipe:
    """The pretraining.

    Attributes:
        corpus: The families, see :class:`Part`.
        shape: The architecture, unless the training goes on from a model.
        data_seed: Seed of the corpus.
        seed: Seed of the weights and of the order.
        block: Tokens in a row of a batch: whole documents, one after another, each with its end.
        batch_size: Rows per optimiser step.
        epochs: Passes over the corpus.
        learning_rate: Peak learning rate of AdamW; it falls as a cosine after a warm-up.
        warmup_steps: Steps until the peak.
        save_every: Steps between checkpoints; 0 for none.
    """

    corpus: Mapping[str, Part]
    shape: Shape = field(default_factory=Shape)
    data_seed: int = 0
    seed: int = 0
    block: int = 256
    batch_size: int = 16
    epochs: float = 1.0
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    save_every: int = 0

    def __post_init__(self) -> None:
        for name in ("block", "batch_size", "epochs", "learning_rate"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        if self.block > self.shape.longest:
            raise InputError(f"block must be at most shape.longest ({self.shape.longest}), got {self.block}")


def pretrain(recipe: BaseRecipe, output: Path, *, start: Path | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Train tokenizer and model from scratch, or go on from a model, and write an ordinary causal-LM folder.

    With ``save_every`` in the recipe, a run that was killed goes on from ``OUTPUT.checkpoints``.

    Args:
        recipe: What to train on and how.
        output: The folder to write; it appears complete or not at all.
        start: The folder of a model that was written here before, for a further phase on another corpus.
        overwrite: Whether to replace what is there, and checkpoints of another run.

    Returns:
        What was recorded beside the weights: recipe, corpus, loss by step, time; and the same of ``earlier`` phases.

    Raises:
        InputError: if a family is unknown or yields too few documents.
        MissingExtraError: without TRL or reasoning-gym.
        ConversionError: if the loss is not finite.
    """
    if importlib.util.find_spec("trl") is None:
        raise MissingExtraError("trl", "variants", "pretraining")
    from transformers import set_seed

    corpus = documents(recipe.corpus, seed=recipe.data_seed)
    set_seed(recipe.seed)
    if start is None:
        texts = [document.text for document in corpus]
        tokenizer = train_tokenizer(texts, vocabulary=recipe.shape.vocabulary, longest=recipe.shape.longest)
        model, earlier = build_model(recipe.shape, tokenizer), []
    else:
        model, tokenizer = load_causal_lm(str(start))
        before = read_json(start / VARIANT_RECORD)
        earlier = [*before["earlier"], {name: before[name] for name in ("recipe", "data", "losses", "seconds")}]
    rows = packed(encoded(tokenizer, corpus), recipe.block)
    texts_hash = content_hash([document.text for document in corpus])
    decides = content_hash([asdict(recipe), texts_hash, start and folder_hash(start), versions()])
    checkpoints = Checkpoints(output.with_name(f"{output.name}.checkpoints"), decides)
    latest = None
    if recipe.save_every:
        checkpoints.claim(overwrite=overwrite)
        latest = checkpoints.latest()
    trainer = _build_trainer(recipe, model, tokenizer, rows, checkpoints)
    began = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(latest) if latest else None)
    seconds = time.perf_counter() - began
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    if not all(math.isfinite(loss) for loss in losses):
        raise ConversionError(f"pretraining gave no finite loss: {losses}")
    record = {
        "schema": 1,
        "base": None,
        "method": "pretraining",
        "recipe": asdict(recipe),
        "parameters": int(model.num_parameters()),
        "data": {
            "documents": len(corpus),
            "tokens": sum(map(len, rows)),
            "hash": texts_hash,
        },
        "losses": losses,
        "earlier": earlier,
        "seconds": round(seconds, 1),
        "device": trained_on(model),
        "resumed_at": step_of(latest) if latest else None,
        "versions": versions(),
    }
    with new_folder(output, overwrite=overwrite) as scratch:
        save_causal_lm(trainer.model, tokenizer, scratch)
        write_json(scratch / VARIANT_RECORD, record)
    if recipe.save_every:  # without, what has that name is not this training's
        checkpoints.remove()
    return record


def encoded(tokenizer: Any, corpus: Iterable[Document]) -> list[list[int]]:
    """Return the tokens of each document, its end included."""
    ids = tokenizer([document.text for document in corpus], truncation=False)["input_ids"]
    return [[*row, tokenizer.eos_token_id] for row in ids]


def packed(rows: Iterable[Sequence[int]], block: int) -> list[list[int]]:
    """Join whole documents, in order, into rows of at most ``block`` tokens; longer documents are left out."""
    joined: list[list[int]] = []
    for row in rows:
        if len(row) > block:
            continue
        if not joined or len(joined[-1]) + len(row) > block:
            joined.append([])
        joined[-1] += row
    return joined


def build_model(shape: Shape, tokenizer: Any) -> Any:
    """Return the model with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.inner_width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_value_heads,
            max_position_embeddings=shape.longest,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _build_trainer(
    recipe: BaseRecipe, model: Any, tokenizer: Any, rows: list[list[int]], checkpoints: Checkpoints
) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        per_device_train_batch_size=recipe.batch_size,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=recipe.warmup_steps,
        weight_decay=0.01,
        max_length=None,
        activation_checkpointing=False,
        **trainer_arguments(recipe, checkpoints),
    )
    return SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict({"input_ids": rows}),
        processing_class=tokenizer,
        callbacks=[checkpoints.marker()],
    )
