"""What generated tasks share: metadata that say where their problems are from, and what to cite."""

GSM_SYMBOLIC = r"""
@article{mirzadeh2024gsmsymbolic,
  author = {Iman Mirzadeh and Keivan Alizadeh and Hooman Shahrokhi and Oncel Tuzel and Samy Bengio and Mehrdad Farajtabar},
  journal = {arXiv preprint arXiv:2410.05229},
  title = {{GSM-Symbolic}: Understanding the Limitations of Mathematical Reasoning in Large Language Models},
  year = {2024},
}
"""  # noqa: E501

REASONING_GYM = r"""
@article{stojanovski2025reasoninggym,
  author = {Zafir Stojanovski and Oliver Stanley and Joe Sharratt and Richard Jones and Abdulhakeem Adefioye and Jean Kaddour and Andreas K{\"o}pf},
  journal = {arXiv preprint arXiv:2505.24760},
  title = {{REASONING GYM}: Reasoning Environments for Reinforcement Learning with Verifiable Rewards},
  year = {2025},
}
"""  # noqa: E501

ABOUT_GYM = {
    "reference": "https://arxiv.org/abs/2505.24760",
    "modalities": ["text"],
    "eval_splits": ["test"],
    "eval_langs": ["eng-Latn"],
    "date": ("2025-01-01", "2025-05-30"),  # reasoning-gym, from its first version to its paper
    "domains": ["Academic", "Constructed", "Written"],
    "license": "apache-2.0",
    "annotations_creators": "algorithmic",
    "dialect": [],
    "sample_creation": "created",
    "bibtex_citation": REASONING_GYM,
    "contributed_by": "st-reasoning",
}
ABOUT_GSM = {
    **ABOUT_GYM,
    "reference": "https://arxiv.org/abs/2410.05229",
    "date": ("2021-10-27", "2024-10-07"),  # GSM8K, whose problems became the templates, to GSM-Symbolic
    "bibtex_citation": GSM_SYMBOLIC + REASONING_GYM,
}
