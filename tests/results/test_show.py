"""The table of models: what is in no mean, and scores that do not compare."""

from __future__ import annotations

from pathlib import Path

import pytest

from st_reasoning.results import read_results
from st_reasoning.results.show import overview, overview_text
from tests.results.folders import write_run

RETRIEVAL, ANALYSIS = "GSMSymbolicSolutionRetrieval", "HRSAChainOfThought"


def test_an_analysis_is_shown_and_in_no_mean(tmp_path: Path):
    write_run(tmp_path, "org/a", {RETRIEVAL: 0.5, ANALYSIS: 1.0})
    write_run(tmp_path, "org/b", {RETRIEVAL: 0.6, ANALYSIS: 0.1})
    found = overview(read_results(tmp_path))
    best, other = found.models
    assert (best["label"], best["mean_task"], best["mean_type"]) == ("org/b", pytest.approx(60), pytest.approx(60))
    assert (other["mean_task"], other["tasks"][ANALYSIS]) == (pytest.approx(50), 100)
    assert best["types"] == {"Retrieval": pytest.approx(60)}
    assert f"{ANALYSIS}: likeness to a reference, no measure of quality; in no mean and no rank." in found.notes


def test_scores_on_other_data_are_told_apart(tmp_path: Path):
    """mteb does not score again when the data change under a task's name."""
    write_run(tmp_path, "org/a", {RETRIEVAL: 0.5}, data="1" * 40)
    for name in "bcde":
        write_run(tmp_path, f"org/{name}", {RETRIEVAL: 0.6}, data="2" * 40)
    said = overview_text(overview(read_results(tmp_path)))
    assert (
        f"scores and ranks do not compare: {RETRIEVAL} at revision 111111111111: org/a; "
        "222222222222: org/b, org/c, org/d and 1 more."
    ) in said
    (tmp_path / "same").mkdir()
    write_run(tmp_path / "same", "org/a", {RETRIEVAL: 0.5})
    assert "do not compare" not in overview_text(overview(read_results(tmp_path / "same")))
