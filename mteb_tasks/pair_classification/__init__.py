"""Tasks of mteb's type PairClassification."""
