"""What the three tasks on MATH-500 share: 500 problems in one split, each with a solution and one of 7 subjects."""

DATASET = {
    "path": "HuggingFaceH4/MATH-500",
    "split": "test",
    "revision": "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
}
ABOUT = {
    "reference": "https://arxiv.org/abs/2305.20050",
    "modalities": ["text"],
    "eval_splits": ["test"],
    "eval_langs": ["eng-Latn"],
    "date": ("2021-03-05", "2023-05-31"),  # MATH, to the paper that drew the 500
    "domains": ["Academic", "Written"],
    "license": "mit",  # of MATH, which the problems are from; the card of MATH-500 names none
    "dialect": [],
    "sample_creation": "found",
    "bibtex_citation": r"""
@inproceedings{hendrycks2021math,
  author = {Dan Hendrycks and Collin Burns and Saurav Kadavath and Akul Arora and Steven Basart and Eric Tang and Dawn Song and Jacob Steinhardt},
  booktitle = {NeurIPS Datasets and Benchmarks},
  title = {Measuring Mathematical Problem Solving With the {MATH} Dataset},
  year = {2021},
}

@article{lightman2023verify,
  author = {Hunter Lightman and Vineet Kosaraju and Yura Burda and Harri Edwards and Bowen Baker and Teddy Lee and Jan Leike and John Schulman and Ilya Sutskever and Karl Cobbe},
  journal = {arXiv preprint arXiv:2305.20050},
  title = {Let's Verify Step by Step},
  year = {2023},
}
""",  # noqa: E501
    "contributed_by": "st-reasoning",
}
