"""The recipes that are shipped, and what a wrong one is told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from accelerate import FullyShardedDataParallelPlugin

from st_reasoning.backbone.prompts import PAPER_TEMPLATE, format_instruction
from st_reasoning.errors import InputError
from st_reasoning.training import LoRA, TrainingRecipe

RECIPES = Path("recipes")
TRAINING = ["paper.yaml", "paper-lora.yaml", "smollm2.yaml", "training-template.yaml"]


@pytest.mark.parametrize("name", TRAINING)
def test_every_training_recipe_is_read(name: str) -> None:
    assert TrainingRecipe.read(RECIPES / name).data


def test_the_paper_to_the_letter() -> None:
    """STUDY.md, embedding recipe (arXiv 2601.21192, Tables 5 to 7)."""
    paper = TrainingRecipe.read(RECIPES / "paper.yaml")
    assert len(paper.data) == 11
    expected = {
        "attention": "bidirectional", "pooling": "mean", "temperature": 0.02, "hard_negatives": 3, "batch_size": 2048,
        "epochs": 1, "learning_rate": 2e-5, "schedule": "cosine", "warmup": 0.03, "weight_decay": 0.05, "bf16": True,
        "gradient_checkpointing": True, "max_seq_length": 512, "evaluation_max_seq_length": 8192, "lora": None,
    }  # fmt: skip
    assert {key: getattr(paper, key) for key in expected} == expected
    assert paper.max_steps == 1_603_172 // paper.batch_size == 782
    prompt = format_instruction(paper.instruction_template, "X")
    assert prompt == PAPER_TEMPLATE.replace("{instruction}", "X")
    assert prompt.startswith("Instruction: X")


def test_lora_is_the_papers_and_nothing_else_differs() -> None:
    paper, lora = (TrainingRecipe.read(RECIPES / name) for name in ("paper.yaml", "paper-lora.yaml"))
    assert lora.lora == LoRA(rank=16, alpha=32, dropout=0.1, targets="all-linear")
    assert dataclasses.replace(lora, lora=None) == paper


def test_the_template_names_every_key_with_its_default() -> None:
    written = yaml.safe_load((RECIPES / "training-template.yaml").read_text())
    fields = {field.name: field for field in dataclasses.fields(TrainingRecipe)}
    assert written.keys() == fields.keys()
    parsed = TrainingRecipe.read(RECIPES / "training-template.yaml")
    for name, field in fields.items():
        if name not in ("data", "instruction_template"):
            assert getattr(parsed, name) == field.default, name


def test_an_unknown_key_is_told_its_close_match(tmp_path: Path) -> None:
    text = (RECIPES / "paper-lora.yaml").read_text()
    for wrong, said in (
        ("temperatur: 0.02", "did you mean 'temperature'"),
        ("lora:\n  rang: 16", "did you mean 'rank'"),
    ):
        right = wrong.replace("temperatur:", "temperature:").replace("rang:", "rank:")
        (tmp_path / "wrong.yaml").write_text(text.replace(right, wrong))
        with pytest.raises(InputError, match=said):
            TrainingRecipe.read(tmp_path / "wrong.yaml")
    (tmp_path / "wrong.yaml").write_text(text.replace("rank: 16", "rank: 0"))
    with pytest.raises(InputError, match=r"wrong\.yaml, lora: lora: rank and alpha must be at least 1, got 0 and 32"):
        TrainingRecipe.read(tmp_path / "wrong.yaml")


def test_the_fsdp_configuration_is_what_accelerate_reads() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(RECIPES / "fsdp.yaml"))
    assert (config.distributed_type, config.num_processes, config.mixed_precision) == ("FSDP", 4, "bf16")
    # Keys that accelerate does not know would be dropped without a word.
    known = {f"fsdp_{field.name}" for field in dataclasses.fields(FullyShardedDataParallelPlugin)}
    assert set(config.fsdp_config) - {"fsdp_version"} <= known
