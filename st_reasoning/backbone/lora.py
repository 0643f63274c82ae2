"""Training a few added weights (LoRA) instead of all: what a recipe says of it, and peft's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from st_reasoning.errors import InputError


@dataclass(frozen=True)
class LoRA:
    """Low-rank weights that are trained instead of all others, and merged into them at the end.

    Attributes:
        rank: Rank of each added matrix.
        alpha: Scaling: what is added is multiplied by alpha / rank.
        dropout: On the input of the added weights.
        targets: ``all-linear``, or the names of modules.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.1
    targets: str | tuple[str, ...] = "all-linear"

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 1:
            raise InputError(f"lora: rank and alpha must be at least 1, got {self.rank} and {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"lora: dropout must be at least 0 and below 1, got {self.dropout}")

    def configuration(self, task_type: str) -> Any:
        """Return peft's configuration for one of its task types."""
        from peft import LoraConfig

        targets: Any = self.targets if isinstance(self.targets, str) else list(self.targets)
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=targets,
            task_type=task_type,
        )
