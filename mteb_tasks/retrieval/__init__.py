"""Tasks of mteb's type Retrieval."""
