"""Folders and models in memory are evaluated as they are, and never get the scores of another."""

import json
import shutil

import mteb
import pytest
from mteb.models.model_meta import ScoringFunction

import mteb_tasks  # noqa: F401
from st_reasoning.errors import InputError
from st_reasoning.files import folder_hash
from st_reasoning.results import read_scores


def evaluate(model, task_name, output):
    mteb.evaluate(
        model,
        mteb.get_tasks(tasks=[task_name]),
        cache=mteb.ResultCache(output),
        co2_tracker=False,
        show_progress_bar=False,
    )
    return read_scores(output)


def entries(scores):
    return {(score.model, score.revision): score.main_score for score in scores}


def test_a_folder_is_described_without_being_loaded(embedder):
    folder = embedder("runs", "final")
    meta = mteb.get_model_meta(str(folder))
    assert (meta.name, meta.revision) == ("local/final", folder_hash(folder))
    assert (meta.embed_dim, meta.max_tokens, meta.n_parameters) == (16, 900, 4_176)
    assert meta.similarity_fn_name is ScoringFunction.COSINE
    assert meta.use_instructions is False
    loaded = mteb.get_model(str(folder))
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == meta.n_parameters
    assert loaded.model.get_embedding_dimension() == meta.embed_dim


def test_a_relative_path_means_the_same_model(embedder, monkeypatch):
    folder = embedder("here")
    monkeypatch.chdir(folder)
    assert mteb.get_model_meta(".") == mteb.get_model_meta(str(folder))
    monkeypatch.chdir(folder.parent)
    assert mteb.get_model_meta("here") == mteb.get_model_meta("./here") == mteb.get_model_meta(str(folder))


def test_same_name_and_other_weights_are_two_models(embedder, task_name, tmp_path):
    folders = [embedder("a", "final", seed=1), embedder("b", "final", seed=2)]
    for folder in folders:
        scores = evaluate(mteb.get_model(str(folder)), task_name, tmp_path / "out")
    found = entries(scores)
    assert set(found) == {("local/final", folder_hash(folder)) for folder in folders}
    assert len(set(found.values())) == 2


def test_weights_that_change_in_place_are_evaluated_again(embedder, task_name, tmp_path):
    folder = embedder("model", seed=1)
    first = evaluate(mteb.get_model_meta(str(folder)), task_name, tmp_path / "out")
    assert evaluate(mteb.get_model_meta(str(folder)), task_name, tmp_path / "out") == first
    shutil.rmtree(folder)
    embedder("model", seed=2)
    assert len(entries(evaluate(mteb.get_model_meta(str(folder)), task_name, tmp_path / "out"))) == 2


def test_a_description_does_not_outlive_the_files(embedder):
    folder = embedder("model")
    meta = mteb.get_model_meta(str(folder))
    (folder / "model.safetensors").write_bytes((embedder("other", seed=2) / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="changed since it was looked up"):
        meta.load_model()
    with pytest.raises(InputError, match=f"expected {meta.revision}"):
        mteb.get_model_meta(str(folder), revision=meta.revision)


def test_an_adapter_is_another_model_when_its_base_is(embedder, tmp_path):
    """Its folder holds the difference only."""
    from peft import LoraConfig
    from sentence_transformers import SentenceTransformer

    base = embedder("base")
    model = SentenceTransformer(str(base), device="cpu")
    model.add_adapter(LoraConfig(task_type="FEATURE_EXTRACTION", r=2, target_modules=["q_proj"]))
    model.save_pretrained(str(tmp_path / "adapter"))
    assert "adapter_config.json" in {path.name for path in (tmp_path / "adapter").iterdir()}
    first = mteb.get_model_meta(str(tmp_path / "adapter"))
    assert first.load_model(device="cpu").model.encode("text").shape == (16,)
    embedder("base", seed=1)
    assert mteb.get_model_meta(str(tmp_path / "adapter")).revision != first.revision
    with pytest.raises(InputError, match="changed since it was looked up"):
        first.load_model(device="cpu")


def test_models_in_memory_do_not_share_scores(embedder, task_name, tmp_path):
    from sentence_transformers import SentenceTransformer

    first, second = (SentenceTransformer(str(embedder(name, seed=seed))) for name, seed in (("one", 1), ("two", 2)))
    evaluate(first, task_name, tmp_path / "out")
    evaluate(second, task_name, tmp_path / "out")
    first[0].model.embed_tokens.weight.data.normal_()  # trained on in memory: its folder has not changed
    found = entries(evaluate(first, task_name, tmp_path / "out"))
    assert sorted(name for name, _ in found) == ["local/one", "local/one", "local/two"]
    assert len(set(found.values())) == 3


def test_the_same_model_in_memory_is_recognised(embedder):
    from sentence_transformers import SentenceTransformer

    from mteb_tasks.local_models import memory_hash

    folder = embedder("one")
    model, again = (SentenceTransformer(str(folder)) for _ in range(2))
    moved = SentenceTransformer(str(shutil.copytree(folder, folder.with_name("moved"))))
    assert memory_hash(model) == memory_hash(again) == memory_hash(moved)
    again.max_seq_length = 10
    moved[1].include_prompt = False
    assert len({memory_hash(each) for each in (model, again, moved)}) == 3


def test_a_model_that_mteb_knows_stays_what_it_is(embedder, monkeypatch):
    folder = embedder("intfloat", "e5-small-v2")
    monkeypatch.chdir(folder.parent.parent)
    assert mteb.get_model_meta("intfloat/e5-small-v2").name == "intfloat/e5-small-v2"
    with pytest.raises(KeyError, match="not found in MTEB registry"):
        mteb.get_model_meta("nobody/knows-this")


def test_what_is_no_embedder_is_one_clear_line(embedder, tmp_path):
    (tmp_path / "llm").mkdir()
    with pytest.raises(InputError, match=r"llm is not a sentence-transformers model: it has no modules\.json"):
        mteb.get_model(str(tmp_path / "llm"))
    with pytest.raises(InputError, match=r"no such folder: \./typo"):
        mteb.get_model("./typo")
    folder = embedder("sparse")
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"model_type": "SparseEncoder"}))
    with pytest.raises(InputError, match="holds a SparseEncoder; expected a SentenceTransformer"):
        mteb.get_model(str(folder))


def test_a_result_that_is_not_written_to_its_end_leaves_the_one_before(embedder, tmp_path):
    name = "GSMSymbolicSolutionRetrieval"
    evaluate(mteb.get_model(str(embedder("runs", "whole"))), name, tmp_path)
    (path,) = tmp_path.rglob(f"{name}.json")
    before = path.read_bytes()
    result = mteb.TaskResult.from_disk(path)
    result.scores["test"][0]["late"] = object()  # json finds out in the middle of writing
    with pytest.raises(TypeError, match="not JSON serializable"):
        result.to_disk(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []
