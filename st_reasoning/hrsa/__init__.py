"""Hierarchical representation similarity analysis: do two models represent the same texts alike?

Pure measures (:mod:`~st_reasoning.hrsa.measures`) on the hidden states of a text corpus
(:mod:`~st_reasoning.hrsa.activations`), brought together in one record per pair of models: :func:`panel`.
"""

from st_reasoning.hrsa.activations import Activations, hidden_states
from st_reasoning.hrsa.compare import Settings, compare
from st_reasoning.hrsa.figures import draw
from st_reasoning.hrsa.panel import panel
from st_reasoning.hrsa.report import summary, write

__all__ = ["Activations", "Settings", "compare", "draw", "hidden_states", "panel", "summary", "write"]
