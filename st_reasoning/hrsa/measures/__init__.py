"""Measures of how alike two representations of the same tokens are: pure functions of tensors, no models."""

from st_reasoning.hrsa.measures.chance import (
    inverse_row_entropy_chance,
    knn_overlap_chance,
    linear_cka_chance,
    linear_cka_permutation_chance,
)
from st_reasoning.hrsa.measures.cka import (
    CKAMatrices,
    Estimator,
    effective_rank,
    linear_cka,
    linear_cka_matrix,
    linear_cka_statistics,
    min_rows,
)
from st_reasoning.hrsa.measures.columns import constant_columns, standardised, top_dimension_share
from st_reasoning.hrsa.measures.correlation import dimension_correlation, dimension_correlation_matrix
from st_reasoning.hrsa.measures.neighbours import knn_overlap
from st_reasoning.hrsa.measures.probe import ProbeTransfer, check_labels, linear_probe_transfer
from st_reasoning.hrsa.measures.procrustes import ProcrustesFit, inverse_row_entropy, procrustes
from st_reasoning.hrsa.measures.table import TABLE, Change, Measure, register

__all__ = [
    "TABLE",
    "CKAMatrices",
    "Change",
    "Estimator",
    "Measure",
    "ProbeTransfer",
    "ProcrustesFit",
    "check_labels",
    "constant_columns",
    "dimension_correlation",
    "dimension_correlation_matrix",
    "effective_rank",
    "inverse_row_entropy",
    "inverse_row_entropy_chance",
    "knn_overlap",
    "knn_overlap_chance",
    "linear_cka",
    "linear_cka_chance",
    "linear_cka_matrix",
    "linear_cka_permutation_chance",
    "linear_cka_statistics",
    "linear_probe_transfer",
    "min_rows",
    "procrustes",
    "register",
    "standardised",
    "top_dimension_share",
]
