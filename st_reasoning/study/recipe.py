"""What a study is made of: pairs of backbones, one training recipe, seeds, tasks, texts to compare on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from st_reasoning.backbone.audit import check_names
from st_reasoning.config import parse, read_yaml
from st_reasoning.errors import InputError
from st_reasoning.training import TrainingRecipe
from st_reasoning.variants import RLVRRecipe, SFTRecipe


@dataclass(frozen=True)
class Reasoning:
    """The reasoning arm: a backbone that exists, or one made here from the base.

    Attributes:
        backbone: Its name, see :func:`st_reasoning.convert`; or
        sft: the supervised fine-tuning that makes it; or
        rlvr: the reinforcement learning with verifiable rewards that makes it.
    """

    backbone: str | None = None
    sft: SFTRecipe | None = None
    rlvr: RLVRRecipe | None = None

    def __post_init__(self) -> None:
        if [self.backbone, self.sft, self.rlvr].count(None) != 2:
            raise InputError("a reasoning arm: expected exactly one of 'backbone', 'sft' and 'rlvr'")

    @property
    def making(self) -> SFTRecipe | RLVRRecipe | None:
        """The recipe that makes it here, or None for a backbone that exists."""
        return self.sft or self.rlvr


@dataclass(frozen=True)
class Pair:
    """A base LLM and the reasoning model trained from it.

    Attributes:
        name: Names the pair in tables and folders: letters, digits, ``-``, ``_`` and ``.``.
        base: The base backbone.
        reasoning: The reasoning backbone, or how to make it.
        method: How the one became the other, a word for reports: SFT, RLVR, code, instruction. What is made here has
            its own by default.
        waive: Findings of :func:`st_reasoning.audit` in which the two may differ.
    """

    name: str
    base: str
    reasoning: Reasoning
    method: str = ""
    waive: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.method:
            made = "SFT" if self.reasoning.sft else "RLVR" if self.reasoning.rlvr else "not stated"
            object.__setattr__(self, "method", made)  # so that the recipe as it is recorded says it
        if not self.name or not all(c.isalnum() or c in "-_." for c in self.name) or self.name.startswith("."):
            raise InputError(f"pair name {self.name!r}: expected letters, digits, '-', '_' and '.'")
        check_names(self.waive, where=f"waive of the pair {self.name!r}")


@dataclass(frozen=True)
class Corpus:
    """Texts that both models of a comparison read, and how they are compared.

    Attributes:
        texts: A JSONL file with ``text`` and, for the linear probe, ``label`` in each row; or
        templates: worked solutions of this many held-out ``gsm_symbolic`` templates (the label),
        per_template: with this many problems each,
        seed: drawn with this seed.
        max_tokens: Longer texts are cut; by default to the ``max_seq_length`` of the training, for embedders read no
            further than they were trained to, and backbones must be shown the same tokens.
        estimator: ``fast`` or ``exact``, as for :func:`st_reasoning.hrsa.panel`; by default fast from 8 texts on.
        k: Numbers of neighbours.
        probe: How the linear probe is fitted.
        batch_tokens: Positions per forward pass.
        ceiling: Whether to compare the base arm with itself at another precision too, for two passes more.
        curve: Whether to keep the checkpoints of the trainings and compare the arms at each; needs ``save_every``.
    """

    texts: str | None = None
    templates: int = 8
    per_template: int = 10
    seed: int = 2
    max_tokens: int | None = None
    estimator: Literal["fast", "exact"] | None = None
    k: tuple[int, ...] = (5, 10, 50)
    probe: Literal["logistic", "ridge"] = "logistic"
    batch_tokens: int = 1024
    ceiling: bool = False
    curve: bool = False

    def __post_init__(self) -> None:
        for name in ("templates", "per_template", "max_tokens", "batch_tokens"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"hrsa: {name} must be at least 1, got {getattr(self, name)}")
        if not self.k or min(self.k) < 1:
            raise InputError(f"hrsa: k must be one or more numbers of at least 1, got {list(self.k)}")

    def drawn(self) -> dict[str, int]:
        """Return what decides the texts where they are drawn."""
        return {"templates": self.templates, "per_template": self.per_template, "seed": self.seed}

    def panel(self) -> dict[str, Any]:
        """Return the arguments of :func:`st_reasoning.hrsa.panel` beside models and texts."""
        names = ("max_tokens", "estimator", "k", "probe", "batch_tokens", "ceiling")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class StudyRecipe:
    """One study.

    Attributes:
        pairs: The pairs to decide on.
        training: The contrastive recipe both arms of every pair go through.
        tasks: mteb task names.
        benchmarks: mteb benchmark names, e.g. ``"ReasoningEmbedding(generated, v1)"``; beside tasks or instead of them.
        seeds: Training seeds; both arms of a pair share each.
        hrsa: The representation comparison.
    """

    pairs: tuple[Pair, ...]
    training: TrainingRecipe
    tasks: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    hrsa: Corpus = Corpus()

    def __post_init__(self) -> None:
        if not (self.tasks or self.benchmarks):
            raise InputError("the study has no tasks and no benchmarks; expected at least one of either")
        for name in ("pairs", "tasks", "benchmarks", "seeds"):
            values = [v.name if isinstance(v, Pair) else v for v in getattr(self, name)]
            if not values and name in ("pairs", "seeds"):
                raise InputError(f"the study has no {name}; expected at least one")
            if len(set(values)) < len(values):
                raise InputError(f"the study names one of its {name} twice: {', '.join(map(str, values))}")

        if self.hrsa.curve and (self.training.save_every is None or self.training.lora is not None):
            raise InputError("hrsa: the curve is drawn from checkpoints; give the training save_every, and no lora")

    @classmethod
    def read(cls, path: Path) -> StudyRecipe:
        """Read a study recipe, or the ``recipe.yaml`` that a study has written into its folder.

        Raises:
            InputError: for a missing or malformed file, an unknown key, or a wrong value.
        """
        value = read_yaml(path)
        recorded = value.get("recipe") if set(value) == {"recipe", "versions"} else None
        return parse(cls, recorded or value, where=str(path))
