import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything of Hugging Face is imported: no test may ask the Hub

from tiny_embedder import save_tiny_embedder


@pytest.fixture
def embedder(tmp_path):
    """Make a tiny embedder in ``tmp_path/<parts>``; keyword arguments go to the builder."""
    return lambda *parts, **kwargs: save_tiny_embedder(tmp_path.joinpath(*parts), **kwargs)


@pytest.fixture(scope="session")
def task_name():
    pytest.importorskip(
        "reasoning_gym", reason="reasoning-gym draws the task's problems: pip install 'st-reasoning[demo]'"
    )
    return "GSMSymbolicSolutionRetrieval"
