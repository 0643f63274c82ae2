import pytest


@pytest.fixture(scope="session")
def task_name():
    pytest.importorskip(
        "reasoning_gym", reason="reasoning-gym draws the task's problems: pip install 'st-reasoning[demo]'"
    )
    return "GSMSymbolicSolutionRetrieval"
