"""Pure statistics on arrays: intervals, tests, and what is drawn by a hash. Nothing here knows a model."""

from st_reasoning.stats.equivalence import needed, power_of_difference, power_of_equivalence, tost
from st_reasoning.stats.jackknife import Interval, blocks, half_width, interval, standard_error
from st_reasoning.stats.multiplicity import holm
from st_reasoning.stats.paired import (
    Components,
    Estimate,
    bootstrap,
    components,
    crossed,
    paired_t,
    stratified,
    welch,
    widened_for_ties,
)
from st_reasoning.stats.rank_correlation import RankCorrelation, least_units, rank_correlation, units_needed
from st_reasoning.stats.sampling import hashed

__all__ = [
    "Components",
    "Estimate",
    "Interval",
    "RankCorrelation",
    "blocks",
    "bootstrap",
    "components",
    "crossed",
    "half_width",
    "hashed",
    "holm",
    "interval",
    "least_units",
    "needed",
    "paired_t",
    "power_of_difference",
    "power_of_equivalence",
    "rank_correlation",
    "standard_error",
    "stratified",
    "tost",
    "units_needed",
    "welch",
    "widened_for_ties",
]
