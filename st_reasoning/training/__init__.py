"""Contrastive training by recipe, through the trainer of sentence-transformers."""

from st_reasoning.backbone.lora import LoRA
from st_reasoning.training.data import TrainingData, load_data
from st_reasoning.training.lora import merge_lora
from st_reasoning.training.recipe import DataSet, Generated, HeldOut, Hub, TrainingRecipe
from st_reasoning.training.run import build_trainer, train

__all__ = [
    "DataSet",
    "Generated",
    "HeldOut",
    "Hub",
    "LoRA",
    "TrainingData",
    "TrainingRecipe",
    "build_trainer",
    "load_data",
    "merge_lora",
    "train",
]
