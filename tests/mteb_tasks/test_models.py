"""What mteb is told of models: published ones by name, trained folders by their record."""

import json
import sys
from pathlib import Path

import mteb
import pytest

import mteb_tasks
from mteb_tasks.models import MTEB_NAMES, PUBLISHED
from st_reasoning.config import read_yaml
from st_reasoning.errors import InputError

REGISTRY = sys.modules["mteb.models.model_implementations"].MODEL_REGISTRY


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_studys_embedders_are_known_by_name(name):
    meta = mteb.get_model_meta(name, fetch_from_hf=False)
    assert (meta.name, meta.use_instructions, meta.adapted_from) == (name, True, PUBLISHED[name])
    assert {"MSMARCO", "HotpotQA", "FEVER", "NQ"} <= meta.training_datasets
    assert meta in mteb.get_model_metas(use_instructions=True)
    assert meta.is_zero_shot_on([mteb.get_task("NQ")]) is False
    refused = r"no commit of it is known here: look at one, name it with --model-revision, and set .*REMOTE_CODE=1"
    with pytest.raises(InputError, match=refused):
        meta.load_model()
    with pytest.raises(InputError, match=refused):
        mteb.get_model_meta(name, revision="0" * 40).load_model()
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert mteb.get_model_meta(name, revision=commit).revision == commit
    with pytest.raises(ValueError, match=r"revision .* not found"):
        mteb.get_model_meta("intfloat/e5-small-v2", revision=commit)


def test_a_model_that_mteb_knows_is_not_replaced(monkeypatch):
    name = next(iter(PUBLISHED))
    monkeypatch.setitem(REGISTRY, name, "theirs")
    mteb_tasks.plug_in(mteb)
    assert REGISTRY[name] == "theirs"


def test_recipes_and_mteb_call_the_same_data_by_their_own_names():
    recipe = read_yaml(Path(__file__).parents[2] / "recipes" / "paper.yaml")
    assert {each["name"] for each in recipe["data"]} == set(MTEB_NAMES)


def test_a_folder_says_what_it_was_made_of(embedder):
    folder = embedder("trained")
    recipe = {"data": [{"name": "msmarco"}, {"name": "my-own"}]}
    record = {"backbone": "Qwen/Qwen3-0.6B", "source": "hub", "training": {"recipe": recipe}}
    (folder / "st_reasoning.json").write_text(json.dumps(record))
    meta = mteb.get_model_meta(str(folder))
    assert (meta.adapted_from, meta.training_datasets) == ("Qwen/Qwen3-0.6B", {"MSMARCO", "my-own"})
    assert meta.is_zero_shot_on([mteb.get_task("MSMARCO")]) is False
    (folder / "st_reasoning.json").write_text(json.dumps({"backbone": "/home/me/llm", "source": "folder"}))
    meta = mteb.get_model_meta(str(folder))
    assert (meta.adapted_from, meta.training_datasets) == (None, None)
