"""The micro models from nothing: base, by solutions, by rewards, by rewards for longer; then figures and card."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from st_reasoning.backbone import load_causal_lm
from st_reasoning.config import parse, read_yaml, to_mapping, versions, write_resolved
from st_reasoning.errors import InputError
from st_reasoning.files import content_hash, read_json, write_json, write_text
from st_reasoning.micro import CARD, FIGURES, MODELS, backbone_name
from st_reasoning.micro.card import base_card, card
from st_reasoning.micro.checksums import write_checksums
from st_reasoning.micro.figures import Examination, held_out_problems, held_out_texts, kinds_of, perplexity, worked_out
from st_reasoning.micro.pretraining import BaseRecipe, pretrain
from st_reasoning.variants import VARIANT_RECORD, RLVRRecipe, SFTRecipe, fine_tune, reinforce
from st_reasoning.variants.accuracy import accuracy
from st_reasoning.variants.saving import card as variant_card

# Folders beside the models: the base after its first phases, which are not shipped.
PHASES = {"general": None, "sums": "general"}
RECIPE = "micro-models.yaml"  # in the output: by it a folder is known that was begun here
KEY = "key"  # in a model's record: the hash of all that decided its weights


@dataclass(frozen=True)
class MicroRecipe:
    """How the four models are made.

    Attributes:
        general: The first phase of the pretraining, on many families.
        sums: The second, which goes on from there.
        base: The third.
        sft: The fine-tuning of the base on worked solutions.
        rlvr: The training of the base on rewards.
        rlvr_prolonged: The training on rewards that goes on from ``rlvr``.
        examination: What all four are asked in the end.
    """

    general: BaseRecipe
    sums: BaseRecipe
    base: BaseRecipe
    sft: SFTRecipe
    rlvr: RLVRRecipe
    rlvr_prolonged: RLVRRecipe
    examination: Examination = field(default_factory=Examination)

    @classmethod
    def read(cls, path: Path) -> MicroRecipe:
        """Read the recipe.

        Raises:
            InputError: for a missing or malformed file, an unknown key, or a wrong value.
        """
        return parse(cls, read_yaml(path), where=str(path))

    def of(self, model: str) -> BaseRecipe | SFTRecipe | RLVRRecipe:
        """Return the recipe of one model."""
        recipe: BaseRecipe | SFTRecipe | RLVRRecipe = getattr(self, model.replace("-", "_"))
        return recipe

    @property
    def taught(self) -> dict[str, Mapping[str, Mapping[str, Any]]]:
        """The families that each variant is trained on."""
        return {
            "sft": self.sft.families,
            "rlvr": self.rlvr.families,
            "rlvr-prolonged": {**self.rlvr.families, **self.rlvr_prolonged.families},
        }


def make_micro(recipe: MicroRecipe, output: Path, *, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Make the four models, ask them, and write their card and checksums.

    A second call makes what is missing, or was made by another recipe; within a training it goes on from the last
    checkpoint.

    Args:
        recipe: How.
        output: The folder that holds a folder for each.
        say: Receives a line for each model.

    Returns:
        The figures, as in ``figures.json``.

    Raises:
        InputError: for what recipes refuse, or where other things lie in the output.
        MissingExtraError: without TRL or reasoning-gym.
        ConversionError: if a training gives no finite loss.
    """
    taught = {name: None for families in recipe.taught.values() for name in families}
    if missing := [name for name in taught if name not in recipe.general.corpus]:
        raise InputError(f"variants are trained on {', '.join(missing)}; expected families of general.corpus")
    _claim(output, recipe)
    keys: dict[str, str] = {}
    for model, parent in {**PHASES, **MODELS, "base": "sums"}.items():
        keys[model] = content_hash([to_mapping(recipe.of(model)), keys.get(parent or "")])
        folder = output / model
        if _key(folder) == keys[model]:
            say(f"{model}: made before")
            continue
        say(f"{model} ...")
        start = time.perf_counter()
        _make(model, recipe.of(model), None if parent is None else output / parent, folder, keys[model])
        say(f"{model}: {time.perf_counter() - start:.0f} s")
    return examine(recipe, output, say=say)


def _claim(output: Path, recipe: MicroRecipe) -> None:
    """Leave the recipe in the output, and refuse a folder that holds other things: a model's would be overwritten."""
    if output.is_file():
        raise InputError(f"the output {output} is a file; expected a folder")
    begun = output / RECIPE
    if not begun.is_file() and output.is_dir() and any(output.iterdir()):
        raise InputError(f"the output {output} holds other things; expected none, or a folder with {RECIPE} begun here")
    output.mkdir(parents=True, exist_ok=True)
    write_resolved(begun, recipe)


def examine(recipe: MicroRecipe, output: Path, *, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Ask the models that are in a folder; write figures, card and checksums beside them."""
    asked = recipe.examination
    problems = held_out_problems(recipe.general.corpus, tuple(recipe.taught.values()), asked)
    texts = held_out_texts(recipe.general.corpus, asked)
    models: dict[str, Any] = {}
    devices: dict[str, None] = {}
    for name, parent in MODELS.items():
        say(f"asking {name} ...")
        model, tokenizer = load_causal_lm(str(output / name))
        record = read_json(output / name / VARIANT_RECORD)
        if "device" in record:
            devices[record["device"]] = None
        solved = {
            kind: accuracy(
                model,
                tokenizer,
                some,
                max_new_tokens=asked.max_new_tokens,
                samples=asked.samples,
                batch_size=100,
                seed=asked.seed,
            )
            for kind, some in problems.items()
        }
        models[name] = {
            "trained_from": parent,
            "method": record["method"],
            "seconds": record["seconds"] + sum(phase["seconds"] for phase in record.get("earlier", [])),
            "steps": sum(map(len, (_steps(record), *map(_steps, record.get("earlier", []))))),
            "parameters": int(model.num_parameters()),
            "perplexity": perplexity(model, tokenizer, texts),
            "kinds": {
                kind: {
                    **{how: found[how] for how in ("problems", "greedy", "sampled", "cut")},
                    **worked_out(model, tokenizer, problems[kind], max_new_tokens=asked.max_new_tokens),
                }
                for kind, found in solved.items()
            },
        }
    figures = {
        "schema": 1,
        "models": models,
        "devices": list(devices),
        "taught": {name: kinds_of(families) for name, families in recipe.taught.items()},
        "recipe": to_mapping(recipe),
        "versions": versions(),
    }
    write_json(output / FIGURES, figures)
    write_text(output / CARD, card(figures))
    write_checksums(output)
    return figures


def _make(model: str, recipe: Any, parent: Path | None, folder: Path, key: str) -> None:
    """Train one model; what is recorded names the base as it is called when it comes with the package."""
    if isinstance(recipe, BaseRecipe):
        record = pretrain(recipe, folder, start=parent, overwrite=True)
        text = base_card(record)
    else:
        assert parent is not None, "a variant is a variant of something"
        train: Callable[..., dict[str, Any]] = fine_tune if isinstance(recipe, SFTRecipe) else reinforce
        record = train(recipe, str(parent), folder, overwrite=True)
        record["base"] = backbone_name(parent.name)
        text = variant_card(record, licence="apache-2.0")
    write_text(folder / "README.md", text)
    write_json(folder / VARIANT_RECORD, {**record, KEY: key})  # last: until it is there, the model is not made


def _key(folder: Path) -> str | None:
    """Return what decided the weights of a model that is there."""
    record = folder / VARIANT_RECORD
    return read_json(record).get(KEY) if record.is_file() else None


def _steps(record: Mapping[str, Any]) -> list[float]:
    """Return the loss, or where there is none the reward, of each step."""
    steps: list[float] = record["losses"] if "losses" in record else record["rewards"]
    return steps
