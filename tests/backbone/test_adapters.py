"""LoRA adapters become plain weights that compute the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM

from st_reasoning.attention import probe_attention
from st_reasoning.backbone import convert, load_causal_lm, save_embedder
from st_reasoning.errors import ConversionError, InputError
from tests.models import write_adapter

TEXTS = ["How many apples does she have?", "7", "First add the apples to the pears."]


@pytest.fixture(scope="module")
def adapter(tiny_llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that moves embeddings a lot, saved the way PEFT does: no config.json."""
    return write_adapter(tiny_llm, tmp_path_factory.mktemp("adapter") / "lora", scale=0.3)


def test_trap_an_adapter_folder_reloads_causal(adapter: Path) -> None:
    """What happens to those who save an adapter beside a bidirectional model."""
    assert not (adapter / "config.json").exists()


def test_the_merged_embedder_is_bidirectional_and_computes_what_the_adapter_did(
    adapter: Path, tiny_llm: Path, tmp_path: Path
) -> None:
    save_embedder(convert(str(adapter)), tmp_path / "out")
    assert not list((tmp_path / "out").glob("adapter*"))
    copy = SentenceTransformer(str(tmp_path / "out"))
    assert probe_attention(copy).attention == "bidirectional"
    # Witness: the adapter unmerged on the base, made bidirectional by hand, mean-pooled by hand.
    unmerged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llm), adapter).eval()
    unmerged.config.is_causal = False
    for text, embedding in zip(TEXTS, copy.encode(TEXTS), strict=True):
        ids = copy.tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            mean = unmerged(input_ids=ids, output_hidden_states=True).hidden_states[-1][0].mean(0)
        np.testing.assert_allclose(embedding, (mean / mean.norm()).numpy(), atol=1e-5)
    assert not np.allclose(copy.encode(TEXTS), convert(str(tiny_llm)).encode(TEXTS), atol=1e-2)


def test_an_adapter_can_be_any_arm_of_a_study(adapter: Path) -> None:
    model, tokenizer = load_causal_lm(str(adapter))
    assert type(model).__name__ == "LlamaForCausalLM"
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert tokenizer("apples")["input_ids"]


def test_an_adapter_without_effect_is_refused(tiny_llm: Path, adapter: Path, tmp_path: Path) -> None:
    zero = write_adapter(tiny_llm, tmp_path / "zero", scale=0.0)
    with pytest.raises(ConversionError, match="changes nothing"):
        convert(str(zero))


def test_an_adapter_without_its_base_is_refused(adapter: Path, tmp_path: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    for base, said in (("./gone", "no such backbone: ./gone"), (None, "does not name its base model")):
        (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": base}))
        with pytest.raises(InputError, match=said):
            convert(str(tmp_path))
