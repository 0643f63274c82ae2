"""What is handed in: each check passes where it should and fails on what it is there for; the card loads on the hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from st_reasoning.errors import InputError
from st_reasoning.files import folder_hash
from st_reasoning.results import checks
from st_reasoning.results.export import export_model
from tests.results.folders import write_result, write_run

STATUS = {
    "folders are name and revision": "passed",
    "a real revision": "out of reach",
    "registered in mteb": "out of reach",
    "file names are task names": "passed",
    "read by mteb": "passed",
    "one revision per task": "passed",
    "no language or split is missing": "passed",
    "files up to 10 MB": "passed",
    "nothing that the repository has is removed": "out of reach",
}
HUB = {"name": "sentence-transformers/all-MiniLM-L6-v2", "revision": "8b3219a92973c328a8e22fadcfa821b5dc75636a"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Results of a local model on two tasks of mteb, with a card beside the model."""
    model = tmp_path / "models" / "mine"
    model.mkdir(parents=True)
    (model / "README.md").write_text("---\nlibrary_name: sentence-transformers\ntags:\n- mine\n---\n# My embedder\n")
    write_run(
        tmp_path / "out", "local/mine", {"NFCorpus": 0.25, "SciFact": 0.5}, source=str(model),
        revision=folder_hash(model), prompt="Query: ",
    )  # fmt: skip
    return tmp_path / "out"


def test_a_local_model_passes_what_it_can_and_is_told_the_rest(folder: Path, tmp_path: Path):
    found = export_model(folder, "local/mine", tmp_path / "sub")
    assert {check.name: check.status for check in found.checks} == STATUS
    assert found.failed == []
    said = {check.name: check.said for check in found.checks}
    assert "upload it, then export again with --revision" in said["a real revision"]
    assert "it wants a ModelMeta there" in said["registered in mteb"]
    assert json.loads((tmp_path / "sub" / "checks.json").read_text())["tasks"] == ["NFCorpus", "SciFact"]
    # The files are mteb's own; where the model lay is not told.
    for path in (tmp_path / "sub" / "results").rglob("*"):
        if path.is_file():
            assert str(tmp_path) not in path.read_text()
    original = next(folder.rglob("SciFact.json"))
    assert next((tmp_path / "sub").rglob("SciFact.json")).read_bytes() == original.read_bytes()


def test_tasks_of_this_project_are_handed_in_but_analyses_are_not(folder: Path, tmp_path: Path):
    """mteb has no word of the hub's for a regression, and the record of an analysis says where the reference lay."""
    (place,) = (path.parent for path in folder.rglob("SciFact.json"))
    for task in ("GSMSymbolicStepsRegression", "HRSAChainOfThought"):
        write_result(place / f"{task}.json", task, {("test", "default"): 0.5})
    found = export_model(folder, "local/mine", tmp_path / "sub")
    assert found.tasks == ("GSMSymbolicStepsRegression", "NFCorpus", "SciFact")
    assert [(each.path.stem, each.kind) for each in found.left_out] == [("HRSAChainOfThought", "analysis")]
    assert not list((tmp_path / "sub").rglob("HRSA*"))
    said = {check.name: check for check in found.checks}["read by mteb"]
    assert (said.status, "stock mteb does not have GSMSymbolicStepsRegression" in said.said) == ("out of reach", True)
    assert (
        "| GSMSymbolicStepsRegression | Regression | test | default | 50.00 |"
        in (tmp_path / "sub" / "README.md").read_text()
    )
    for path in place.glob("[NSG]*.json"):
        path.unlink()
    with pytest.raises(InputError, match="HRSAChainOfThought only, which is no measure of quality"):
        export_model(folder, "local/mine", tmp_path / "other")


def test_a_registered_model_at_a_commit_passes_all_that_runs_offline(folder: Path, tmp_path: Path):
    found = export_model(folder, "local/mine", tmp_path / "sub", **HUB)
    reached = {check.name: check.status for check in found.checks if check.status != "passed"}
    assert reached == {"nothing that the repository has is removed": "out of reach"}
    place = tmp_path / "sub" / "results" / HUB["name"].replace("/", "__") / HUB["revision"]
    assert sorted(path.name for path in place.iterdir()) == [
        "NFCorpus.json", "SciFact.json", "model_meta.json", "run_settings.jsonl",
    ]  # fmt: skip
    # mteb reads it as its own.
    import mteb

    loaded = mteb.ResultCache(tmp_path / "sub").load_results(include_remote=False)
    assert [result.model_name for result in loaded.model_results] == [HUB["name"]]


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        ("moved", "folders are name and revision"),
        ("renamed", "file names are task names"),
        ("unreadable", "read by mteb"),
        ("twice", "one revision per task"),
        ("cut", "no language or split is missing"),
        ("large", "files up to 10 MB"),
    ],
)
def test_each_check_fails_on_its_own_fault(folder: Path, tmp_path: Path, damage: str, name: str):
    export_model(folder, "local/mine", tmp_path / "sub", **HUB)
    place = next((tmp_path / "sub" / "results").glob("*/*"))
    if damage == "moved":
        place = place.rename(place.with_name("f" * 40))
    elif damage == "renamed":
        write_result(place / "ArguAna.json", "SciFact", {("test", "default"): 0.5})
    elif damage == "unreadable":
        (place / "ArguAna.json").write_text(json.dumps({"task_name": "ArguAna", "scores": {}}))
    elif damage == "twice":
        other = place.with_name("0" * 40)
        other.mkdir()
        write_result(other / "SciFact.json", "SciFact", {("test", "default"): 0.5})
    elif damage == "cut":
        write_result(place / "SciFact.json", "SciFact", {("train", "default"): 0.5})
    else:
        with (place / "run_settings.jsonl").open("a") as stream:
            stream.write(" " * (checks.LARGEST_BYTES + 1))
    run = {
        "folders are name and revision": lambda: checks.folder_names(place),
        "file names are task names": lambda: checks.file_names(place),
        "read by mteb": lambda: checks.read_by_mteb(place),
        "one revision per task": lambda: checks.one_revision_per_task(tmp_path / "sub"),
        "no language or split is missing": lambda: checks.complete(place),
        "files up to 10 MB": lambda: checks.size(tmp_path / "sub"),
    }
    found = run[name]()
    assert (found.name, found.status) == (name, "failed"), found.said


def test_the_card_keeps_what_was_said_and_adds_scores_and_hrsa(folder: Path, tmp_path: Path):
    from huggingface_hub import ModelCard

    panel = {
        "schema": 3,
        "models": [{"name": "base"}, {"name": "<img>|reasoning"}],
        "corpus": {"texts": 30, "tokens": 2797},
        "reading": {"levels": [{"level": "global geometry", "word": "stable", "sentence": "Much alike."}]},
        "layers": [{"layer": 30, "linear_cka": {"debiased": 0.9984, "debiased_interval": [0.99, 1.0]}}],
    }
    (tmp_path / "hrsa.json").write_text(json.dumps(panel))
    export_model(folder, "local/mine", tmp_path / "sub", hrsa=tmp_path, **HUB)
    card = ModelCard.load(tmp_path / "sub" / "README.md")
    assert card.data.library_name == "sentence-transformers"
    assert card.data.tags == ["mine", "mteb"]
    assert card.data.model_name == HUB["name"]
    results = {each.dataset_name: each for each in card.data.eval_results}
    scifact = results["SciFact (default)"]
    assert (scifact.metric_type, scifact.metric_value, scifact.dataset_split) == ("ndcg_at_10", 0.5, "test")
    assert "# My embedder" in card.text
    assert "| SciFact | Retrieval | test | default | 50.00 |" in card.text
    assert "- global geometry: **stable**. Much alike." in card.text
    assert "| Linear CKA, debiased | 0.998 | 0.990 to 1.000 |  |" in card.text
    assert "<img>" not in card.text
    # The card of a model that was trained anew since is another model's.
    (tmp_path / "models" / "mine" / "weights").write_text("new")
    export_model(folder, "local/mine", tmp_path / "again", **HUB)
    assert "# My embedder" not in (tmp_path / "again" / "README.md").read_text()


def test_wrong_input_leaves_nothing(folder: Path, tmp_path: Path):
    (tmp_path / "no.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    for options, said in (
        ({"model": "nobody"}, "no results of 'nobody'"),
        ({"name": "mine"}, "expected org/model"),
        ({"name": "../x/y"}, "expected org/model"),
        ({"revision": "a/b"}, "expected a commit"),
        ({"hrsa": tmp_path / "no.json"}, "is no hrsa.json"),
        ({"hrsa": tmp_path / "gone"}, "no such file"),
    ):
        with pytest.raises(InputError, match=said):
            export_model(folder, **{"model": "local/mine", "output": tmp_path / "sub", **options})
    assert sorted(tmp_path.rglob("*")) == before


def test_the_stock_leaderboard_cannot_show_a_table():
    """Why our own page is offered: mteb 2.26.24 rounds a column of texts. When this fails, say so in the docs."""
    pytest.importorskip("gradio", reason="mteb's leaderboard: pip install 'mteb[leaderboard]'")
    import pandas
    from mteb.leaderboard import table

    row = {"Rank (Borda)": 1, "Model": "org/m", "_experiment_id": "none", "Mean (Task)": 0.5}
    with pytest.raises(TypeError, match="round"):
        table._apply_summary_table_styling(pandas.DataFrame([row]))


def test_mtebs_own_table_drops_models_that_it_has_not_registered(folder: Path):
    """Why `results show` asks mteb for scores and ranks, not for its table."""
    import mteb
    from mteb.benchmarks.benchmark import Benchmark

    from st_reasoning.results import read_results
    from st_reasoning.results.show import overview

    whole = Benchmark("Two", mteb.get_tasks(tasks=["NFCorpus", "SciFact"]))
    loaded = mteb.ResultCache(folder).load_results(tasks=whole, include_remote=False)
    assert len(loaded.model_results) == 1
    assert loaded.get_benchmark_result().empty
    (row,) = overview(read_results(folder)).models
    assert (row["mean_task"], row["types"], row["rank_borda"]) == (37.5, {"Retrieval": 37.5}, 1)
