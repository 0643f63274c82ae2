"""Pure statistics on arrays: intervals, and what is drawn by a hash. Nothing here knows a model."""

from st_reasoning.stats.jackknife import Interval, blocks, half_width, interval, standard_error
from st_reasoning.stats.sampling import hashed

__all__ = ["Interval", "blocks", "half_width", "hashed", "interval", "standard_error"]
