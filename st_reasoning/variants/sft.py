"""Supervised fine-tuning of a causal LLM on worked solutions, through TRL."""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from st_reasoning.backbone.lora import LoRA
from st_reasoning.checkpoints import Checkpoints, step_of
from st_reasoning.errors import ConversionError, MissingExtraError
from st_reasoning.files import content_hash
from st_reasoning.problems.verified import VerifiedProblem
from st_reasoning.variants.accuracy import accuracy, prompt
from st_reasoning.variants.saving import (
    add_lora,
    check_recipe,
    claim_checkpoints,
    draw_problems,
    open_backbone,
    save_variant,
    trainer_arguments,
)


@dataclass(frozen=True)
class SFTRecipe:
    """A supervised fine-tuning: the loss is on the worked solution, given the question.

    Attributes:
        families: What differs from reasoning-gym's defaults, by family, see :mod:`st_reasoning.problems.verified`.
        examples: How many worked solutions.
        data_seed: Seed of their draw.
        seed: Seed of their order.
        batch_size: Solutions per optimiser step and device.
        epochs: Passes over them.
        learning_rate: Peak learning rate of AdamW; it falls linearly.
        max_length: Longest question and solution together, in tokens.
        lora: Train a few added weights, merged at the end, instead of all.
        dtype: Of the weights.
        check_examples: How many problems never trained on the loss and the accuracy are measured on, before and after.
        check_new_tokens: Longest completion when they are asked; 0 leaves the accuracy out.
        save_every: Steps between checkpoints; 0 for none.
    """

    families: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"gsm_symbolic": {}})
    examples: int = 2000
    data_seed: int = 1
    seed: int = 0
    batch_size: int = 8
    epochs: float = 1.0
    learning_rate: float = 2e-5
    max_length: int = 512
    lora: LoRA | None = None
    dtype: str = "float32"
    check_examples: int = 18
    check_new_tokens: int = 256
    save_every: int = 0

    def __post_init__(self) -> None:
        check_recipe(
            self,
            positive=("examples", "batch_size", "epochs", "learning_rate", "max_length", "check_examples"),
            not_negative=("check_new_tokens", "save_every"),
        )


def fine_tune(recipe: SFTRecipe, backbone: str, output: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Fine-tune ``backbone`` on worked solutions and write an ordinary causal-LM folder.

    With ``save_every`` in the recipe, a run that was killed goes on from ``OUTPUT.checkpoints``.

    Args:
        recipe: What to train on and how.
        backbone: See :func:`st_reasoning.convert`.
        output: The folder to write; it appears complete or not at all.
        overwrite: Whether to replace what is there, and checkpoints of another run.

    Returns:
        What was recorded beside the weights: recipe, data hash, loss by step, time, and, on problems never trained on,
        loss per solution token and accuracy before and after.

    Raises:
        InputError: if the backbone cannot be loaded, or families are unknown.
        MissingExtraError: without TRL or reasoning-gym.
        ConversionError: if the loss is not finite.
    """
    if importlib.util.find_spec("trl") is None:
        raise MissingExtraError("trl", "variants", "supervised fine-tuning")
    from datasets import Dataset

    problems, check = draw_problems(recipe, recipe.examples, recipe.check_examples)
    rows, check_rows = _rows(problems), _rows(check)
    model, tokenizer = open_backbone(backbone, recipe.dtype)
    checkpoints, latest = claim_checkpoints(recipe, backbone, rows, output, overwrite=overwrite)

    def solved() -> dict[str, Any] | None:
        if not recipe.check_new_tokens:
            return None
        return accuracy(model, tokenizer, check, max_new_tokens=recipe.check_new_tokens, seed=recipe.seed)

    solved_before = solved()
    trainer = _build_trainer(
        recipe,
        add_lora(model, recipe.lora, seed=recipe.seed),
        tokenizer,
        Dataset.from_list(rows),
        Dataset.from_list(check_rows),
        checkpoints,
    )
    before = float(trainer.evaluate()["eval_loss"])
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(latest) if latest else None)
    seconds = time.perf_counter() - start
    after = float(trainer.evaluate()["eval_loss"])
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    if not all(math.isfinite(loss) for loss in (before, after, *losses)):
        raise ConversionError(f"fine-tuning {backbone} gave no finite loss: {before}, {losses}, {after}")
    return save_variant(
        trainer.model,
        tokenizer,
        output,
        after=solved,
        overwrite=overwrite,
        facts={
            "base": backbone,
            "method": "sft",
            "recipe": asdict(recipe),
            "data": {"examples": len(rows), "hash": content_hash(rows)},
            "losses": losses,
            "held_out_loss": {"before": before, "after": after, "examples": len(check_rows)},
            "accuracy": {"before": solved_before},
            "seconds": round(seconds, 1),
            "resumed_at": step_of(latest) if latest else None,
        },
        checkpoints=checkpoints if recipe.save_every else None,
    )


def _rows(problems: list[VerifiedProblem]) -> list[dict[str, str]]:
    """Return prompts and completions."""
    return [{"prompt": prompt(problem), "completion": problem.solution} for problem in problems]


def _build_trainer(
    recipe: SFTRecipe, model: Any, tokenizer: Any, train: Any, check: Any, checkpoints: Checkpoints
) -> Any:
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        max_length=recipe.max_length,
        completion_only_loss=True,
        # TRL's default spends a second forward pass to save memory.
        activation_checkpointing=False,
        **trainer_arguments(recipe, checkpoints),
    )
    return SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=check,
        processing_class=tokenizer,
        callbacks=[checkpoints.marker()],
    )
