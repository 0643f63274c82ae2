"""What backbones and arms are called in step names, folders and tables."""

from __future__ import annotations

import functools

from st_reasoning.backbone import resolve
from st_reasoning.study.recipe import Pair, StudyRecipe

ARMS = ("base", "reasoning")


@functools.cache  # may ask the hub; and a backbone that vanishes while a study runs keeps its name in the report
def backbone_label(backbone: str) -> str:
    """Return what a named backbone is called.

    Raises:
        InputError: if it cannot be a backbone.
    """
    return resolve(backbone).label


def arm_label(pair: Pair, arm: str) -> str:
    """Return what an arm of a pair is called: a model that is made here by its pair, another one by its backbone."""
    if arm == "reasoning" and pair.reasoning.backbone is None:
        return pair.name
    return backbone_label(pair.base if arm == "base" else str(pair.reasoning.backbone))


def embedders_of(recipe: StudyRecipe) -> list[tuple[str, str]]:
    """Return every embedder of a study, once: the label of its backbone and ``untrained`` or ``seed-N``."""
    labels = dict.fromkeys(arm_label(pair, arm) for pair in recipe.pairs for arm in ARMS)
    parts = ("untrained", *(f"seed-{seed}" for seed in recipe.seeds))
    return [(label, part) for label in labels for part in parts]
