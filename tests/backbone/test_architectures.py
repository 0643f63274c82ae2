"""The table of architectures: every family is what the table says, and the document says the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, AutoModelForCausalLM

from st_reasoning.attention import probe_attention, probe_transformer
from st_reasoning.backbone import convert, save_embedder
from st_reasoning.errors import ConversionError
from st_reasoning.study.steps import convert_backbone
from tests.backbone.architectures import COMMAND, DOCUMENT, FAMILIES, TINY, classify, render, tiny_config, tiny_model
from tests.models import make_tokenizer

TEXTS = ["How many apples does she have?", "7", "First add the apples to the pears: 3 + 4 = 7. Then subtract 2."]


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    """Without their CUDA kernels, state space models say on every forward pass that they are slow."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity(before)


@pytest.fixture
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A tiny model of the family that the test names, saved with a tokenizer as a plain causal-LM folder."""
    folder = tmp_path / request.param
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny_config(request.param)).save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def family(name: str) -> Any:
    return pytest.mark.parametrize("backbone", [name], indirect=True)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_verdict_is_the_expected_one(name: str) -> None:
    row, expected = classify(name), FAMILIES[name]
    assert (row.verdict, row.causal) == (expected.verdict, expected.causal), row
    assert (row.implementation == "") is (row.verdict == "refused")
    assert not row.reason or row.verdict != "bidirectional" or not row.layers


@pytest.mark.parametrize("name", FAMILIES)
def test_a_causal_model_is_seen_as_causal(name: str) -> None:
    """No false positives: neither rounding (mixtures of experts) nor padding looks like attention to later tokens."""
    model = tiny_model(name, is_causal=True)
    for implementation in dict.fromkeys((model.config._attn_implementation, "eager")):
        model.set_attn_implementation(implementation)
        report = probe_transformer(model)
        assert report.attention == "causal", report.describe()
        assert set(report.layers) <= {"causal"}, report.describe()


def test_no_family_drops_out() -> None:
    """A family that transformers renames or removes fails above; one that leaves the table fails here."""
    verdicts = [expected.verdict for expected in FAMILIES.values()]
    assert {verdict: verdicts.count(verdict) for verdict in verdicts} == {
        "bidirectional": 67, "eager only": 10, "partly": 12, "refused": 7,
    }  # fmt: skip
    assert list(FAMILIES) == sorted(FAMILIES)


def test_every_size_is_of_use() -> None:
    """A name that no config has any more would leave a model large, or not do what it is there for."""
    defaults = [AutoConfig.for_model(name) for name in FAMILIES]
    assert set(TINY) <= {name for default in defaults for name in (*vars(default), *type(default).attribute_map)}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_models_are_tiny_and_a_window_is_shorter_than_the_long_probe(name: str) -> None:
    model = tiny_model(name, is_causal=True)
    assert sum(parameter.numel() for parameter in model.parameters()) < 500_000
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    assert window in (None, 0, TINY["sliding_window"])


def test_the_document_is_what_is_found() -> None:
    found = render([classify(name) for name in FAMILIES])
    same = DOCUMENT.read_text(encoding="utf-8") == found
    assert same, f"{DOCUMENT.name} says otherwise than what is found; write it anew: {COMMAND}"


# The last five: their last token moves the far ones by no more than 1e-2.
HALF = [
    *("llama", "gemma3_text", "mixtral", "stablelm", "gpt_oss", "falcon_h1", "jamba", "mamba", "mpt"),
    *("ctrl", "llama4_text", "minicpm3", "nanochat", "olmo_hybrid"),
]


@pytest.mark.parametrize("name", HALF)
def test_bfloat16_has_the_verdict_of_float32(name: str) -> None:
    assert classify(name, torch.bfloat16) == classify(name)
    assert probe_transformer(tiny_model(name, is_causal=True, dtype=torch.bfloat16)).attention == "causal"


def test_a_model_that_cannot_run_is_a_conversion_error() -> None:
    model = tiny_model("mpt", is_causal=False).train()
    with pytest.raises(
        ConversionError, match=r"^MptModel under eager cannot run a batch of 3 texts of 5 tokens: AttributeError: .*$"
    ) as refused:
        probe_transformer(model)
    assert isinstance(refused.value.__cause__, AttributeError)
    assert model.training, "the probe leaves the model as it was, whatever happens"


def test_a_layer_that_crashes_leaves_no_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama", is_causal=True)

    def crash(*_: Any, **__: Any) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(model.layers[2], "forward", crash)
    with pytest.raises(ConversionError, match=r"LlamaModel under sdpa cannot run .*: RuntimeError: first line$"):
        probe_transformer(model)
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.layers)


def moved(model: SentenceTransformer, *, padded: bool) -> float:
    """How far the first token moves when the last one changes; a second witness, without the probe's code."""
    texts = ["She has three apples", "She has three pears", *(["She has three apples and one more"] if padded else [])]
    batch = model.tokenizer(texts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        first = (
            model[0].model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state[:, 0]
        )
    return float((first[0] - first[1]).abs().max())


def assert_one_embedding_per_text(model: SentenceTransformer) -> None:
    alone = np.concatenate([model.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(model.encode(TEXTS), alone, atol=1e-5)


@family("qwen3")
def test_convert_a_family_with_sdpa(backbone: Path, tmp_path: Path) -> None:
    model = convert(str(backbone))
    assert (model.st_reasoning.attention.attention, model.st_reasoning.attention.implementation) == (
        "bidirectional", "sdpa",
    )  # fmt: skip
    save_embedder(model, tmp_path / "out")
    assert_one_embedding_per_text(SentenceTransformer(str(tmp_path / "out")))


@family("stablelm")
def test_trap_a_family_that_needs_eager_stays_bidirectional_when_reloaded(backbone: Path, tmp_path: Path) -> None:
    """Under SDPA it is causal where a batch has no padding: loaded plainly, one text would have two embeddings."""
    model = convert(str(backbone))
    assert model.st_reasoning.attention.implementation == "eager"
    save_embedder(model, tmp_path / "out")
    copy = SentenceTransformer(str(tmp_path / "out"))
    assert probe_attention(copy).attention == "bidirectional"
    assert moved(copy, padded=False) > 1e-3
    assert moved(copy, padded=True) > 1e-3
    assert_one_embedding_per_text(copy)
    np.testing.assert_allclose(copy.encode(TEXTS), model.encode(TEXTS), atol=1e-5)
    # The trap itself: the same folder under SDPA. If this fails, the library has mended it.
    naive = SentenceTransformer(str(tmp_path / "out"))
    naive[0].model.set_attn_implementation("sdpa")
    assert moved(naive, padded=False) == 0
    assert moved(naive, padded=True) > 1e-3
    assert np.abs(naive.encode(TEXTS)[0] - naive.encode(TEXTS[:1])[0]).max() > 1e-2


@pytest.mark.parametrize("backbone", ["jamba", "lfm2"], indirect=True)
def test_a_hybrid_is_refused_unless_partial(backbone: Path, tmp_path: Path) -> None:
    architecture = classify(backbone.name).architecture
    with pytest.raises(ConversionError, match=rf"{architecture} under sdpa is mixed.*layers 0, 2 of 4.*partial=True"):
        convert_backbone(str(backbone), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    convert_backbone(str(backbone), tmp_path / "out", partial=True)
    report = probe_attention(SentenceTransformer(str(tmp_path / "out")))
    assert report.partly
    assert report.causal_layers == classify(backbone.name).causal == (0, 2)


@pytest.mark.parametrize("backbone", ["mamba", "gpt_neo", "mpt"], indirect=True)
@pytest.mark.parametrize("partial", [False, True])
def test_a_family_that_cannot_be_bidirectional_is_refused(backbone: Path, tmp_path: Path, partial: bool) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConversionError, match=classify(backbone.name).architecture):
        convert_backbone(str(backbone), tmp_path / "out", partial=partial)
    assert sorted(tmp_path.iterdir()) == before


@family("mamba")
def test_a_refused_family_converts_as_the_causal_model_it_is(backbone: Path, tmp_path: Path) -> None:
    convert_backbone(str(backbone), tmp_path / "out", attention="causal")
    assert probe_attention(SentenceTransformer(str(tmp_path / "out"))).attention == "causal"
