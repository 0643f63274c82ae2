"""Reasoning variants of a base LLM, made here: fine-tuned on worked solutions, or trained on verifiable rewards."""

from st_reasoning.backbone.lora import LoRA
from st_reasoning.variants.rlvr import RLVRRecipe, reinforce
from st_reasoning.variants.saving import VARIANT_RECORD
from st_reasoning.variants.sft import SFTRecipe, fine_tune

__all__ = ["VARIANT_RECORD", "LoRA", "RLVRRecipe", "SFTRecipe", "fine_tune", "reinforce"]
