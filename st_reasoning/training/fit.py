"""A recipe through the older door of sentence-transformers, ``SentenceTransformer.fit``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from st_reasoning.backbone import fit_template, format_instruction
from st_reasoning.errors import InputError
from st_reasoning.training.data import load_data

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from st_reasoning.training.recipe import TrainingRecipe

SCHEDULES = {"cosine": "warmupcosine", "linear": "warmuplinear", "constant": "warmupconstant"}
# What has no counterpart among the arguments of fit, and the value that asks for nothing.
IMPOSSIBLE = {"bf16": False, "gradient_checkpointing": False, "held_out": None, "lora": None, "save_every": None}


def fit_arguments(recipe: TrainingRecipe, model: SentenceTransformer) -> dict[str, Any]:
    """Return the arguments of ``fit``; see :meth:`TrainingRecipe.fit_arguments`."""
    from sentence_transformers.sentence_transformer.readers import InputExample
    from torch.utils.data import DataLoader

    from st_reasoning.training.run import build_loss

    for name, nothing in IMPOSSIBLE.items():
        if getattr(recipe, name) != nothing:
            raise InputError(f"SentenceTransformer.fit cannot do {name!r}; use recipe.trainer(model, seed=...) instead")
    if recipe.epochs != int(recipe.epochs):
        raise InputError(f"SentenceTransformer.fit trains whole epochs, got epochs {recipe.epochs}")
    template = fit_template(model.tokenizer, recipe.instruction_template)
    examples: list[InputExample] = []
    prompts: dict[str, None] = {}
    for dataset in load_data(recipe).datasets.values():
        for row in dataset:
            prompt = format_instruction(template, row.pop("instruction"))
            prompts[prompt] = None
            examples.append(InputExample(texts=[prompt + row.pop("query"), *row.values()]))
    model.max_seq_length = recipe.max_seq_length
    steps = -(-len(examples) // recipe.batch_size) * int(recipe.epochs)
    return {
        "train_objectives": [
            (
                DataLoader(examples, batch_size=recipe.batch_size),  # type: ignore[arg-type]
                build_loss(recipe, model, gather=False, prompts=tuple(filter(None, prompts))),
            )
        ],
        "epochs": int(recipe.epochs),
        "steps_per_epoch": recipe.max_steps,
        "scheduler": SCHEDULES[recipe.schedule],
        "warmup_steps": round(recipe.warmup * steps) if recipe.warmup < 1 else int(recipe.warmup),
        "optimizer_params": {"lr": recipe.learning_rate},
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
    }
