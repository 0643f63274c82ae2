"""Reasoning variants of a base LLM, made here: supervised fine-tuning on worked solutions."""

from st_reasoning.variants.sft import SFTRecipe, fine_tune

__all__ = ["SFTRecipe", "fine_tune"]
