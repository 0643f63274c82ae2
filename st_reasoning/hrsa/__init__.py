"""Hierarchical representation similarity analysis: do two models represent the same texts alike?

Pure measures (:mod:`~st_reasoning.hrsa.measures`), the same as torchmetrics (:mod:`~st_reasoning.hrsa.metrics`), and
all of them at all layers over a stream of hidden states (:mod:`~st_reasoning.hrsa.engine`), brought together in one
record per pair of models: :func:`panel`.
"""

from st_reasoning.hrsa.activations import Activations, hidden_states
from st_reasoning.hrsa.chunk import Chunk
from st_reasoning.hrsa.compare import compare
from st_reasoning.hrsa.engine import Engine
from st_reasoning.hrsa.figures import draw
from st_reasoning.hrsa.measures import (
    dimension_correlation,
    knn_overlap,
    linear_cka,
    linear_probe_transfer,
    procrustes,
)
from st_reasoning.hrsa.metrics import DimensionCorrelation, KNNOverlap, LinearCKA, Procrustes
from st_reasoning.hrsa.panel import panel
from st_reasoning.hrsa.reading import read
from st_reasoning.hrsa.realignment import realignment
from st_reasoning.hrsa.report import summary, write
from st_reasoning.hrsa.settings import Settings

__all__ = [
    "Activations",
    "Chunk",
    "DimensionCorrelation",
    "Engine",
    "KNNOverlap",
    "LinearCKA",
    "Procrustes",
    "Settings",
    "compare",
    "dimension_correlation",
    "draw",
    "hidden_states",
    "knn_overlap",
    "linear_cka",
    "linear_probe_transfer",
    "panel",
    "procrustes",
    "read",
    "realignment",
    "summary",
    "write",
]
