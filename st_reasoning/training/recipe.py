"""What a contrastive training is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from st_reasoning.backbone import format_instruction
from st_reasoning.backbone.convert import POOLINGS
from st_reasoning.backbone.lora import LoRA
from st_reasoning.backbone.prompts import PAPER_TEMPLATE
from st_reasoning.backbone.sources import DTYPES
from st_reasoning.config import parse, read_yaml
from st_reasoning.errors import InputError, unknown_name

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers.base.evaluation import BaseEvaluator


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
class HeldOut:
    """Examples that are not trained on: their queries search among their documents while the training runs.

    Attributes:
        examples: How many of each data set.
        every: Steps between two evaluations; there is one before the first step as well.
    """

    examples: int
    every: int

    def __post_init__(self) -> None:
        if self.examples < 2 or self.every < 1:
            raise InputError(f"held_out: expected at least 2 examples and 1 step, got {self.examples} and {self.every}")


@dataclass(frozen=True)
class TrainingRecipe:
    """The contrastive recipe of arXiv 2601.21192 (Tables 5 to 7); its defaults are the paper's.

    Attributes:
        data: Where examples come from.
        attention: ``bidirectional`` or ``causal``.
        pooling: See :func:`st_reasoning.convert`.
        instruction_template: How an instruction is put before a query: ``paper``, ``code`` (as the authors' code does),
            or a text with ``{instruction}`` in it. Its end is fitted to the tokenizer.
        max_seq_length: Longest text in tokens.
        hard_negatives: How many negatives of each example are used.
        max_bad_rows: How many rows that are no examples (a column missing, an empty text, too few negatives, a broken
            line) are dropped; one more stops the run.
        batch_size: Examples per optimiser step, over all devices together; all of one data set.
        mini_batch_tokens: Texts times tokens of the longest in one forward pass. Memory follows it, not the batch:
            gradients are cached (GradCache) where the batch is larger. None: each batch in one pass.
        epochs: Passes over the data.
        max_steps: Stop after so many steps, whatever the epochs say.
        temperature: InfoNCE temperature; cosine similarities are divided by it.
        false_negative_margin: Leave out negatives whose cosine exceeds the positive's by more than this, and those with
            the text of the positive (arXiv 2506.05176 uses 0.1). None: leave out none.
        matryoshka: Also train the first so many dimensions, for each number of these (arXiv 2205.13147).
        next_token_weight: Weight of a next-token loss on the positives, given the query, that is added to the
            contrastive one: a hybrid objective.
        learning_rate: Peak learning rate of AdamW.
        warmup: Share of the steps over which it rises; 1 or more is a number of steps.
        schedule: How it falls after that.
        weight_decay: Of AdamW.
        max_grad_norm: Gradients are scaled down to this norm.
        lora: Train low-rank weights instead of all.
        gradient_checkpointing: Trade time for memory.
        dtype: Of the weights.
        bf16: Mixed precision; not for CPUs without native bfloat16.
        held_out: Evaluate on examples that are left out of training.
        save_every: Steps between two checkpoints, from which a killed training goes on. None: no checkpoints.
        evaluation_max_seq_length: Longest text in tokens of the embedder that is written; by default as in training.
    """

    data: tuple[DataSet, ...]
    attention: Literal["bidirectional", "causal"] = "bidirectional"
    pooling: str = "mean"
    instruction_template: str = PAPER_TEMPLATE
    max_seq_length: int = 512
    hard_negatives: int = 3
    max_bad_rows: int = 0
    batch_size: int = 2048
    mini_batch_tokens: int | None = 4096
    epochs: float = 1.0
    max_steps: int | None = None
    temperature: float = 0.02
    false_negative_margin: float | None = None
    matryoshka: tuple[int, ...] = ()
    next_token_weight: float = 0.0
    learning_rate: float = 2e-5
    warmup: float = 0.03
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = 0.05
    max_grad_norm: float = 1.0
    lora: LoRA | None = None
    gradient_checkpointing: bool = False
    dtype: str = "float32"
    bf16: bool = False
    held_out: HeldOut | None = None
    save_every: int | None = None
    evaluation_max_seq_length: int | None = None

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
        for name in (
            *("max_seq_length", "batch_size", "epochs", "temperature", "learning_rate", "max_grad_norm"),
            *("mini_batch_tokens", "max_steps", "save_every", "evaluation_max_seq_length"),
        ):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("hard_negatives", "max_bad_rows", "weight_decay", "warmup", "next_token_weight"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}")

    @classmethod
    def read(cls, path: Path) -> TrainingRecipe:
        """Read a recipe file: a training recipe, or the ``training`` part of a study's (also the resolved one).

        Raises:
            InputError: for a missing or malformed file, an unknown key, or a wrong value.
        """
        value = read_yaml(path)
        if set(value) == {"recipe", "versions"}:
            value = value["recipe"]
        return parse(cls, value.get("training", value), where=str(path))

    def conversion(self) -> dict[str, Any]:
        """Return the arguments of :func:`st_reasoning.convert` that make the untrained embedder of this recipe."""
        return {
            "attention": self.attention,
            "pooling": self.pooling,
            "instruction": self.data[0].instruction,
            "instruction_template": self.instruction_template,
            "max_seq_length": self.evaluation_max_seq_length or self.max_seq_length,
            "dtype": self.dtype,
        }

    def trainer(
        self,
        model: SentenceTransformer,
        *,
        seed: int,
        evaluator: BaseEvaluator | list[BaseEvaluator] | None = None,
        **arguments: Any,
    ) -> SentenceTransformerTrainer:
        """Return the trainer that this recipe describes, e.g. for a model made by :func:`st_reasoning.convert`.

        With ``lora``, the adapter is added to ``model`` here; :func:`st_reasoning.training.merge_lora` merges it when
        the training is done.

        Args:
            model: The embedder to train.
            seed: Decides order and dropout; two models with one seed see the same examples in the same order.
            evaluator: Runs at every evaluation, beside that on the recipe's held-out examples.
            **arguments: Further SentenceTransformerTrainingArguments, e.g. ``report_to="tensorboard"``.
        """
        from st_reasoning.training.run import build_trainer

        return build_trainer(self, model, seed=seed, evaluator=evaluator, **arguments)

    def fit_arguments(self, model: SentenceTransformer) -> dict[str, Any]:
        """Return the arguments with which ``SentenceTransformer.fit`` trains ``model`` by this recipe.

        Loss, prompts, optimiser and schedule are the recipe's. What ``fit`` has no place for is not: it draws its own
        order of the examples (always the same), knows no checkpoints of ours, and mixes data sets in a batch.

        Raises:
            InputError: where the recipe asks for what ``fit`` cannot do.
        """
        from st_reasoning.training.fit import fit_arguments

        return fit_arguments(self, model)
