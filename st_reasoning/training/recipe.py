"""What a contrastive training is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from st_reasoning.backbone import format_instruction
from st_reasoning.backbone.convert import POOLINGS
from st_reasoning.backbone.prompts import CODE_TEMPLATE
from st_reasoning.backbone.sources import DTYPES
from st_reasoning.config import parse, read_yaml
from st_reasoning.errors import InputError, unknown_name

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer


@dataclass(frozen=True)
class Generated:
    """Problems drawn by reasoning-gym, from templates that no task of this project evaluates on.

    Attributes:
        family: Which family; each problem comes with a worked solution.
        examples: How many (question, solution) pairs.
        seed: Seed of the draw, apart from the training seed: all seeds of a study train on the same examples.
    """

    family: Literal["gsm_symbolic"]
    examples: int
    seed: int = 0


@dataclass(frozen=True)
class Hub:
    """A data set of the Hugging Face hub, or a local folder that ``datasets.load_dataset`` reads.

    Attributes:
        name: As for ``datasets.load_dataset``, e.g. ``sentence-transformers/msmarco``.
        config: Its configuration, where it has several.
        split: Which split.
        revision: Branch, tag or commit; name a commit where a run has to be repeatable.
    """

    name: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None


@dataclass(frozen=True)
class DataSet:
    """One source of (query, positive, negatives) examples: generated, or read from files or the hub.

    What is read has the columns ``query``, ``positive``, ``negative_1`` ... ``negative_n``, or the paper's authors'
    ``query``, ``pos`` and ``neg``; see :mod:`st_reasoning.training.formats`.

    Attributes:
        name: Appears in logs.
        instruction: What a query of this set asks for; put before queries, never before documents. A row's own, in a
            column ``instruction`` or in the authors' form, comes before it; empty is none.
        generated: Draw the examples, or
        path: read them from a file (``.jsonl``, ``.jsonl.gz``, ``.json.gz``, ``.parquet``) or a folder of such, or
        hub: load them with ``datasets``.
    """

    name: str
    instruction: str = ""
    generated: Generated | None = None
    path: str | None = None
    hub: Hub | None = None

    def __post_init__(self) -> None:
        if [self.generated, self.path, self.hub].count(None) != 2:
            raise InputError(f"data set {self.name!r}: expected exactly one of 'generated', 'path' and 'hub'")


@dataclass(frozen=True)
class TrainingRecipe:
    """The contrastive recipe of arXiv 2601.21192 (Tables 5 to 7); its defaults are the paper's.

    Attributes:
        data: Where examples come from.
        attention: ``bidirectional`` or ``causal``.
        pooling: See :func:`st_reasoning.convert`.
        instruction_template: How an instruction is put before a query; its end is fitted to the tokenizer.
        max_seq_length: Longest text in tokens.
        hard_negatives: How many negatives of each example are used.
        max_bad_rows: How many rows that are no examples (a column missing, an empty text, too few negatives, a broken
            line) are dropped; one more stops the run.
        batch_size: Examples per optimiser step and device.
        mini_batch_size: Examples per forward pass; with it, gradients are cached (GradCache) and the batch size is
            not bound by memory. Without it each step is one forward pass.
        epochs: Passes over the data.
        temperature: InfoNCE temperature; cosine similarities are divided by it.
        learning_rate: Peak learning rate of AdamW.
        warmup: Share of the steps over which it rises.
        schedule: How it falls after that.
        weight_decay: Of AdamW.
        gradient_checkpointing: Trade time for memory.
        dtype: Of the weights.
        bf16: Mixed precision; not for CPUs without native bfloat16.
    """

    data: tuple[DataSet, ...]
    attention: Literal["bidirectional", "causal"] = "bidirectional"
    pooling: str = "mean"
    instruction_template: str = CODE_TEMPLATE
    max_seq_length: int = 512
    hard_negatives: int = 3
    max_bad_rows: int = 0
    batch_size: int = 2048
    mini_batch_size: int | None = None
    epochs: float = 1.0
    temperature: float = 0.02
    learning_rate: float = 2e-5
    warmup: float = 0.03
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = 0.05
    gradient_checkpointing: bool = False
    dtype: str = "float32"
    bf16: bool = False

    def __post_init__(self) -> None:
        if not self.data:
            raise InputError("the training recipe has no data; expected at least one data set")
        if len({d.name for d in self.data}) < len(self.data):
            raise InputError("two data sets of the training recipe have the same name")
        if self.pooling not in POOLINGS:
            raise unknown_name("pooling", self.pooling, POOLINGS)
        if self.dtype not in DTYPES:
            raise unknown_name("dtype", self.dtype, DTYPES)
        # Wrong before anything is loaded, not an hour later.
        format_instruction(self.instruction_template, "")
        for name in ("max_seq_length", "batch_size", "epochs", "temperature", "learning_rate"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("hard_negatives", "max_bad_rows", "weight_decay", "warmup"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}")

    @classmethod
    def read(cls, path: Path) -> TrainingRecipe:
        """Read a recipe file: a training recipe, or the ``training`` part of a study's.

        Raises:
            InputError: for a missing or malformed file, an unknown key, or a wrong value.
        """
        value = read_yaml(path)
        return parse(cls, value.get("training", value), where=str(path))

    def conversion(self) -> dict[str, Any]:
        """Return the arguments of :func:`st_reasoning.convert` that make the untrained embedder of this recipe."""
        return {
            "attention": self.attention,
            "pooling": self.pooling,
            "instruction": self.data[0].instruction,
            "instruction_template": self.instruction_template,
            "max_seq_length": self.max_seq_length,
            "dtype": self.dtype,
        }

    def trainer(self, model: SentenceTransformer, *, seed: int, **arguments: Any) -> SentenceTransformerTrainer:
        """Return the trainer that this recipe describes, e.g. for a model made by :func:`st_reasoning.convert`.

        Args:
            model: The embedder to train.
            seed: Decides order and dropout; two models with one seed see the same examples in the same order.
            **arguments: Further SentenceTransformerTrainingArguments, e.g. ``report_to="tensorboard"``.
        """
        from st_reasoning.training.run import build_trainer

        return build_trainer(self, model, seed=seed, **arguments)
