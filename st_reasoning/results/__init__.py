"""Results folders written by mteb, read as plain files: neither mteb nor torch is needed."""

from st_reasoning.results.scores import TaskScore, read_scores

__all__ = ["TaskScore", "read_scores"]
