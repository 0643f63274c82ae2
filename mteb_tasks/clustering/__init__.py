"""Tasks of mteb's type Clustering."""
