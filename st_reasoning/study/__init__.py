"""Pairs, seeds and tasks chained into one resumable study with one report."""

from st_reasoning.study.recipe import Corpus, Pair, Reasoning, StudyRecipe
from st_reasoning.study.run import IncompleteError, Running, run_study
from st_reasoning.study.steps import compare_models, evaluate

__all__ = [
    "Corpus",
    "IncompleteError",
    "Pair",
    "Reasoning",
    "Running",
    "StudyRecipe",
    "compare_models",
    "evaluate",
    "run_study",
]
