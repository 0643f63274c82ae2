"""Tasks of mteb's type Regression."""
