"""HRSA as a task: against what, which numbers, and never a cached one of another reference."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import mteb
import pytest

import mteb_tasks  # noqa: F401
from mteb_tasks.analysis.hrsa_chain_of_thought import HRSAChainOfThought
from mteb_tasks.analysis.similarity import HEADLINES, REFERENCE, identity, recorded_base, sentence_transformer
from st_reasoning.backbone import convert, save_embedder
from st_reasoning.errors import InputError
from tests.models import make_llama

pytest.importorskip("reasoning_gym", reason="draws the texts: pip install 'st-reasoning[demo]'")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two backbones and an embedder made from the first."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("base", "other")):
        make_llama(folder / name, seed=seed)
    save_embedder(convert(str(folder / "base"), max_seq_length=32), folder / "embedder")
    return folder


def run(models, output, **kwargs):
    result = mteb.evaluate(
        mteb.get_model(str(models / "embedder")),
        HRSAChainOfThought(**kwargs),
        cache=mteb.ResultCache(output),
        co2_tracker=False,
        show_progress_bar=False,
    )
    (found,) = result.task_results
    return {entry["hf_subset"]: entry for entry in found.scores["test"]}


@pytest.fixture(scope="module")
def cache(models, tmp_path_factory):
    """Where the embedder was compared with its base, and then with the other backbone."""
    folder = tmp_path_factory.mktemp("results")
    return folder, run(models, folder), run(models, folder, reference=str(models / "other"))


def test_a_model_is_compared_with_what_it_was_made_from(models, cache):
    folder, first, _ = cache
    found = first["default"]
    # Not trained: the embedder is its backbone, given the same attention, and every measure says so.
    assert found["main_score"] == found["linear_cka"] == pytest.approx(1)
    assert found["reference"] == str(models / "base")
    assert found["reference_content"] == identity(str(models / "base"))
    assert found["dimension_correlation"] == pytest.approx(1)
    assert found["knn_overlap"] == 1
    assert found["linear_probe_difference"] == 0
    assert [model["attention"] for model in found["panel"]["models"]] == ["bidirectional"] * 2
    assert [model["name"] for model in found["panel"]["models"]] == ["reference", "model"]
    # Every value of the panel: all layers and matrices, intervals, chance, words.
    assert len(found["panel"]["layers"]) == len(found["panel"]["matrices"]["linear_cka"]) == 4
    assert found["panel"]["layers"][0]["linear_cka"]["debiased_interval"] is not None
    assert found["panel"]["layers"][0]["linear_probe"]["classes"] == 18
    assert found["panel"]["reading"]["levels"][1]["word"] == "stable"
    saved = next(folder.rglob("HRSAChainOfThought.json")).read_text(encoding="utf-8")
    assert "NaN" not in saved
    assert json.loads(saved)["scores"]["test"][0]["main_score"] == pytest.approx(1)


def test_another_reference_has_its_own_scores_in_the_same_cache(models, cache):
    folder, first, named = cache
    (subset,) = named.keys() - {"default"}
    assert subset == f"reference={identity(str(models / 'other'))}"
    assert subset.startswith("reference=other@")
    assert named[subset]["main_score"] < 0.9 < first["default"]["main_score"]
    # A model of the same name with other weights is another reference.
    make_llama(models / "third" / "other", seed=3)
    assert identity(str(models / "third" / "other")) != identity(str(models / "other"))
    # The same one again is answered by the cache.
    before = next(folder.rglob("HRSAChainOfThought.json")).stat().st_mtime_ns
    again = run(models, folder, reference=str(models / "other"))
    assert again[subset]["main_score"] == pytest.approx(named[subset]["main_score"], abs=1e-6)  # as mteb rounds
    assert next(folder.rglob("HRSAChainOfThought.json")).stat().st_mtime_ns == before


def test_headline_scores_are_the_guarded_values_of_the_last_layer(cache):
    (scores,) = (entry for subset, entry in cache[2].items() if subset != "default")
    last, guards = (scores["panel"][part][-1] for part in ("layers", "sensitivity"))
    expected = {
        "linear_cka": guards["linear_cka_without_sinks"]["debiased"],
        "dimension_correlation": guards["dimension_correlation_without_sinks"]["value"],
        "inverse_row_entropy": guards["procrustes_without_sinks"]["inverse_row_entropy"],
        "procrustes_residual": guards["procrustes_without_sinks"]["residual"],
        "knn_overlap": guards["knn_overlap_without_sinks"]["10"]["value"],
        "linear_probe_difference": guards["linear_probe_without_sinks"]["difference"],
    }
    assert expected.keys() == HEADLINES.keys()
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert last["linear_cka"]["debiased"] is not None
    assert all(math.isfinite(scores[name]) for name in expected)


def test_the_stock_command_carries_a_reference(models, tmp_path):
    command = [sys.executable, "-m", "mteb", "run", "-m", str(models / "embedder"), "-t", "HRSAChainOfThought"]
    program = "import runpy, sys, mteb_tasks; sys.argv = sys.argv[1:]; runpy.run_module('mteb', run_name='__main__')"
    command = [sys.executable, "-c", program, *command[2:], "--output-folder", str(tmp_path), "--no-co2-tracker"]
    environment = {**os.environ, REFERENCE: str(models / "other"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = tmp_path.rglob("HRSAChainOfThought.json")
    (scores,) = json.loads(file.read_text(encoding="utf-8"))["scores"]["test"]
    assert scores["hf_subset"].startswith("reference=other@")


def test_analyses_are_found_by_name_and_in_no_list():
    assert mteb.get_task("HRSAChainOfThought").metadata.name == "HRSAChainOfThought"
    for found in (mteb.get_tasks(task_types=["STS"]), mteb.get_tasks(languages=["eng"])):
        assert not any(task.metadata.name.startswith("HRSA") for task in found)


def test_without_a_record_the_error_says_how_to_name_a_reference(embedder):
    meta = mteb.get_model_meta(str(embedder("plain")))
    with pytest.raises(InputError, match=f"local/plain does not record .* {REFERENCE}=MODEL"):
        recorded_base(meta)


def test_the_base_that_a_hub_model_records_is_taken(embedder):
    meta = mteb.get_model_meta(str(embedder("plain"))).model_copy(update={"adapted_from": "org/base"})
    assert recorded_base(meta) == "org/base"


def test_a_model_without_layers_to_read_is_refused():
    model = mteb.get_model("mteb/baseline-random-encoder")
    with pytest.raises(InputError, match=r"baseline-random-encoder: expected a model of sentence-transformers"):
        sentence_transformer(model)
