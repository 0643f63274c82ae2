"""Embeddings are computed once for all tasks, and never answered for another model, prompt, length or precision."""

import copy
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import mteb
import numpy as np
import pytest

from mteb_tasks.embedding_cache import cache_embeddings, usual_store
from mteb_tasks.embedding_store import EmbeddingStore
from mteb_tasks.retrieval.gsm_symbolic import GSMSymbolicSolutionRetrieval
from st_reasoning.errors import InputError

ROOT = Path(__file__).parents[2]
TEXTS = ["How many apples?", "Three, and then four more.", "How many apples?", "x" * 50, "Seven"]


class SecondTask(GSMSymbolicSolutionRetrieval):
    """The same texts under the same instruction, and another name."""

    metadata = GSMSymbolicSolutionRetrieval.metadata.model_copy(update={"name": "SecondTask"})


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Switch the cache on, in a folder of the test."""
    monkeypatch.setenv("ST_REASONING_EMBEDDINGS", str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture
def passes(monkeypatch):
    """Collect how many texts go through the model in each forward pass."""
    from sentence_transformers.sentence_transformer.modules import Transformer

    seen, forward = [], Transformer.forward
    monkeypatch.setattr(
        Transformer, "forward", lambda self, f, **kw: seen.append(len(f["input_ids"])) or forward(self, f, **kw)
    )
    return seen


def evaluate(model, *tasks):
    results = mteb.evaluate(model, list(tasks), cache=None, co2_tracker=False, show_progress_bar=False).task_results
    return [result.scores["test"][0]["main_score"] for result in results]


def test_a_second_task_on_the_same_texts_encodes_nothing(embedder, passes, task_name):
    path = embedder("model")
    model = mteb.get_model(str(path))
    (first,) = evaluate(model, mteb.get_task(task_name))
    assert sum(passes) == 160
    passes.clear()
    assert evaluate(model, SecondTask()) == [first]
    assert passes == []
    # Nor does a second run, of a folder that was moved.
    moved = mteb.get_model(str(path.rename(path.with_name("moved"))))
    assert evaluate(moved, SecondTask()) == [first]
    assert passes == []


def test_it_computes_what_the_model_computes(embedder, monkeypatch):
    model = mteb.get_model(str(embedder("model"))).model
    first, again = model.encode(TEXTS), model.encode(TEXTS)
    monkeypatch.setenv("ST_REASONING_EMBEDDINGS", "0")
    plain = mteb.get_model(str(embedder("model"))).model
    assert "encode" not in vars(plain)
    assert first.dtype == plain.encode(TEXTS).dtype
    np.testing.assert_allclose(first, plain.encode(TEXTS), atol=1e-6)
    np.testing.assert_array_equal(first, again)


def test_texts_that_are_there_are_not_computed_again(embedder, passes):
    model = mteb.get_model(str(embedder("model"))).model
    model.encode(["a", "b", "a"])
    assert sum(passes) == 2
    both = model.encode(["c", "b"])
    assert sum(passes) == 3
    np.testing.assert_array_equal(both[1], model.encode(["b"])[0])
    assert sum(passes) == 3


def change_prompt(model):
    return {"prompt": "Query: "}


def change_length(model):
    model.max_seq_length = 5


def change_dimension(model):
    return {"truncate_dim": 8}


def change_dimension_of_model(model):
    model.truncate_dim = 8


def change_norm(model):
    return {"normalize_embeddings": True}


def change_precision_of_model(model):
    model.double()


def change_weights(model):
    model[0].model.layers[0].self_attn.q_proj.weight.data.mul_(2)


def change_pooling(model):
    model[1].include_prompt = False


def change_attention(model):
    model[0].model.config.is_causal = False


def change_default_prompt(model):
    model.prompts["other"] = "Other: "
    model.default_prompt_name = "other"


@pytest.mark.parametrize(
    "change",
    [
        change_prompt, change_length, change_dimension, change_dimension_of_model, change_norm,
        change_precision_of_model, change_weights, change_pooling, change_attention, change_default_prompt,
    ],
)  # fmt: skip
def test_whatever_changes_the_embedding_is_computed_anew(embedder, passes, change):
    model = mteb.get_model(str(embedder("model"))).model
    model.encode(["one text of some length"])
    options = change(model) or {}
    found = model.encode(["one text of some length"], **options)
    assert sum(passes) == 2
    np.testing.assert_allclose(found, type(model).encode(model, ["one text of some length"], **options), atol=1e-6)


def test_another_model_of_the_same_name_is_another_model(embedder, passes):
    one, two = (mteb.get_model(str(embedder(place, "final", seed=seed))).model for seed, place in enumerate("ab"))
    assert not np.array_equal(one.encode(["text"]), two.encode(["text"]))
    assert sum(passes) == 2


def test_the_default_prompt_of_a_side_is_part_of_the_key(embedder, passes):
    model = mteb.get_model(str(embedder("model", default_prompt="say: "))).model
    assert np.array_equal(model.encode_document(["text"]), model.encode(["text"], prompt="say: "))
    plain = model.encode(["text"], prompt="")
    assert not np.array_equal(plain, model.encode_document(["text"]))
    assert sum(passes) == 2
    # Whatever prompt sentence-transformers takes for a query of such a model, the embedding is that of this prompt.
    found = model.encode_query(["text"])
    np.testing.assert_allclose(found, type(model).encode(model, ["text"], task="query"), atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"precision": "int8"}, {"convert_to_tensor": True}, {"output_value": "token_embeddings"}]
)
def test_what_is_no_plain_embedding_is_left_to_the_model(embedder, passes, options, folder):
    model = mteb.get_model(str(embedder("model"))).model
    for _ in range(2):
        model.encode(["one", "two"], **options)
    assert sum(passes) == 4
    assert not folder.exists()


def test_a_side_without_prompt_is_the_text_itself(embedder, passes):
    """Queries of a retrieval task answer for the same texts in clustering, unless a module looks at the side."""
    model = mteb.get_model(str(embedder("model"))).model
    found = model.encode_query(["one text"], prompt="")
    np.testing.assert_array_equal(model.encode(["one text"], prompt=""), found)
    np.testing.assert_array_equal(model.encode_document(["one text"], prompt=""), found)
    assert sum(passes) == 1


def test_a_module_that_looks_at_the_side_is_asked_for_each(embedder, passes, monkeypatch):
    model = mteb.get_model(str(embedder("model"))).model
    monkeypatch.setattr(type(model[1]), "forward_kwargs", {"task"}, raising=False)
    forward = type(model[1]).forward
    monkeypatch.setattr(type(model[1]), "forward", lambda self, found, task=None: forward(self, found))
    model.encode_query(["one text"], prompt="")
    model.encode_document(["one text"], prompt="")
    assert sum(passes) == 2


def test_a_foreign_module_may_look_at_the_side(embedder, passes):
    model = mteb.get_model(str(embedder("model"))).model
    model[1].__class__ = type("Foreign", (type(model[1]),), {"__module__": "foreign"})
    model.encode_query(["one text"], prompt="")
    model.encode_document(["one text"], prompt="")
    assert sum(passes) == 2


def test_a_single_text_and_none_are_left_to_the_model(embedder):
    model = mteb.get_model(str(embedder("model"))).model
    assert model.encode("one").shape == (16,)
    assert len(model.encode([])) == 0
    with pytest.raises(TypeError):
        model.encode()


def test_copies_and_other_processes_compute(embedder, passes):
    model = mteb.get_model(str(embedder("model"))).model
    model.encode(["text"])
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        passes.clear()
        np.testing.assert_allclose(other.encode(["text"]), model.encode(["text"]), atol=1e-6)
        assert passes == [1]


@pytest.mark.parametrize("damage", ["cut", "flipped", "garbage"])
def test_a_damaged_file_is_computed_again_with_a_warning(embedder, passes, folder, damage):
    path = embedder("model")
    good = mteb.get_model(str(path)).model.encode(TEXTS)
    (file,) = folder.glob("*/*.safetensors")
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[-3] ^= 64
    file.write_bytes({"cut": content[:-9], "flipped": content, "garbage": b"no safetensors"}[damage])
    passes.clear()
    model = mteb.get_model(str(path)).model
    with pytest.warns(RuntimeWarning, match="are damaged .* computed again"):
        np.testing.assert_allclose(model.encode(TEXTS), good, atol=1e-6)
    assert sum(passes) == len(set(TEXTS))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mteb.get_model(str(path)).model.encode(TEXTS)
    assert sum(passes) == len(set(TEXTS))


def test_the_files_keep_the_limit_and_the_oldest_go(tmp_path):
    store = EmbeddingStore(tmp_path / "kept", limit=10_000)
    rng = np.random.default_rng(0)
    for place in range(8):
        store.add("scope", {f"text {place}": rng.normal(size=500).astype(np.float32)})  # 2,000 bytes and a header
        for file in (tmp_path / "kept").glob("*/*"):
            os.utime(file, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns - 10**9))
        store.find("scope", ["text 0"])  # in use: not the oldest
    sizes = [file.stat().st_size for file in (tmp_path / "kept").glob("*/*")]
    assert 6_000 < sum(sizes) <= 10_000
    found = EmbeddingStore(tmp_path / "kept", limit=10_000).find("scope", [f"text {place}" for place in range(8)])
    assert set(found) == {"text 0", "text 5", "text 6", "text 7"}
    store.add("scope", {"too much": rng.normal(size=5_000).astype(np.float32)})
    assert set(EmbeddingStore(tmp_path / "kept", limit=10_000).find("scope", found)) == set(found)


def test_what_a_killed_process_left_goes(tmp_path):
    store = EmbeddingStore(tmp_path, limit=10_000)
    (tmp_path / "scope").mkdir()
    old, new = tmp_path / "scope" / ".a.1.partial", tmp_path / "scope" / ".b.2.partial"
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (0, 0))
    store.add("scope", {"text": np.ones(3, np.float32)})
    assert not old.exists()
    assert new.exists()  # perhaps of one that is at work


def test_files_that_another_process_throws_out_or_adds(tmp_path):
    one, two = (EmbeddingStore(tmp_path, limit=10_000) for _ in range(2))
    one.add("scope", {"text": np.ones(3, np.float32)})
    assert set(two.find("scope", ["text", "other"])) == {"text"}
    two.add("scope", {"other": np.zeros(3, np.float32)})
    assert set(one.find("scope", ["text", "other"])) == {"text", "other"}
    for file in tmp_path.glob("*/*"):
        file.unlink()
    assert one.find("scope", ["text", "other"]) == {}


def test_a_folder_that_cannot_be_written_costs_a_warning(embedder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ST_REASONING_EMBEDDINGS", str(tmp_path / "file"))
    model = mteb.get_model(str(embedder("model"))).model
    with pytest.warns(RuntimeWarning, match="cannot be stored .* Set ST_REASONING_EMBEDDINGS to another folder"):
        assert model.encode(["text"]).shape == (1, 16)


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.delenv("ST_REASONING_EMBEDDINGS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert usual_store().folder == tmp_path / "st-reasoning" / "embeddings"
    assert usual_store().limit == 2_000_000_000
    monkeypatch.setenv("ST_REASONING_EMBEDDINGS_MB", "1")
    assert usual_store().limit == 1_000_000
    monkeypatch.setenv("ST_REASONING_EMBEDDINGS_MB", "much")
    with pytest.raises(InputError, match="ST_REASONING_EMBEDDINGS_MB is 'much'; expected a number of megabytes"):
        usual_store()


def test_two_processes_at_once(embedder, folder, task_name):
    path = embedder("model")
    code = (
        "import sys, mteb, mteb_tasks\n"
        "model, task = mteb.get_model(sys.argv[1]), mteb.get_task(sys.argv[2])\n"
        "result = mteb.evaluate(model, task, cache=None, co2_tracker=False)\n"
        "print(result.task_results[0].scores['test'][0]['main_score'])"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error::RuntimeWarning", "-c", code, path, task_name],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    answers = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], answers
    assert answers[0][0] == answers[1][0]
    assert not list(folder.glob("*/*.partial"))


def test_a_model_changed_after_loading_has_other_keys(embedder, passes):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(embedder("model")))
    cache_embeddings(model, identity="one", store=usual_store())
    before = model.encode(["text"])
    for parameter in model.parameters():
        parameter.data.add_(0.1)  # a step of training
    assert not np.array_equal(model.encode(["text"]), before)
    assert sum(passes) == 2
