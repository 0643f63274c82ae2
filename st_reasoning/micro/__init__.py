"""Micro models: a base LLM and three reasoning variants of it, small enough to come with the package.

``package:st_reasoning/micro/base`` and the like name them wherever a backbone is asked for.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent

# What each is trained from; every one is a folder beside this file.
MODELS = {"base": None, "sft": "base", "rlvr": "base", "rlvr-prolonged": "rlvr"}

CARD, FIGURES, CHECKSUMS = "README.md", "figures.json", "SHA256SUMS"


def backbone_name(model: str) -> str:
    """Return what a shipped model is called where a backbone is asked for."""
    return f"package:st_reasoning/micro/{model}"
