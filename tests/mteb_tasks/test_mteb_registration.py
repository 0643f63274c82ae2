"""mteb finds our tasks, and stays usable where it has changed under us."""

import subprocess
import sys
import warnings
from pathlib import Path

import mteb
import pytest

import mteb_tasks
from mteb_tasks.catalogue import GENERATED, HUB
from mteb_tasks.registration import register_tasks
from mteb_tasks.retrieval.gsm_symbolic import GSMSymbolicSolutionRetrieval

ROOT = Path(__file__).parents[2]
TABLES = sys.modules["mteb.get_tasks"]


@pytest.mark.parametrize("task", [*GENERATED, *HUB])
def test_mteb_finds_the_task_by_name_and_by_type(task):
    assert type(mteb.get_task(task.metadata.name)) is task
    found = mteb.get_tasks(task_types=[task.metadata.type])
    assert [type(t) for t in found if t.metadata.name == task.metadata.name] == [task]


def test_registering_again_changes_nothing():
    listed, look_up, save = TABLES.TASK_LIST, mteb.get_model_meta, mteb.ResultCache.save_to_cache
    mteb_tasks.plug_in(mteb)
    assert listed == TABLES.TASK_LIST
    assert (mteb.get_model_meta, mteb.ResultCache.save_to_cache) == (look_up, save)


def test_a_task_of_mteb_is_not_replaced():
    theirs = TABLES._TASKS_REGISTRY["SciFact"]
    namesake = type("SciFact", (GSMSymbolicSolutionRetrieval,), {"metadata": theirs.metadata})
    with pytest.raises(ValueError, match="mteb has a task SciFact of its own"):
        register_tasks([namesake])
    assert TABLES._TASKS_REGISTRY["SciFact"] is theirs


def test_related_tasks_are_recorded(monkeypatch):
    for name in ("_TASKS_REGISTRY", "_SIMILAR_TASKS"):
        monkeypatch.setattr(TABLES, name, dict(getattr(TABLES, name)))
    monkeypatch.setattr(TABLES, "TASK_LIST", TABLES.TASK_LIST)
    metadata = GSMSymbolicSolutionRetrieval.metadata.model_copy(update={"name": "Derived", "adapted_from": ["Parent"]})
    register_tasks([type("Derived", (GSMSymbolicSolutionRetrieval,), {"metadata": metadata})])
    assert TABLES._SIMILAR_TASKS["Parent"] == ["Derived"]


@pytest.mark.parametrize(
    ("owner", "name", "part"),
    [
        (TABLES, "_TASKS_REGISTRY", "tasks"),
        (TABLES, "_SIMILAR_TASKS", "tasks"),
        (sys.modules["mteb.benchmarks.get_benchmark"], "_build_registry", "benchmarks"),
        (mteb.ResultCache, "save_to_cache", "local models"),
        (sys.modules["mteb.models.get_model_meta"], "MODEL_REGISTRY", "local models"),
    ],
)
def test_one_warning_when_mteb_has_moved_something(monkeypatch, owner, name, part):
    listed = TABLES.TASK_LIST
    monkeypatch.delattr(owner, name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mteb_tasks.plug_in(mteb)
    (warning,) = caught
    text = str(warning.message)
    assert f"leaves out: {part} (AttributeError" in text
    assert name in text
    assert mteb.__version__ in text
    assert listed == TABLES.TASK_LIST


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, cwd=ROOT)


def test_tasks_are_listed_without_torch_and_without_reasoning_gym():
    done = run_python(
        "import sys; sys.modules['reasoning_gym'] = None\n"
        "import mteb, mteb_tasks\n"
        "task = mteb.get_task('GSMSymbolicSolutionRetrieval')\n"
        "print('torch' in sys.modules, task.metadata.n_samples)\n"
        "task.load_data()\n"
    )
    assert done.stdout.strip() == "False {'test': 160}"
    assert done.stderr.splitlines()[-1].endswith(
        "drawing reasoning problems needs the package 'reasoning-gym', which is not installed: "
        "pip install 'st-reasoning[demo]'"
    )
