import importlib.util
from pathlib import Path

import pytest

# By its path, for pytest's import mode "importlib" puts no test folder on sys.path.
spec = importlib.util.spec_from_file_location("tiny_embedder", Path(__file__).with_name("tiny_embedder.py"))
tiny_embedder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny_embedder)


@pytest.fixture
def embedder(tmp_path):
    """Make a tiny embedder in ``tmp_path/<parts>``; keyword arguments go to the builder."""
    return lambda *parts, **kwargs: tiny_embedder.save_tiny_embedder(tmp_path.joinpath(*parts), **kwargs)


@pytest.fixture(scope="session")
def task_name():
    pytest.importorskip(
        "reasoning_gym", reason="reasoning-gym draws the task's problems: pip install 'st-reasoning[demo]'"
    )
    return "GSMSymbolicSolutionRetrieval"


@pytest.fixture(scope="session")
def surface():
    """The script that measures the tasks' baselines, as a module."""
    path = Path(__file__).parents[1] / "benchmarks" / "surface_baselines.py"
    spec = importlib.util.spec_from_file_location("surface_baselines", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
