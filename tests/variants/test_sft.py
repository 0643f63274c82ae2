"""Supervised fine-tuning of a tiny LLM."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from st_reasoning.attention import probe_attention
from st_reasoning.backbone import open_model
from st_reasoning.checkpoints import Checkpoints
from st_reasoning.errors import InputError
from st_reasoning.files import read_json
from st_reasoning.variants import LoRA, SFTRecipe, fine_tune
from st_reasoning.variants.saving import VARIANT_RECORD


def test_a_variant_is_an_ordinary_causal_llm_that_learnt(tiny_llm: Path, tmp_path: Path) -> None:
    out = tmp_path / "variant"
    recipe = SFTRecipe(examples=32, batch_size=4, epochs=3, learning_rate=3e-3, check_examples=6)
    facts = fine_tune(recipe, str(tiny_llm), out)
    assert np.isfinite(facts["losses"]).all()
    assert facts["held_out_loss"]["after"] < facts["held_out_loss"]["before"] - 0.1
    assert read_json(out / VARIANT_RECORD)["data"] == facts["data"]
    accuracy = facts["accuracy"]
    assert accuracy["before"]["problems"] == accuracy["after"]["problems"] == 6
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"# Supervised fine-tuning of {tiny_llm}" in card
    assert f"32 problems drawn with reasoning-gym\n{version('reasoning-gym')}; 24 steps of 4 solutions" in card
    assert f"{facts['seconds']:.0f} s on cpu, " in card
    solved = [f"{100 * accuracy[when][how]:.1f}" for how in ("greedy", "sampled") for when in ("before", "after")]
    assert "| all | 6 | {} to {} | {} to {} |".format(*solved) in card
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.config.model_type == "llama"
    assert AutoTokenizer.from_pretrained(out)("3 + 4")["input_ids"]
    assert list(out.glob("*.bin")) == []
    assert probe_attention(open_model(str(out))).attention == "causal"


def test_added_weights_are_merged(tiny_llm: Path, tmp_path: Path) -> None:
    out = tmp_path / "lora"
    lora = LoRA(rank=2, alpha=4)
    recipe = SFTRecipe(examples=8, batch_size=4, learning_rate=1e-2, check_examples=2, check_new_tokens=0, lora=lora)
    assert fine_tune(recipe, str(tiny_llm), out)["recipe"]["lora"]["rank"] == 2
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_llm, out))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert "was not measured" in (out / "README.md").read_text(encoding="utf-8")


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
