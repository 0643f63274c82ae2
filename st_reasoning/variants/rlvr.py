"""Reinforcement learning with verifiable rewards: GRPO on problems whose answers are checked by rule, through TRL."""

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
from st_reasoning.errors import ConversionError, InputError, MissingExtraError
from st_reasoning.files import content_hash
from st_reasoning.problems.verified import VerifiedProblem
from st_reasoning.variants.accuracy import accuracy, end_ids, prompt
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
class RLVRRecipe:
    """Group-relative policy optimisation (Shao et al. 2024): the reward is 1 for a right final answer, else 0.

    The loss is a mean over the tokens of all completions, as in DAPO (Yu et al. 2025).

    Attributes:
        families: What differs from reasoning-gym's defaults, by family, see :mod:`st_reasoning.problems.verified`.
        problems: How many to train on.
        data_seed: Seed of their draw.
        seed: Seed of their order and of sampling.
        steps: Optimiser steps.
        group: Completions of each problem that are compared with each other.
        batch_size: Completions per optimiser step and device; a multiple of ``group``.
        learning_rate: Constant, after a warm-up of a twentieth.
        temperature: Of sampling.
        beta: Weight of the divergence from the base model; 0 keeps no copy of it.
        max_new_tokens: Longest completion; one that is cut earns nothing, for its answer is not there.
        lora: Train a few added weights, merged at the end, instead of all.
        dtype: Of the weights.
        check_problems: How many problems never trained on are asked before and after.
        save_every: Steps between checkpoints; 0 for none.
    """

    families: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"gsm_symbolic": {}})
    problems: int = 2000
    data_seed: int = 2
    seed: int = 0
    steps: int = 100
    group: int = 8
    batch_size: int = 64
    learning_rate: float = 1e-6
    temperature: float = 1.0
    beta: float = 0.0
    max_new_tokens: int = 256
    lora: LoRA | None = None
    dtype: str = "float32"
    check_problems: int = 100
    save_every: int = 0

    def __post_init__(self) -> None:
        check_recipe(
            self,
            positive=("problems", "steps", "learning_rate", "temperature", "max_new_tokens", "check_problems"),
            not_negative=("beta", "save_every"),
        )
        if self.group < 2 or self.batch_size % self.group:
            raise InputError(
                f"batch_size must be a multiple of group, and group at least 2, got {self.batch_size} and {self.group}"
            )


def reinforce(recipe: RLVRRecipe, backbone: str, output: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Train ``backbone`` on verifiable rewards and write an ordinary causal-LM folder.

    With ``save_every`` in the recipe, a run that was killed goes on from ``OUTPUT.checkpoints``.

    Args:
        recipe: What to train on and how.
        backbone: See :func:`st_reasoning.convert`.
        output: The folder to write; it appears complete or not at all.
        overwrite: Whether to replace what is there, and checkpoints of another run.

    Returns:
        What was recorded beside the weights: recipe, data hash, mean reward by step, time, and accuracy on problems
        never trained on, before and after, greedily and sampled; ``cut`` is the share of completions by step that were
        not at their end.

    Raises:
        InputError: if the backbone cannot be loaded, or families are unknown.
        MissingExtraError: without TRL or reasoning-gym.
        ConversionError: if the training gives no finite loss.
    """
    if importlib.util.find_spec("trl") is None:
        raise MissingExtraError("trl", "variants", "reinforcement learning")
    problems, check = draw_problems(recipe, recipe.problems, recipe.check_problems)
    rows = [{"prompt": prompt(problem), "family": problem.family, "answer": problem.answer} for problem in problems]
    model, tokenizer = open_backbone(backbone, recipe.dtype)
    checkpoints, latest = claim_checkpoints(recipe, backbone, rows, output, overwrite=overwrite)

    def solved() -> dict[str, Any]:
        return accuracy(
            model, tokenizer, check, max_new_tokens=recipe.max_new_tokens, temperature=recipe.temperature,
            seed=recipe.seed,
        )  # fmt: skip

    before = solved()
    trainer = _build_trainer(recipe, add_lora(model, recipe.lora, seed=recipe.seed), tokenizer, rows, checkpoints)
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(latest) if latest else None)
    seconds = time.perf_counter() - start
    history = [entry for entry in trainer.state.log_history if "reward" in entry]
    rewards = [float(entry["reward"]) for entry in history]
    if not rewards or not all(math.isfinite(float(entry["loss"])) for entry in history):
        raise ConversionError(f"reinforcement learning of {backbone} gave no finite loss")
    return save_variant(
        trainer.model,
        tokenizer,
        output,
        after=solved,
        overwrite=overwrite,
        facts={
            "base": backbone,
            "method": "rlvr",
            "recipe": asdict(recipe),
            "data": {"examples": len(rows), "hash": content_hash(rows)},
            "rewards": rewards,
            "lengths": [float(entry["completions/mean_length"]) for entry in history],
            "cut": [float(entry["completions/clipped_ratio"]) for entry in history],
            "accuracy": {"before": before},
            "seconds": round(seconds, 1),
            "resumed_at": step_of(latest) if latest else None,
        },
        checkpoints=checkpoints if recipe.save_every else None,
    )


def rewards_of(completions: list[str], *, family: list[str], answer: list[str], **columns: Any) -> list[float]:
    """Return 1 for each completion that ends with the right answer, else 0; what TRL calls a reward function."""
    return [
        float(VerifiedProblem(name, "", "", right).solved_by(completion))
        for completion, name, right in zip(completions, family, answer, strict=True)
    ]


def _build_trainer(
    recipe: RLVRRecipe, model: Any, tokenizer: Any, rows: list[dict[str, str]], checkpoints: Checkpoints
) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    ends = set(end_ids(model, tokenizer))

    def reward(completions: list[str], completion_ids: list[list[int]], **columns: Any) -> list[float]:
        # One that was cut may have been cut within its answer: "#### 4" of "#### 47" is not 4.
        ended = [not ends.isdisjoint(ids) for ids in completion_ids]
        return [one * end for one, end in zip(rewards_of(completions, **columns), ended, strict=True)]

    arguments = GRPOConfig(
        per_device_train_batch_size=recipe.batch_size,
        num_generations=recipe.group,
        max_steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=recipe.steps // 20,
        temperature=recipe.temperature,
        top_k=0,
        top_p=1.0,
        beta=recipe.beta,
        loss_type="dapo",
        max_completion_length=recipe.max_new_tokens,
        # A completion that was cut has no answer; that it earns nothing is its lesson.
        mask_truncated_completions=False,
        gradient_checkpointing=False,
        **trainer_arguments(recipe, checkpoints),
    )
    return GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[checkpoints.marker()],
    )
