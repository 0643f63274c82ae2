"""Backbones by hub name, without the hub: its client reads a cache that was laid out by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from st_reasoning.backbone import convert
from tests.models import make_llama, put_in_hub_cache, write_adapter

TEXTS = ["How many apples does she have?", "7"]

# In a process of its own: the client reads HF_HOME when it is imported.
SCRIPT = """
import json, sys
from pathlib import Path
from sentence_transformers import SentenceTransformer
from st_reasoning.attention import probe_attention
from st_reasoning.backbone import audit, convert, load_causal_lm, resolve, save_embedder
from st_reasoning.errors import InputError
from st_reasoning.study import Corpus, Pair, Reasoning, StudyRecipe
from st_reasoning.study.run import plan_study
from st_reasoning.training import DataSet, Generated, TrainingRecipe

out, texts, found = Path(sys.argv[1]), json.loads(sys.argv[2]), {}
for name in ("org/base", "org/lora", "org/own-words"):
    save_embedder(convert(name), out / name)
    copy = SentenceTransformer(str(out / name))
    found[name] = {
        "kind": resolve(name).kind,
        "attention": probe_attention(copy).attention,
        "embeddings": copy.encode(texts).tolist(),
        "files": sorted(path.name for path in (out / name).iterdir()),
        "differs": [f.name for f in audit("org/base", name).differences],
    }
for name in ("org/no-weights", "org/unknown", "org/no-base"):
    try:
        convert(name)
    except InputError as error:
        found[name] = str(error)
training = TrainingRecipe(data=(DataSet("gsm", "Find.", generated=Generated("gsm_symbolic", 8)),))
pair = Pair("pair", "org/base", Reasoning(backbone="org/lora"))
recipe = StudyRecipe(
    (pair,), training, ("GSMSymbolicSolutionRetrieval",), seeds=(0,), hrsa=Corpus(templates=3, per_template=6)
)
imports = [step for step in plan_study(recipe, out) if step.name.startswith("import/")]
found["imports"] = {step.name: (step.inputs() if callable(step.inputs) else step.inputs)["inputs"] for step in imports}
(out / "found.json").write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What is on the hub, as folders: a model and an adapter on it."""
    folder = tmp_path_factory.mktemp("local")
    base = make_llama(folder / "base")
    return base, write_adapter(base, folder / "lora", scale=0.3)


@pytest.fixture(scope="module")
def found(local: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("hub")
    home, out = folder / "home", folder / "out"
    base, _ = local
    lora = write_adapter(base, folder / "lora", scale=0.3, base_name="org/base")
    put_in_hub_cache(base, home, "org/base")
    put_in_hub_cache(lora, home, "org/lora")
    own = put_in_hub_cache(lora, home, "org/own-words")
    for file in ("tokenizer.json", "tokenizer_config.json"):  # without the chat template of the base
        (own / file).write_text((base / file).read_text())
    (put_in_hub_cache(lora, home, "org/no-weights") / "adapter_model.safetensors").unlink()
    orphan = put_in_hub_cache(lora, home, "org/no-base") / "adapter_config.json"
    orphan.write_text(orphan.read_text().replace("org/base", "org/unknown"))
    out.mkdir()
    # Beside the client's cache HF_HOME names those of other libraries; a token of the user's has no place here.
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.getcwd()}
    environment = {name: value for name, value in environment.items() if name not in ("HF_HUB_CACHE", "HF_TOKEN")}
    command = [sys.executable, "-c", SCRIPT, str(out), json.dumps(TEXTS)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    return dict(json.loads((out / "found.json").read_text()))


def test_a_hub_name_is_a_model_or_an_adapter(found: dict[str, Any], local: tuple[Path, Path]) -> None:
    for name, kind, folder in (("org/base", "hub", local[0]), ("org/lora", "adapter", local[1])):
        assert found[name]["kind"] == kind
        assert found[name]["attention"] == "bidirectional"
        np.testing.assert_allclose(found[name]["embeddings"], convert(str(folder)).encode(TEXTS), atol=1e-6)
    assert not np.allclose(found["org/base"]["embeddings"], found["org/lora"]["embeddings"], atol=1e-2)
    assert found["org/lora"]["files"] == found["org/base"]["files"]  # plain: no trace of PEFT


def test_an_adapter_on_the_hub_may_bring_its_tokenizer(found: dict[str, Any]) -> None:
    assert found["org/lora"]["differs"] == []
    assert found["org/own-words"]["differs"] == ["chat_template"]
    assert "chat_template.jinja" in found["org/lora"]["files"]
    assert "chat_template.jinja" not in found["org/own-words"]["files"]


def test_what_the_cache_lacks_is_named_in_one_line(found: dict[str, Any]) -> None:
    for name, missing in (("org/no-weights",) * 2, ("org/unknown",) * 2, ("org/no-base", "org/unknown")):
        assert found[name].startswith(f"cannot load the backbone '{missing}' on the hub (HF_HUB_OFFLINE is set): ")
        assert "\n" not in found[name]


def test_a_study_merges_an_adapter_from_the_hub_once(found: dict[str, Any]) -> None:
    base = {"backbone": "base", "hash": "org/base"}
    assert found["imports"] == {"import/lora": {"backbone": "lora", "hash": "org/lora", "base": base}}
