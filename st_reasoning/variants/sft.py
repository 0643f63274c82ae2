"""Supervised fine-tuning of a causal LLM on worked solutions, through TRL."""

from __future__ import annotations

import importlib.util
import math
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from st_reasoning.backbone import load_causal_lm, save_causal_lm
from st_reasoning.backbone.sources import DTYPES
from st_reasoning.config import versions
from st_reasoning.errors import ConversionError, InputError, MissingExtraError, unknown_name
from st_reasoning.files import content_hash, new_folder, write_json
from st_reasoning.problems import gsm_problems, gsm_templates, held_out_templates

VARIANT_RECORD = "st_reasoning_variant.json"


@dataclass(frozen=True)
class SFTRecipe:
    """A short supervised fine-tuning: the loss is on the worked solution, given the question.

    Attributes:
        family: Which problems; drawn from templates that no task of this project evaluates on.
        examples: How many worked solutions.
        data_seed: Seed of their draw.
        seed: Seed of their order.
        batch_size: Solutions per optimiser step and device.
        epochs: Passes over them.
        learning_rate: Peak learning rate of AdamW; it falls linearly.
        max_length: Longest question and solution together, in tokens.
        check_examples: How many problems of templates never trained on the loss is measured on, before and after.
        dtype: Of the weights.
    """

    family: Literal["gsm_symbolic"] = "gsm_symbolic"
    examples: int = 2000
    data_seed: int = 1
    seed: int = 0
    batch_size: int = 8
    epochs: float = 1.0
    learning_rate: float = 2e-5
    max_length: int = 512
    check_examples: int = 18
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("examples", "batch_size", "epochs", "learning_rate", "max_length", "check_examples"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        if self.dtype not in DTYPES:
            raise unknown_name("dtype", self.dtype, DTYPES)


def fine_tune(recipe: SFTRecipe, backbone: str, output: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Fine-tune ``backbone`` on worked solutions and write an ordinary causal-LM folder.

    Args:
        recipe: What to train on and how.
        backbone: See :func:`st_reasoning.convert`.
        output: The folder to write; it appears complete or not at all.
        overwrite: Whether to replace what is there.

    Returns:
        What was recorded beside the weights: recipe, data hash, loss by step, time, and the loss per solution token
        on problems of held-out templates before and after.

    Raises:
        InputError: if the backbone cannot be loaded.
        MissingExtraError: without TRL or reasoning-gym.
        ConversionError: if the loss is not finite.
    """
    if importlib.util.find_spec("trl") is None:
        raise MissingExtraError("trl", "variants", "supervised fine-tuning")
    from datasets import Dataset

    held_out = held_out_templates()
    rows = _solutions(recipe.examples, recipe.data_seed, frozenset(gsm_templates()) - held_out)
    check_rows = _solutions(recipe.check_examples, recipe.data_seed + 1, held_out)
    model, tokenizer = load_causal_lm(backbone, dtype=recipe.dtype)
    trainer = _build_trainer(recipe, model, tokenizer, Dataset.from_list(rows), Dataset.from_list(check_rows))
    before = float(trainer.evaluate()["eval_loss"])
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    after = float(trainer.evaluate()["eval_loss"])
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    if not all(math.isfinite(loss) for loss in (before, after, *losses)):
        raise ConversionError(f"fine-tuning {backbone} gave no finite loss: {before}, {losses}, {after}")
    facts = {
        "schema": 1,
        "base": backbone,
        "method": "sft",
        "recipe": asdict(recipe),
        "data": {"examples": len(rows), "hash": content_hash(rows)},
        "losses": losses,
        "held_out_loss": {"before": before, "after": after, "examples": len(check_rows)},
        "seconds": round(seconds, 1),
        "versions": versions(),
    }
    with new_folder(output, overwrite=overwrite) as scratch:
        save_causal_lm(model, tokenizer, scratch)
        write_json(scratch / VARIANT_RECORD, facts)
    return facts


def _solutions(count: int, seed: int, templates: frozenset[int]) -> list[dict[str, str]]:
    """Return prompts and completions."""
    problems = gsm_problems(-(-count // len(templates)), seed=seed, templates=templates)
    # The line break belongs to the prompt: so its tokens do not depend on what follows.
    return [{"prompt": f"{p.question}\n", "completion": p.solution} for p in problems[:count]]


def _build_trainer(recipe: SFTRecipe, model: Any, tokenizer: Any, train: Any, check: Any) -> Any:
    import torch
    from trl import SFTConfig, SFTTrainer

    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    arguments = SFTConfig(
        output_dir=tempfile.gettempdir(),
        save_strategy="no",
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        max_length=recipe.max_length,
        completion_only_loss=True,
        # TRL's default spends a second forward pass to save memory.
        activation_checkpointing=False,
        bf16=False,
        logging_steps=1,
        seed=recipe.seed,
        data_seed=recipe.seed,
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    return SFTTrainer(model=model, args=arguments, train_dataset=train, eval_dataset=check, processing_class=tokenizer)
