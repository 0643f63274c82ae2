"""st-reasoning: which of two language models makes the better embedder, and why.

``import st_reasoning`` loads neither torch nor mteb; each name below is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from st_reasoning.attention import verify_attention
    from st_reasoning.backbone import audit, convert
    from st_reasoning.hrsa import panel, realignment
    from st_reasoning.hrsa.evaluator import HRSAEvaluator
    from st_reasoning.training import TrainingRecipe

_HOMES = {
    "HRSAEvaluator": "st_reasoning.hrsa.evaluator",
    "TrainingRecipe": "st_reasoning.training",
    "audit": "st_reasoning.backbone",
    "convert": "st_reasoning.backbone",
    "panel": "st_reasoning.hrsa",
    "realignment": "st_reasoning.hrsa",
    "verify_attention": "st_reasoning.attention",
}

__all__ = [
    "HRSAEvaluator",
    "TrainingRecipe",
    "__version__",
    "audit",
    "convert",
    "panel",
    "realignment",
    "verify_attention",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
