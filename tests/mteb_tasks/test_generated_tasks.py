"""Every generated task: pinned, the same everywhere, balanced, and as hard for the surface as its description says."""

import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import mteb
import pytest
from sentence_transformers import SentenceTransformer

from mteb_tasks.catalogue import GENERATED
from st_reasoning.errors import InputError
from st_reasoning.files import content_hash, read_json

pytest.importorskip("reasoning_gym", reason="reasoning-gym draws the tasks: pip install 'st-reasoning[demo]'")

ROOT = Path(__file__).parents[2]


def named(tasks):
    return pytest.mark.parametrize("task_class", tasks, ids=lambda task: task.metadata.name)


def rows_of(task):
    content = task.draw()
    return content if isinstance(content, list) else [row for rows in content.values() for row in rows]


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=ROOT,
        env={**os.environ, **environment},
    )  # fmt: skip


def of_type(*types):
    return [task for task in GENERATED if task.metadata.type in types]


def test_the_catalogue_holds_every_generated_task_once():
    files = {path for path in (ROOT / "mteb_tasks").glob("*/*.py") if "FrozenData" in path.read_text(encoding="utf-8")}
    analyses = {path for path in files if path.parent.name == "analysis"}
    assert {Path(sys.modules[task.__module__].__file__) for task in GENERATED} == files - analyses
    assert len({task.metadata.name for task in GENERATED}) == len(GENERATED) >= 9
    for task in GENERATED:
        assert type(mteb.get_task(task.metadata.name)) is task


@named(GENERATED)
def test_content_is_the_pinned_one_and_a_change_is_refused(task_class, monkeypatch):
    task = task_class()
    content = task.draw()
    assert content_hash(content) == task.metadata.revision
    rows = json.loads(json.dumps(content))
    (rows if isinstance(rows, list) else rows["test"]).pop()
    monkeypatch.setattr(task, "draw", lambda: rows)
    with pytest.raises(InputError, match="changed data need a task of a new name"):
        task.load_data()


def test_draws_depend_on_no_hash_seed_and_no_global_random_state():
    code = (
        "import random, numpy; random.seed(3); numpy.random.seed(3)\n"
        "from mteb_tasks.catalogue import GENERATED; from st_reasoning.files import content_hash\n"
        "before = random.getstate(), numpy.random.get_state()[1].tolist()\n"
        "print(*[content_hash(task().draw()) for task in reversed(GENERATED)], sep='\\n')\n"
        "print(before == (random.getstate(), numpy.random.get_state()[1].tolist()))\n"
    )
    # This process has a hash seed of its own, and is compared with the pinned hashes in the test above.
    done = run_python(code, PYTHONHASHSEED="4242")
    *hashes, untouched = done.stdout.split()
    assert hashes == [task.metadata.revision for task in reversed(GENERATED)], done.stderr
    assert untouched == "True"


@named(GENERATED)
def test_metadata_are_complete(task_class):
    assert task_class.metadata.is_filled()
    assert "\\cite{" in task_class.metadata.intext_citation()
    assert task_class.metadata.dataset["path"] == f"st-reasoning/{task_class.metadata.name}"
    assert "—" not in task_class.metadata.description


@named(GENERATED)
def test_statistics_are_shipped_and_never_written(task_class):
    task = task_class()
    path = task.metadata.descriptive_stat_path
    before = path.read_bytes()
    computed = json.loads(json.dumps(task.calculate_descriptive_statistics(overwrite_results=True)))
    assert computed == read_json(path)
    assert path.read_bytes() == before
    assert not list(Path(mteb.__file__).parent.rglob(path.name))


@named(of_type("Clustering", "Classification", "Regression"))
def test_no_text_comes_twice_and_labels_are_balanced(task_class):
    task = task_class()
    content = task.draw()
    texts = [row[task.input_column_name] for row in rows_of(task)]
    if task_class.metadata.name == "GSMSymbolicCalculationClustering":
        labels = {}
        for row in content["test"]:
            assert labels.setdefault(row["sentences"], row["labels"]) == row["labels"]
    else:
        assert len(set(texts)) == len(texts)
    if task.metadata.type != "Regression":
        for rows in content.values():
            counts = Counter(row[task.label_column_name] for row in rows)
            assert len(set(counts.values())) == 1
            assert len(counts) >= (14 if "Family" in task.metadata.name else 10)


@named(of_type("PairClassification"))
def test_each_text_is_in_one_pair_of_either_kind(task_class):
    rows = rows_of(task_class())
    uses = Counter((row[key], row["labels"]) for row in rows for key in ("sentence1", "sentence2"))
    assert set(uses.values()) == {1}
    texts = {text for text, _ in uses}
    assert len(texts) == len(rows)
    assert uses.keys() == {(text, label) for text in texts for label in (0, 1)}
    # No text is on the left of one pair and on the right of another: its side tells nothing.
    assert not {row["sentence1"] for row in rows} & {row["sentence2"] for row in rows}


@named(GENERATED)
def test_mteb_scores_a_real_embedder(task_class, embedder):
    task = task_class()
    model = SentenceTransformer(str(embedder("tiny")), device="cpu")
    (result,) = mteb.evaluate(model, task, cache=None, show_progress_bar=False).task_results
    scores = result.scores["test"][0]
    assert scores["main_score"] == scores[task.metadata.main_score]
    assert math.isfinite(scores["main_score"])


def test_each_task_says_how_to_install_what_draws_it():
    done = run_python(
        "import sys; sys.modules['reasoning_gym'] = None\n"
        "from mteb_tasks.catalogue import GENERATED\n"
        "from st_reasoning.errors import MissingExtraError\n"
        "for task in GENERATED:\n"
        "    try: task().load_data()\n"
        "    except MissingExtraError as error: print(error)\n"
    )
    line = (
        "drawing reasoning problems needs the package 'reasoning-gym', which is not installed: "
        "pip install 'st-reasoning[demo]'"
    )
    assert done.stdout.splitlines() == [line] * len(GENERATED), done.stderr


@named(GENERATED)
def test_word_counts_score_what_the_table_and_the_description_say(task_class, surface):
    task = task_class()
    table = surface.read_table(surface.TABLE.read_text(encoding="utf-8"))
    said = table[task.metadata.name]
    assert task.metadata.description.endswith(surface.sentence(task, said))
    vectors = surface.WordVectors(surface.SURFACE["word counts"]().fit(surface.texts_of(task.draw())))
    (result,) = mteb.evaluate(vectors, task, cache=None, show_progress_bar=False).task_results
    # The table has two decimals. Ties are broken by rounding, which differs between machines: two items either
    # way. k-means starts at random: two standard errors of its ten runs.
    scores = result.scores["test"][0]
    content = task.draw()
    items = len(content if isinstance(content, list) else content["test"])
    slack = 2 * scores["v_measure_std"] / math.sqrt(10) if "v_measure_std" in scores else 2 / items
    assert scores["main_score"] == pytest.approx(said["word counts"], abs=0.005 + slack)


def test_reading_the_table_gives_what_was_written(surface):
    table = {task.metadata.name: dict.fromkeys(surface.COLUMNS, 0.25) for task in GENERATED}
    assert surface.read_table(surface.write_table(table)) == table
    assert re.match(r"\| task \|", surface.write_table(table))
