"""The task's content is pinned, is held out, and random vectors score at chance."""

from pathlib import Path

import mteb
import numpy as np
import pytest

import mteb_tasks  # noqa: F401
from st_reasoning.errors import InputError
from st_reasoning.files import content_hash, read_json
from st_reasoning.problems import gsm_problems, gsm_templates, held_out_templates


@pytest.fixture
def task(task_name):
    return mteb.get_task(task_name)


def ndcg(model, task):
    (result,) = mteb.evaluate(model, task, cache=None, show_progress_bar=False).task_results
    return result.scores["test"][0]["ndcg_at_10"]


def test_content_is_the_pinned_one(task):
    assert content_hash(task.draw()) == task.metadata.revision


def test_changed_content_is_refused_and_asks_for_a_new_name(task, monkeypatch):
    content = task.draw()
    content[3]["solution"] += " "
    monkeypatch.setattr(task, "draw", lambda: content)
    with pytest.raises(InputError, match="changed data need a task of a new name"):
        task.load_data()
    assert not task.data_loaded


def test_every_query_has_its_own_solution_and_seven_rivals_of_its_template(task):
    task.load_data()
    data = task.dataset["default"]["test"]
    assert (len(data["queries"]), len(data["corpus"]), len(data["relevant_docs"])) == (80, 80, 80)
    templates = sorted(held_out_templates())[:10]
    problems = gsm_problems(8, seed=20_250_607, templates=set(templates))
    assert sorted(problem.template for problem in problems) == sorted(templates * 8)
    solutions = dict(zip(data["corpus"]["id"], data["corpus"]["text"], strict=True))
    for number, (query, text) in enumerate(zip(data["queries"]["id"], data["queries"]["text"], strict=True)):
        assert text == problems[number].question
        assert [solutions[doc] for doc in data["relevant_docs"][query]] == [problems[number].solution]
    assert len(set(solutions.values())) == 80


def test_templates_are_held_out_from_training(task):
    trained_on = gsm_problems(8, seed=0, templates=set(gsm_templates()) - held_out_templates())
    assert not {problem.question for problem in trained_on} & {row["question"] for row in task.draw()}


def test_metadata_are_complete(task):
    assert task.metadata.is_filled()
    assert task.metadata.intext_citation() == "\\cite{mirzadeh2024gsmsymbolic}"


def test_statistics_are_shipped_and_never_written(task):
    path = task.metadata.descriptive_stat_path
    assert Path(mteb.__file__).parent not in path.parents
    before = path.read_bytes()
    assert task.calculate_descriptive_statistics(overwrite_results=True) == read_json(path)
    assert path.read_bytes() == before
    assert not list(Path(mteb.__file__).parent.rglob(path.name))


def test_random_vectors_score_at_chance(task):
    # The relevant document stands at each of 80 ranks alike, and counts 1 / log2(1 + rank) down to rank 10.
    chance = sum(1 / np.log2(1 + rank) for rank in range(1, 11)) / 80
    assert ndcg(mteb.get_model("mteb/baseline-random-encoder"), task) == pytest.approx(chance, abs=0.05)
