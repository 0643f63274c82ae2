"""Tasks of mteb's type Classification."""
