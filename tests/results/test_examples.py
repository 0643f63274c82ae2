"""Scores by example out of what mteb really saves: retrieval and classification, two models, two seeds each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from st_reasoning.results import read_results
from st_reasoning.results.compare import compare
from st_reasoning.results.examples import Examples
from st_reasoning.results.groups import find_side
from st_reasoning.results.steps import compare_folder
from st_reasoning.results.tasks import task_infos
from tests.mteb_tasks.tiny_embedder import save_tiny_embedder

RETRIEVAL, CLASSIFICATION = "GSMSymbolicSolutionRetrieval", "ParityTestClassification"
CLUSTERING, STS = "ParityTestClustering", "ParityTestSTS"
PAIRS, REGRESSION = "ParityTestPairs", "ParityTestRegression"
TASKS = [RETRIEVAL, CLASSIFICATION, CLUSTERING, STS, PAIRS, REGRESSION]


def own_tasks() -> list[type]:
    """A classification task and a clustering task with data of their own, as mteb takes them."""
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.classification import AbsTaskClassification
    from mteb.abstasks.clustering import AbsTaskClustering
    from mteb.abstasks.pair_classification import AbsTaskPairClassification
    from mteb.abstasks.regression import AbsTaskRegression
    from mteb.abstasks.sts import AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata

    def described(name: str, kind: str, score: str) -> TaskMetadata:
        return TaskMetadata(
            name=name, description="Even or odd.", dataset={"path": f"test/{name}", "revision": "1"}, type=kind,
            eval_langs=["eng-Latn"], main_score=score, reference=None, eval_splits=["test"], date=None, domains=None,
            task_subtypes=None, license=None, annotations_creators=None, dialect=None, sample_creation=None,
            bibtex_citation=None,
        )  # fmt: skip

    def rows(start: int, count: int, column: str) -> Dataset:
        numbers = range(start, start + count)
        labels = [n % 2 for n in numbers]
        return Dataset.from_dict({"text": [f"{n} is a number, {n + 1} too" for n in numbers], column: labels})

    class ParityTestClassification(AbsTaskClassification):
        metadata = described(CLASSIFICATION, "Classification", "accuracy")
        samples_per_label = 4

        def load_data(self, num_proc=None, **kwargs):
            self.dataset = DatasetDict(train=rows(0, 40, "label"), test=rows(100, 60, "label"))
            self.data_loaded = True

    class ParityTestClustering(AbsTaskClustering):
        metadata = described(CLUSTERING, "Clustering", "v_measure")
        max_fraction_of_documents_to_embed = None
        label_column_name = "labels"
        input_column_name = "text"

        def load_data(self, num_proc=None, **kwargs):
            self.dataset = DatasetDict(test=rows(100, 60, "labels"))
            self.data_loaded = True

    class ParityTestSTS(AbsTaskSTS):
        metadata = described(STS, "STS", "cosine_spearman")

        def load_data(self, num_proc=None, **kwargs):
            first, second = rows(0, 50, "label")["text"], rows(50, 50, "label")["text"]
            scores = [float(n % 6) for n in range(50)]
            columns = {"sentence1": first, "sentence2": second, "score": scores}
            self.dataset = DatasetDict(test=Dataset.from_dict(columns))
            self.data_loaded = True

    class ParityTestPairs(AbsTaskPairClassification):
        metadata = described(PAIRS, "PairClassification", "max_ap")

        def load_data(self, num_proc=None, **kwargs):
            texts = rows(0, 60, "label")["text"]
            # Each of 30 texts is in two pairs, once with a text of its parity and once with another.
            columns = {
                "sentence1": [texts[n // 2] for n in range(60)],
                "sentence2": [texts[30 + n // 2 // 2 * 2 + n % 2] for n in range(60)],
                "labels": [int((n // 2) % 2 == n % 2) for n in range(60)],
            }
            self.dataset = DatasetDict(test=Dataset.from_dict(columns))
            self.data_loaded = True

    class ParityTestRegression(AbsTaskRegression):
        metadata = described(REGRESSION, "Regression", "kendalltau")
        n_experiments = 2
        origins_in_turn = 20

        def load_data(self, num_proc=None, **kwargs):
            values = [{"text": f"{n} plus {n % 7}", "value": float(n % 7)} for n in range(160)]
            self.dataset = DatasetDict(train=Dataset.from_list(values[:100]), test=Dataset.from_list(values[100:]))
            self.data_loaded = True

    return [
        ParityTestClassification, ParityTestClustering, ParityTestSTS, ParityTestPairs, ParityTestRegression,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, task_name: str) -> Path:
    """An mteb output folder of four tiny embedders, with predictions in a folder for each."""
    import mteb

    from mteb_tasks.registration import register_tasks

    root = tmp_path_factory.mktemp("evaluated")
    register_tasks(own_tasks())
    tasks = mteb.get_tasks(tasks=TASKS)
    for number, place in enumerate(("a/seed-0", "a/seed-1", "b/seed-0", "b/seed-1")):
        folder = save_tiny_embedder(root / "models" / place, seed=number)
        mteb.evaluate(
            mteb.get_model(str(folder)), tasks, cache=mteb.ResultCache(root / "out"), co2_tracker=False,
            prediction_folder=root / "out" / "predictions" / place, show_progress_bar=False,
        )  # fmt: skip
    return root / "out"


def test_the_mean_over_examples_is_mtebs_score(evaluated: Path):
    results = read_results(evaluated)
    infos, examples = task_infos(results.tasks), Examples.of(results.predictions)
    assert len(results.predictions) == 4 * len(TASKS)
    for run in results.runs:
        for task, count in ((RETRIEVAL, 80), (CLASSIFICATION, 60)):
            scores = examples.scores(results.scores[run][task], infos[task])
            assert len(scores) == count
            assert np.mean(list(scores.values())) == pytest.approx(results.scores[run][task].score, abs=2e-5)
        assert examples.scores(results.scores[run][CLUSTERING], infos[CLUSTERING]) is None
    assert examples.reasons == {CLUSTERING: "Clustering by v_measure cannot be had from what mteb saves"}


def test_ndcg_of_one_query_by_hand(evaluated: Path):
    """Gain 1 at the rank of the one right document, by score and then by name downwards, as trec_eval breaks ties."""
    results = read_results(evaluated)
    examples, info = Examples.of(results.predictions), task_infos([RETRIEVAL])[RETRIEVAL]
    run = results.runs[0]
    scores = examples.scores(results.scores[run][RETRIEVAL], info)
    (path,) = examples.files[run.model, run.revision, RETRIEVAL]
    saved = json.loads(path.read_text())["default"]["test"]
    for query in list(saved)[:20]:
        ranked = sorted(saved[query], key=lambda document: (saved[query][document], document), reverse=True)
        rank = ranked.index(query.replace("q", "d"))
        expected = 1 / np.log2(rank + 2) if rank < 10 else 0
        assert scores[f"default/test/{query}"] == pytest.approx(expected, abs=1e-6)


def test_seeds_and_examples_make_one_interval(evaluated: Path):
    ((found,), left_out) = compare_folder(evaluated, ("a", "b"))
    assert left_out == ()
    by_name = {row.name: row for row in found.rows if row.level == "task"}
    for task, count in ((RETRIEVAL, 80), (CLASSIFICATION, 60)):
        measured = by_name[task].measured
        assert (measured.kind, measured.have) == ("seeds and examples", {"seeds": 2, "examples": count})
        assert [each.kind for each in by_name[task].others] == ["seeds", "examples"]
        # Of the same differences: mteb rounds the scores.
        assert measured.estimate.difference == pytest.approx(by_name[task].difference, abs=1e-2)
    assert by_name[CLUSTERING].measured.kind == by_name[STS].measured.kind == "seeds"
    assert any(warning.startswith(f"no scores by example of {CLUSTERING}") for warning in found.warnings)


def test_one_run_each_has_an_interval_over_examples(evaluated: Path):
    ((found,), _) = compare_folder(evaluated, ("a/seed-0", "b/seed-0"))
    by_name = {row.name: row for row in found.rows if row.level == "task"}
    assert by_name[RETRIEVAL].measured.over == "80 examples"
    assert by_name[CLUSTERING].measured is None
    similar = by_name[STS].measured
    assert (similar.kind, similar.have) == ("examples, bootstrap", {"examples": 50})
    assert similar.estimate.difference == pytest.approx(by_name[STS].difference, abs=1e-3)
    assert similar.estimate.low <= similar.estimate.difference <= similar.estimate.high
    if by_name[RETRIEVAL].word == "not decided":
        assert by_name[RETRIEVAL].needed["examples"] > 80


def test_examples_that_belong_together_are_drawn_together(evaluated: Path):
    ((found,), _) = compare_folder(evaluated, ("a/seed-0", "b/seed-0"))
    by_name = {row.name: row for row in found.rows if row.level == "task"}
    # 60 pairs in which two and two texts meet, and 60 examples of 20 origins in turn.
    for task, groups in ((PAIRS, 15), (REGRESSION, 20)):
        measured = by_name[task].measured
        assert (measured.kind, measured.have) == ("groups of examples, bootstrap", {"groups of examples": groups})
        assert measured.estimate.difference == pytest.approx(by_name[task].difference, abs=2e-3)


def test_a_type_whose_tasks_all_have_predictions_is_judged_by_examples(evaluated: Path):
    """Of these tasks and no others; over tasks stands beside it."""
    from st_reasoning.results.tasks import TaskInfo

    infos = task_infos(TASKS)
    kinds = {RETRIEVAL: "Both", CLASSIFICATION: "Both"}
    infos = {name: TaskInfo(name, kinds.get(name, info.type), info.cells) for name, info in infos.items()}
    results = read_results(evaluated)
    for sides, kind, have in (
        (("a/seed-0", "b/seed-0"), "examples of these tasks", {"examples": 140}),
        (("a", "b"), "seeds and examples of these tasks", {"seeds": 2, "examples": 140}),
    ):
        a, b = (find_side(name, results.runs) for name in sides)
        found = compare(results, a, b, infos, examples=Examples.of(results.predictions))
        by_name = {row.name: row for row in found.rows}
        both, others = by_name["Both"].measured, by_name["Both"].others
        assert (both.kind, both.have) == (kind, have)
        assert both.over.endswith("140 examples of these 2 tasks")
        assert both.estimate.difference == pytest.approx(by_name["Both"].difference, abs=1e-2)
        assert "tasks" in [each.kind for each in others]
        # A task without them, and it is over tasks.
        assert "examples" not in by_name["all tasks"].measured.kind
        if len(a.runs) == 1:
            errors = [by_name[task].measured.estimate.standard_error for task in (RETRIEVAL, CLASSIFICATION)]
            assert both.estimate.standard_error == pytest.approx(np.hypot(*errors) / 2)


def test_predictions_of_another_model_are_not_used(evaluated: Path, tmp_path: Path):
    """What mteb does when two models save to one folder: the second's answers under the first one's name."""
    copy = tmp_path / "out"
    shutil.copytree(evaluated, copy)
    first, second = (
        copy / "predictions" / place / f"{RETRIEVAL}_predictions.json" for place in ("a/seed-0", "b/seed-0")
    )
    mixed = json.loads(second.read_text())
    mixed["mteb_model_meta"] = json.loads(first.read_text())["mteb_model_meta"]
    first.write_text(json.dumps(mixed))
    ((found,), _) = compare_folder(copy, ("a", "b"))
    retrieval = next(row for row in found.rows if row.name == RETRIEVAL)
    assert retrieval.measured.kind == "seeds"
    assert any("predictions of another model, or other data" in warning for warning in found.warnings)
    # A damaged file likewise.
    first.write_text(first.read_text()[:-20])
    ((found,), _) = compare_folder(copy, ("a", "b"))
    assert any("is not JSON" in warning for warning in found.warnings)
    first.unlink()
    ((found,), _) = compare_folder(copy, ("a", "b"))
    assert f"no scores by example of {RETRIEVAL}: only 3 of 4 runs have them, or not the same" in found.warnings


def test_mteb_mixes_two_models_in_one_folder(evaluated: Path, tmp_path: Path):
    """The reason for the check above; when this fails, mteb has mended it."""
    import mteb

    models = evaluated.parent / "models"
    for place in ("a/seed-0", "b/seed-0"):
        mteb.evaluate(
            mteb.get_model(str(models / place)), mteb.get_tasks(tasks=[CLASSIFICATION]), cache=None, co2_tracker=False,
            prediction_folder=tmp_path, show_progress_bar=False,
        )  # fmt: skip
    both = json.loads((tmp_path / f"{CLASSIFICATION}_predictions.json").read_text())
    one, other = (
        json.loads((evaluated / "predictions" / place / f"{CLASSIFICATION}_predictions.json").read_text())
        for place in ("a/seed-0", "b/seed-0")
    )
    assert both["mteb_model_meta"] == one["mteb_model_meta"] != other["mteb_model_meta"]
    assert both["default"] == other["default"] != one["default"]


def test_partial_results_of_mteb_are_found_by_its_own_metadata(evaluated: Path, tmp_path: Path):
    copy = tmp_path / "out"
    shutil.copytree(evaluated, copy)
    path = next(copy.glob(f"results/*/*/{RETRIEVAL}.json"))
    result = json.loads(path.read_text())
    result["scores"] = {"dev": result["scores"]["test"]}
    path.write_text(json.dumps(result))
    ((found,), left_out) = compare_folder(copy, ("a", "b"))
    assert [(each.kind, each.path) for each in left_out] == [("partial", path)]
    assert RETRIEVAL not in [row.name for row in found.rows]
    assert any(f"1 of {len(TASKS)} tasks are left out" in warning for warning in found.warnings)
