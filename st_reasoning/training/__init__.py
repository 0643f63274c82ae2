"""Contrastive training by recipe, through the trainer of sentence-transformers."""

from st_reasoning.training.data import TrainingData, load_data
from st_reasoning.training.recipe import DataSet, Generated, Hub, TrainingRecipe
from st_reasoning.training.run import build_trainer, train

__all__ = ["DataSet", "Generated", "Hub", "TrainingData", "TrainingRecipe", "build_trainer", "load_data", "train"]
