"""What the two tasks on MMLU-Pro share: 12,032 questions with up to ten options each, in 14 categories."""

DATASET = {
    "path": "TIGER-Lab/MMLU-Pro",
    "split": "test",
    "revision": "b189ec765aa7ed75c8acfea42df31fdae71f97be",
}
ABOUT = {
    "reference": "https://arxiv.org/abs/2406.01574",
    "modalities": ["text"],
    "eval_splits": ["test"],
    "eval_langs": ["eng-Latn"],
    "date": ("2020-09-07", "2024-06-03"),  # MMLU to MMLU-Pro
    "domains": ["Academic", "Written"],
    "license": "mit",
    "dialect": [],
    "sample_creation": "found",
    "bibtex_citation": r"""
@inproceedings{wang2024mmlupro,
  author = {Yubo Wang and Xueguang Ma and Ge Zhang and Yuansheng Ni and Abhranil Chandra and Shiguang Guo and Weiming Ren and Aaran Arulraj and Xuan He and Ziyan Jiang and Tianle Li and Max Ku and Kai Wang and Alex Zhuang and Rongqi Fan and Xiang Yue and Wenhu Chen},
  booktitle = {NeurIPS Datasets and Benchmarks},
  title = {{MMLU-Pro}: A More Robust and Challenging Multi-Task Language Understanding Benchmark},
  year = {2024},
}
""",  # noqa: E501
    "contributed_by": "st-reasoning",
}
