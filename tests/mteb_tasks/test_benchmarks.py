"""Our benchmarks beside mteb's own: their tasks, and the paper's instructions."""

import subprocess
import sys
import warnings
from pathlib import Path

import mteb
import pytest

import mteb_tasks  # noqa: F401
from mteb_tasks.benchmarks import BUILDERS, PAPER_BENCHMARKS, add_to, paper_prompts
from mteb_tasks.catalogue import GENERATED, HUB

ROOT = Path(__file__).parents[2]


def test_benchmarks_hold_the_tasks_of_the_catalogue():
    for name, tasks in (("ReasoningEmbedding(generated, v1)", GENERATED), ("ReasoningEmbedding(eng, v1)", HUB)):
        assert [type(task) for task in mteb.get_benchmark(name).tasks] == list(tasks)


def test_the_paper_is_the_union_of_three_benchmarks_under_its_own_instructions():
    tasks = mteb.get_benchmark("ReasoningStudy(paper)").tasks
    theirs = {task.metadata.name: task for name in PAPER_BENCHMARKS for task in mteb.get_benchmark(name).tasks}
    assert [task.metadata.name for task in tasks] == list(theirs)
    assert set(paper_prompts()) == set(theirs)
    for task in tasks:
        original = theirs[task.metadata.name]
        assert task.metadata.prompt == {"query": paper_prompts()[task.metadata.name]}
        assert task.metadata.prompt["query"].strip()
        assert (task.hf_subsets, task.eval_splits) == (original.hf_subsets, original.eval_splits)
        assert task is not original
    prompts = {task.metadata.name: task.metadata.prompt["query"] for task in tasks}
    assert prompts["CosQA"] == "Given a question about coding, retrieval code or passage that can solve user's question"
    assert prompts["STS12"] == "Retrieve semantically similar text"
    assert prompts["BrightPonyLongRetrieval"] == prompts["BrightPonyRetrieval"]


def test_the_papers_instruction_outlives_an_evaluation():
    (task,) = (t for t in mteb.get_benchmark("ReasoningStudy(paper)").tasks if t.metadata.name == "CosQA")
    task.data_loaded = True  # as after load_data(), which would need the hub
    task.unload_data()
    assert task.metadata.prompt == {"query": paper_prompts()["CosQA"]}


def test_mtebs_own_tasks_keep_their_instructions():
    assert mteb.get_task("CosQA").metadata.prompt != {"query": paper_prompts()["CosQA"]}
    theirs = {task.metadata.name: task for task in mteb.get_benchmark("BRIGHT(v1.1)").tasks}
    assert theirs["BrightPonyRetrieval"].metadata.prompt["query"].startswith("Represent this Pony")


def test_asking_twice_gives_the_same_benchmark():
    assert all(mteb.get_benchmark(name) is mteb.get_benchmark(name) for name in BUILDERS)


def test_a_benchmark_that_cannot_be_built_is_left_out_with_a_warning():
    registry = {}  # an mteb that has renamed its own
    with pytest.warns(RuntimeWarning, match=r"cannot build its benchmark ReasoningStudy\(paper\).*KeyError"):
        add_to(registry)
    assert list(registry) == ["ReasoningEmbedding(generated, v1)", "ReasoningEmbedding(eng, v1)"]


def test_a_benchmark_of_mteb_is_not_replaced():
    theirs = dict.fromkeys(BUILDERS, "theirs")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert add_to(dict(theirs)) == theirs


def test_importing_builds_no_benchmark():
    code = "import sys, mteb, mteb_tasks; print([m for m in sys.modules if m.startswith(('mteb.benchmarks.benchmarks',"
    code += " 'mteb_tasks.benchmarks'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
