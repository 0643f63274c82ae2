"""Scores of all examples at once: against scikit-learn and scipy, and which examples are drawn together."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from sklearn.metrics import average_precision_score

from st_reasoning.results.resampled import NotByExample, average_precision, resampled


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_scikit_learns(ties: bool):
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = rng.integers(0, 8, 40).astype(float) if ties else rng.normal(size=40)
        gold = rng.integers(0, 2, 40).astype(float)
        assert average_precision(scores, gold) == pytest.approx(average_precision_score(gold, scores), abs=1e-12)
    assert average_precision(np.ones(3), np.zeros(3)) == 0


def pairs_task():
    from mteb_tasks.pair_classification.propositional_equivalence import PropositionalEquivalencePC

    return PropositionalEquivalencePC()


def predictions(n: int) -> dict[str, list[float]]:
    values = [float(i) for i in range(n)]
    names = ("similarity_scores", "cosine_scores", "manhattan_distances", "euclidean_distances", "dot_scores")
    return dict.fromkeys(names, values)


def rows(texts: list[tuple[str, str]]) -> Dataset:
    labels = [i % 2 for i in range(len(texts))]
    return Dataset.from_dict({"sentence1": [a for a, _ in texts], "sentence2": [b for _, b in texts], "labels": labels})


def test_pairs_linked_by_texts_are_one_unit():
    texts = [(f"a{i}", f"b{i}") for i in range(20)] + [("a0", "new"), ("new", "b1")]
    found = resampled(pairs_task(), predictions(22), rows(texts))
    assert sorted(map(len, found.members())) == [*[1] * 18, 4]
    assert [list(unit) for unit in found.members() if len(unit) == 4] == [[0, 1, 20, 21]]
    assert found.value() == max(average_precision(s * found.answers[0], found.gold) for s in (1, -1))


def test_pairs_that_all_hang_together_have_no_interval():
    with pytest.raises(NotByExample, match=r"its 30 examples share so much that they are as good as 1\.0"):
        resampled(pairs_task(), predictions(30), rows([(f"t{i}", f"t{i + 1}") for i in range(30)]))
    # Nor where a few are alone beside one large group.
    texts = [("hub", f"t{i}") for i in range(80)] + [(f"a{i}", f"b{i}") for i in range(20)]
    with pytest.raises(NotByExample, match="as good as"):
        resampled(pairs_task(), predictions(100), rows(texts))


@pytest.mark.parametrize("wrong", [{}, [], {"similarity_scores": [1.0]}, predictions(29)])
def test_predictions_of_other_examples_are_refused(wrong):
    with pytest.raises(NotByExample, match="its predictions"):
        resampled(pairs_task(), wrong, rows([(f"a{i}", f"b{i}") for i in range(30)]))


def test_the_pairs_of_the_generated_tasks_are_quads():
    pytest.importorskip("reasoning_gym")
    from mteb_tasks.catalogue import GENERATED

    for kind in GENERATED:
        if kind.metadata.type == "PairClassification":
            task = kind()
            task.load_data()
            data = task.dataset["test"]
            found = resampled(task, predictions(len(data)), data)
            assert {len(unit) for unit in found.members()} == {4}
        elif kind.metadata.type == "Regression":
            task = kind()
            task.load_data()
            data = task.dataset["test"]
            found = resampled(task, [list(map(float, range(len(data))))], data)
            assert len(found.members()) == 18
            # The value belongs to the template.
            assert all(len(set(found.gold[unit])) == 1 for unit in found.members())


def test_other_tasks_are_not_made_of_all_examples_at_once():
    from mteb_tasks.classification.reasoning_family import ReasoningGymFamilyClassification
    from st_reasoning.results.resampled import kind_of

    assert kind_of(ReasoningGymFamilyClassification()) is None
    other = pairs_task()
    other.__class__ = type("Other", (type(other),), {"metadata": SimpleNamespace(main_score="max_f1")})
    assert kind_of(other) is None
