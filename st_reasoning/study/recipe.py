"""What a study is made of: pairs of backbones, one training recipe, seeds, tasks, texts to compare on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from st_reasoning.backbone.audit import check_names
from st_reasoning.config import parse, read_yaml
from st_reasoning.errors import InputError
from st_reasoning.training import TrainingRecipe
from st_reasoning.variants import SFTRecipe


@dataclass(frozen=True)
class Reasoning:
    """The reasoning arm: a backbone that exists, or one made here from the base.

    Attributes:
        backbone: Its name, see :func:`st_reasoning.convert`; or
        sft: the supervised fine-tuning that makes it.
    """

    backbone: str | None = None
    sft: SFTRecipe | None = None

    def __post_init__(self) -> None:
        if (self.backbone is None) == (self.sft is None):
            raise InputError("a reasoning arm: expected exactly one of 'backbone' and 'sft'")


@dataclass(frozen=True)
class Pair:
    """A base LLM and the reasoning model trained from it.

    Attributes:
        name: Names the pair in tables and folders: letters, digits, ``-``, ``_`` and ``.``.
        base: The base backbone.
        reasoning: The reasoning backbone, or how to make it.
        waive: Findings of :func:`st_reasoning.audit` in which the two may differ.
    """

    name: str
    base: str
    reasoning: Reasoning
    waive: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name or not all(c.isalnum() or c in "-_." for c in self.name) or self.name.startswith("."):
            raise InputError(f"pair name {self.name!r}: expected letters, digits, '-', '_' and '.'")
        check_names(self.waive, where=f"waive of the pair {self.name!r}")


@dataclass(frozen=True)
class Corpus:
    """Texts that both models of a comparison read.

    Attributes:
        texts: A JSONL file with ``text`` and, for the linear probe, ``label`` in each row; or
        templates: worked solutions of this many held-out ``gsm_symbolic`` templates (the label),
        per_template: with this many problems each,
        seed: drawn with this seed.
    """

    texts: str | None = None
    templates: int = 8
    per_template: int = 10
    seed: int = 2

    def __post_init__(self) -> None:
        if self.templates < 1 or self.per_template < 1:
            raise InputError("hrsa: templates and per_template must be at least 1")


@dataclass(frozen=True)
class StudyRecipe:
    """One study.

    Attributes:
        pairs: The pairs to decide on.
        training: The contrastive recipe both arms of every pair go through.
        tasks: mteb task names.
        seeds: Training seeds; both arms of a pair share each.
        hrsa: Texts of the representation comparison.
    """

    pairs: tuple[Pair, ...]
    training: TrainingRecipe
    tasks: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    hrsa: Corpus = Corpus()

    def __post_init__(self) -> None:
        for name in ("pairs", "tasks", "seeds"):
            values = [v.name if isinstance(v, Pair) else v for v in getattr(self, name)]
            if not values:
                raise InputError(f"the study has no {name}; expected at least one")
            if len(set(values)) < len(values):
                raise InputError(f"the study names one of its {name} twice: {', '.join(map(str, values))}")

    @classmethod
    def read(cls, path: Path) -> StudyRecipe:
        """Read a study recipe.

        Raises:
            InputError: for a missing or malformed file, an unknown key, or a wrong value.
        """
        return parse(cls, read_yaml(path), where=str(path))
