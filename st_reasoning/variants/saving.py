"""What every way of making a variant shares: problems, added weights, checkpoints, and the folder that is written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from st_reasoning.backbone import load_causal_lm, save_causal_lm
from st_reasoning.backbone.adapters import merged
from st_reasoning.backbone.lora import LoRA
from st_reasoning.backbone.sources import DTYPES, stamp
from st_reasoning.checkpoints import Checkpoints
from st_reasoning.config import versions
from st_reasoning.errors import InputError, unknown_name
from st_reasoning.files import content_hash, new_folder, write_json, write_text
from st_reasoning.problems.verified import VerifiedProblem, verified_problems

VARIANT_RECORD = "st_reasoning_variant.json"
SCHEMA = 2
NOTHING_EARNED = (
    "No completion earned anything in any step, so nothing was learnt: begin with a model that ends with a line "
    "`#### ANSWER`, and leave room for it (max_new_tokens)."
)


def check_recipe(recipe: Any, *, positive: tuple[str, ...], not_negative: tuple[str, ...]) -> None:
    """Refuse numbers that make no sense, and an unknown ``dtype``.

    Raises:
        InputError: naming the first one.
    """
    for name in positive:
        if getattr(recipe, name) <= 0:
            raise InputError(f"{name} must be positive, got {getattr(recipe, name)}")
    for name in not_negative:
        if getattr(recipe, name) < 0:
            raise InputError(f"{name} must not be negative, got {getattr(recipe, name)}")
    if recipe.dtype not in DTYPES:
        raise unknown_name("dtype", recipe.dtype, DTYPES)


def draw_problems(recipe: Any, train: int, check: int) -> tuple[list[VerifiedProblem], list[VerifiedProblem]]:
    """Draw so many problems to train on, and others to ask before and after."""
    asked = verified_problems(recipe.families, check, seed=recipe.data_seed + 1, held_out=True)
    questions = {problem.question for problem in asked}
    return verified_problems(recipe.families, train, seed=recipe.data_seed, exclude=questions), asked


def open_backbone(backbone: str, dtype: str) -> tuple[Any, Any]:
    """Return a causal LLM and its tokenizer, which can pad."""
    model, tokenizer = load_causal_lm(backbone, dtype=dtype)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def add_lora(model: Any, lora: LoRA | None, *, seed: int) -> Any:
    """Return the model with added weights, the only ones that are trained; itself without ``lora``."""
    if lora is None:
        return model
    from peft import get_peft_model
    from transformers import set_seed

    set_seed(seed)
    return get_peft_model(model, lora.configuration("CAUSAL_LM"))


def claim_checkpoints(
    recipe: Any, backbone: str, rows: list[dict[str, str]], output: Path, *, overwrite: bool
) -> tuple[Checkpoints, Path | None]:
    """Return where checkpoints go, and the one to go on from, if the recipe wants any and one is there.

    Raises:
        InputError: if there are checkpoints of another run, unless ``overwrite``.
    """
    decides = [asdict(recipe), stamp(backbone), rows, versions()]
    checkpoints = Checkpoints(output.with_name(f"{output.name}.checkpoints"), content_hash(decides))
    if not recipe.save_every:
        return checkpoints, None
    checkpoints.claim(overwrite=overwrite)
    return checkpoints, checkpoints.latest()


def trainer_arguments(recipe: Any, checkpoints: Checkpoints) -> dict[str, Any]:
    """Return the arguments that every trainer is given: seeds, a log line a step, checkpoints if wanted."""
    import torch

    # Without checkpoints the folder is never written to. Two of them: while one is written, the other is complete.
    saving: dict[str, Any] = {"output_dir": tempfile.gettempdir(), "save_strategy": "no"}
    if recipe.save_every:
        saving = {
            "output_dir": str(checkpoints.folder),
            "save_strategy": "steps",
            "save_steps": recipe.save_every,
            "save_total_limit": 2,
        }
    return {
        "bf16": False,
        "logging_steps": 1,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "report_to": "none",
        "dataloader_pin_memory": torch.cuda.is_available(),
        **saving,
    }


def save_variant(
    model: Any,
    tokenizer: Any,
    output: Path,
    *,
    after: Callable[[], dict[str, Any] | None],
    facts: dict[str, Any],
    overwrite: bool,
    checkpoints: Checkpoints | None,
) -> dict[str, Any]:
    """Merge added weights, ask the model once more, and write it with its record and card.

    Args:
        model: Trained, with added weights or without.
        tokenizer: Its tokenizer.
        output: The folder.
        after: Returns the accuracy of the model as it is written, None where nobody wants to know.
        facts: What is recorded; ``accuracy`` gets ``after``.
        overwrite: Whether to replace what is there.
        checkpoints: Deleted when all is written.

    Returns:
        The record.

    Raises:
        ConversionError: if merging changes what the model computes.
    """
    if hasattr(model, "merge_and_unload"):
        model = merged(model, "the trained LoRA weights", dtype=facts["recipe"]["dtype"])
    record = {"schema": SCHEMA, **facts, "device": trained_on(model), "versions": versions()}
    record["accuracy"] = {**facts["accuracy"], "after": after()}
    with new_folder(output, overwrite=overwrite) as scratch:
        save_causal_lm(model, tokenizer, scratch)
        write_json(scratch / VARIANT_RECORD, record)
        write_text(scratch / "README.md", card(record))
    if checkpoints is not None:
        checkpoints.remove()
    return record


def trained_on(model: Any) -> str:
    """Return what a model is trained on, as it is recorded."""
    import torch

    device = model.device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' if threads != 1 else ''}" if device.type == "cpu" else str(device)


def card(record: dict[str, Any], *, licence: str | None = None) -> str:
    """Return the model card of a variant: from what, on what, how long, and what came of it.

    Args:
        record: What was recorded beside the weights.
        licence: Its identifier on the hub; by default none is named, for it depends on the base.
    """
    method = {"sft": "Supervised fine-tuning", "rlvr": "Reinforcement learning with verifiable rewards (GRPO)"}
    recipe = record["recipe"]
    settings = "\n".join(f"- {name}: {value}" for name, value in recipe.items())
    licensed = f"license: {licence}\n" if licence else ""
    return f"""---
library_name: transformers
pipeline_tag: text-generation
{licensed}tags:
- st-reasoning
- {record["method"]}
---

# {method[record["method"]]} of {record["base"]}

An ordinary causal language model. {record["data"]["examples"]:,} problems drawn with reasoning-gym
{record["versions"].get("reasoning-gym", "")}; {_trained(record)}.

{_solved(record)}
Prompts are a question and a line break; answers end with a line `#### ANSWER`.

## Settings

{settings}

Everything else is in `{VARIANT_RECORD}`.
"""


def _trained(record: dict[str, Any]) -> str:
    """Say for how long, on what of the problems, and where."""
    recipe, since = record["recipe"], record["resumed_at"]
    steps = len(record["rewards"] if "rewards" in record else record["losses"])
    each = f"{recipe['batch_size']} solutions"
    if "rewards" in record:
        each = f"{recipe['batch_size'] // recipe['group']} problems, each with {recipe['group']} completions"
    taken = f"{record['seconds']:.0f} s on {record['device']}"
    return f"{steps:,} steps of {each}; {taken}" + (f" since step {since}, where it went on" if since else "")


def _solved(record: dict[str, Any]) -> str:
    """Return what the model solves as a table, and the loss where it was measured."""
    lines = []
    if loss := record.get("held_out_loss"):
        lines += [
            f"Loss per token of {loss['examples']} solutions never trained on: {loss['before']:.3f} before, "
            f"{loss['after']:.3f} after.",
            "",
        ]
    if "rewards" in record and not any(record["rewards"]):
        lines += [NOTHING_EARNED, ""]
    before, after = record["accuracy"]["before"], record["accuracy"]["after"]
    if before is None or after is None:
        return "\n".join([*lines, "How many problems it solves was not measured.", ""])
    lines += [
        f"Problems never trained on, percent solved before and after, greedily and sampled ({after['samples']} samples "
        f"each, temperature {after['temperature']}):",
        "",
        "| family | problems | greedy | sampled | cut |",
        "|---|---|---|---|---|",
    ]
    for name in (None, *after["families"]):
        old, new = (found if name is None else found["families"][name] for found in (before, after))
        cells = [f"{100 * old[how]:.1f} to {100 * new[how]:.1f}" for how in ("greedy", "sampled")]
        cells.append(f"{100 * old['cut']:.1f} to {100 * new['cut']:.1f}")
        lines.append(f"| {name or 'all'} | {new['problems']} | {' | '.join(cells)} |")
    lines += ["", "Cut: greedy completions that were not at their end, and count as wrong."]
    return "\n".join([*lines, ""])
