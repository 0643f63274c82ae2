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
from st_reasoning.stats.sampling import hashed

__all__ = [
    "Components",
    "Estimate",
    "Interval",
    "blocks",
    "bootstrap",
    "components",
    "crossed",
    "half_width",
    "hashed",
    "holm",
    "interval",
    "needed",
    "paired_t",
    "power_of_difference",
    "power_of_equivalence",
    "standard_error",
    "stratified",
    "tost",
    "welch",
    "widened_for_ties",
]
