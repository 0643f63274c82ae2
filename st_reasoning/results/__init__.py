"""Results folders written by mteb, read as plain files: neither mteb nor torch is needed for that."""

from st_reasoning.results.reading import LeftOut, Results, read_results
from st_reasoning.results.scores import TaskScore, read_scores

__all__ = ["LeftOut", "Results", "TaskScore", "read_results", "read_scores"]
