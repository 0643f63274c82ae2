"""From a recipe and a backbone to a trained embedder on disk."""

from __future__ import annotations

import math
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_reasoning.backbone import convert, fit_template, format_instruction, save_embedder
from st_reasoning.config import to_mapping
from st_reasoning.errors import ConversionError
from st_reasoning.training.data import TrainingData, load_data

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer

    from st_reasoning.training.recipe import TrainingRecipe


def build_trainer(
    recipe: TrainingRecipe,
    model: SentenceTransformer,
    *,
    seed: int,
    data: TrainingData | None = None,
    **arguments: Any,
) -> SentenceTransformerTrainer:
    """Build the SentenceTransformerTrainer that a recipe describes.

    Args:
        recipe: The recipe.
        model: An embedder made by :func:`st_reasoning.convert`.
        seed: Decides order and dropout.
        data: The recipe's data where it is at hand; loaded otherwise.
        **arguments: Override single SentenceTransformerTrainingArguments.
    """
    import torch
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )

    data = data or load_data(recipe)
    # Whatever the model comes from, the prompt must end at a token boundary of its tokenizer.
    template = fit_template(model.tokenizer, recipe.instruction_template)
    # Negatives are shared across devices; asked for on one device, sentence-transformers warns at every step.
    gather = int(os.environ.get("WORLD_SIZE", "1")) > 1
    shared: dict[str, Any] = {"scale": 1 / recipe.temperature, "gather_across_devices": gather}
    loss: torch.nn.Module
    if recipe.mini_batch_size:
        loss = CachedMultipleNegativesRankingLoss(model, mini_batch_size=recipe.mini_batch_size, **shared)
    else:
        loss = MultipleNegativesRankingLoss(model, **shared)
    defaults: dict[str, Any] = {
        # The trainer insists on a folder even when it is told to write no checkpoint.
        "output_dir": tempfile.gettempdir(),
        "save_strategy": "no",
        "per_device_train_batch_size": recipe.batch_size,
        "num_train_epochs": recipe.epochs,
        "learning_rate": recipe.learning_rate,
        "warmup_steps": recipe.warmup if recipe.warmup < 1 else int(recipe.warmup),
        "lr_scheduler_type": recipe.schedule,
        "weight_decay": recipe.weight_decay,
        "bf16": recipe.bf16,
        "seed": seed,
        "data_seed": seed,
        "logging_steps": 1,
        "report_to": "none",
        "dataloader_pin_memory": torch.cuda.is_available(),
        # By data set and column: queries carry their set's instruction, documents nothing.
        "prompts": {d.name: {"query": format_instruction(template, d.instruction)} for d in recipe.data},
    }
    if recipe.gradient_checkpointing:
        defaults["gradient_checkpointing"] = True
    return SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(**{**defaults, **arguments}),
        train_dataset=data.datasets,
        loss=loss,
    )


def train(
    recipe: TrainingRecipe,
    backbone: str,
    output: Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    device: str | None = None,
) -> dict[str, Any]:
    """Convert ``backbone``, train it by ``recipe`` and write the embedder to ``output``.

    Returns:
        What happened, as recorded under ``training`` in the folder's record: recipe, seed, data hash, loss by step,
        examples per second.

    Raises:
        InputError: for a backbone or data that cannot be read; nothing is written.
        ConversionError: if the conversion cannot be proven, or the loss is not finite.
    """
    data = load_data(recipe)
    model = convert(backbone, device=device, **recipe.conversion())
    trainer = build_trainer(recipe, model, seed=seed, data=data)
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if not losses or not all(math.isfinite(float(loss)) for loss in losses):
        raise ConversionError(f"training {backbone} gave no finite loss: {losses}")
    model.eval()
    facts = {
        "backbone": backbone,
        "seed": seed,
        "recipe": to_mapping(recipe),
        "data": {"examples": data.examples, "hash": data.hash},
        "steps": trainer.state.global_step,
        "losses": [float(loss) for loss in losses],
        "seconds": round(seconds, 1),
        "examples_per_second": round(data.examples * recipe.epochs / seconds, 3),
    }
    save_embedder(model, output, overwrite=overwrite, training=facts)
    return facts
