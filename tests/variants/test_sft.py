"""Supervised fine-tuning of a tiny LLM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from st_reasoning.attention import probe_attention
from st_reasoning.backbone import open_model
from st_reasoning.checkpoints import Checkpoints
from st_reasoning.errors import InputError
from st_reasoning.files import read_json
from st_reasoning.variants import SFTRecipe, fine_tune
from st_reasoning.variants.saving import VARIANT_RECORD


def test_a_variant_is_an_ordinary_causal_llm_that_learnt(tiny_llm: Path, tmp_path: Path) -> None:
    out = tmp_path / "variant"
    recipe = SFTRecipe(examples=32, batch_size=4, epochs=3, learning_rate=3e-3, check_examples=6)
    facts = fine_tune(recipe, str(tiny_llm), out)
    assert np.isfinite(facts["losses"]).all()
    assert facts["held_out_loss"]["after"] < facts["held_out_loss"]["before"] - 0.1
    assert read_json(out / VARIANT_RECORD)["data"] == facts["data"]
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.config.model_type == "llama"
    assert AutoTokenizer.from_pretrained(out)("3 + 4")["input_ids"]
    assert list(out.glob("*.bin")) == []
    assert probe_attention(open_model(str(out))).attention == "causal"


def test_only_the_solution_is_learnt(tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset

    from st_reasoning.backbone import load_causal_lm
    from st_reasoning.variants.sft import _build_trainer

    model, tokenizer = load_causal_lm(str(tiny_llm))
    rows = Dataset.from_list([{"prompt": "How many apples?\n", "completion": "3 + 4 = 7"}])
    trainer = _build_trainer(SFTRecipe(batch_size=1), model, tokenizer, rows, rows, Checkpoints(Path("none"), ""))
    batch = next(iter(trainer.get_train_dataloader()))
    labels = batch["labels"][0]
    learnt = tokenizer.decode(labels[labels != -100])
    assert learnt == "3 + 4 = 7</s>"


def test_wrong_values_are_refused() -> None:
    with pytest.raises(InputError, match="examples must be positive, got 0"):
        SFTRecipe(examples=0)
    with pytest.raises(InputError, match="unknown dtype"):
        SFTRecipe(dtype="int4")
