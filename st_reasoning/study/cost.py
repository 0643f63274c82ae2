"""What the steps of a study will cost, from its recipe, configs and the sizes of data and tasks; no weights are read.

FLOPs are 2 for each weight that a token is multiplied with in a forward pass and 4 in a backward pass (2ND and 6ND of
arXiv 2001.08361), without those of attention between tokens. Embedding tables are looked up, not multiplied.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from st_reasoning.backbone import format_instruction, resolve
from st_reasoning.backbone.sources import adapter_base, causal_config, loading
from st_reasoning.errors import InputError
from st_reasoning.hrsa.settings import Settings
from st_reasoning.study.contents import Contents
from st_reasoning.study.labels import backbone_label
from st_reasoning.study.plan import Step
from st_reasoning.study.recipe import Pair, StudyRecipe
from st_reasoning.variants import RLVRRecipe, SFTRecipe

SAMPLE = 200  # examples of each data set whose tokens are counted
CHARACTERS = 4.0  # per token, where no tokenizer is at hand
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Cost:
    """What a step will cost.

    Attributes:
        tokens: That a model reads or writes, over all passes of both models in a comparison.
        flops: Of all passes.
        disk: Bytes that stay.
        scratch: Bytes that it needs on disk while it runs.
        unknown: What could not be found out, and is left out; empty if nothing.
    """

    tokens: float = 0.0
    flops: float = 0.0
    disk: float = 0.0
    scratch: float = 0.0
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Size:
    """Numbers of weights: all of a causal LLM, those a token is multiplied with, and both without the language head.

    ``states`` is how many values all hidden states of a token have; 0 where that is not known.
    """

    all: int
    active: int
    body: int
    body_active: int
    states: int = 0


class Costs:
    """Estimates the cost of every step of a study.

    Args:
        recipe: The study.
        contents: Of its inputs, as far as they can be read.
    """

    def __init__(self, recipe: StudyRecipe, contents: Contents) -> None:
        self.recipe, self.contents = recipe, contents
        self.guesses: dict[str, str] = {}
        self._sized = functools.cache(self._size_or_guess)
        self._pairs = {pair.name: pair for pair in recipe.pairs}
        self._backbones = dict(self._labels())

    def _labels(self) -> list[tuple[str, str]]:
        """Return the backbone of every label: of a model that is made here the one that it is made from."""
        found = [(backbone_label(pair.base), pair.base) for pair in self.recipe.pairs]
        for pair in self.recipe.pairs:
            named = pair.reasoning.backbone
            found.append((backbone_label(named), named) if named is not None else (pair.name, pair.base))
        return found

    def of(self, step: Step) -> Cost:
        """Return what a step costs, as far as it can be known."""
        kind, _, rest = step.name.partition("/")
        label = rest.partition("/")[0]
        estimates: dict[str, Callable[[str], Cost]] = {
            "import": lambda label: Cost(disk=4.0 * self._size(label).all),
            "sft": self._making,
            "rlvr": self._making,
            "convert": lambda label: Cost(disk=self._folder(label)),
            "train": self._train,
            "evaluate": self._evaluate,
            "hrsa": self._compare,
            "curve": self._along,
        }
        if kind not in estimates:
            return Cost()
        self.guesses = {}
        try:
            cost = estimates[kind](label)
        except InputError as error:
            return Cost(unknown=(str(error),))
        return replace(cost, unknown=(*self.guesses.values(), *cost.unknown))

    def _size(self, label: str) -> Size:
        backbone = self._backbones[label]
        size, guess = self._sized(backbone)
        if guess:
            self.guesses[backbone] = guess
        return size

    def _size_or_guess(self, backbone: str) -> tuple[Size, str]:
        """Return the size of a backbone, and what was guessed where its config is not at hand but its name tells it."""
        try:
            return size_of(backbone), ""
        except InputError as error:
            stated = re.search(r"(?:^|[-_])(\d+(?:\.\d+)?)B(?:[-_]|$)", resolve(backbone).label)
            if stated is None:
                raise
            weights = round(float(stated[1]) * 1e9)
            guess = f"{backbone} is taken to have {stated[1]}B weights, by its name, for its config is not at hand"
            return Size(weights, weights, weights, weights), f"{guess} ({_first(error)})"

    def _folder(self, label: str) -> float:
        """Return the bytes of an embedder."""
        return float(BYTES[self.recipe.training.dtype] * self._size(label).body)

    def _making(self, label: str) -> Cost:
        pair: Pair = self._pairs[label]
        making, size = pair.reasoning.making, self._size(label)
        assert making is not None
        weights = float(BYTES[making.dtype] * size.all)
        scratch = 2 * 3 * 4.0 * size.all if making.save_every else 0.0
        if isinstance(making, SFTRecipe):
            tokens = making.examples * making.epochs * min(making.max_length, self._tokens_of_an_example)
            asked = 2 * making.check_examples * making.check_new_tokens
            return Cost(tokens + asked, (6 * tokens + 2 * asked) * size.active, weights, scratch)
        assert isinstance(making, RLVRRecipe)
        # Written once, read once more for the gradient, at most.
        tokens = making.steps * making.batch_size * making.max_new_tokens
        asked = 2 * 2 * making.check_problems * making.max_new_tokens  # before and after, greedily and sampled
        return Cost(2 * tokens + asked, (8 * tokens + 2 * asked) * size.active, weights, scratch)

    def _train(self, label: str) -> Cost:
        recipe, size = self.recipe.training, self._size(label)
        unknown: tuple[str, ...] = ()
        try:
            examples: float = self.contents.data.examples * recipe.epochs
        except InputError as error:
            if recipe.max_steps is None:
                raise
            examples = recipe.max_steps * recipe.batch_size
            unknown = (f"{error}; its texts are taken to be of max_seq_length",)
        if recipe.max_steps is not None:
            examples = min(examples, recipe.max_steps * recipe.batch_size)
        tokens = examples * self._tokens_of_an_example
        cached = recipe.mini_batch_tokens and recipe.batch_size * self._tokens_of_an_example > recipe.mini_batch_tokens
        # A pass without gradients before the others where they are cached, and one more where states are not kept.
        passes = 6 + (2 if cached else 0) + (2 if recipe.gradient_checkpointing else 0)
        checkpoint = 3 * 4.0 * size.body if recipe.save_every else 0.0  # weights and two moments
        flops = passes * tokens * size.body_active
        if self.recipe.hrsa.curve:  # they stay, for the comparison at each
            steps = math.ceil(examples / recipe.batch_size)
            kept = steps // (recipe.save_every or steps or 1) * checkpoint
            return Cost(tokens, flops, self._folder(label) + kept, unknown=unknown)
        return Cost(tokens, flops, self._folder(label), 2 * checkpoint, unknown)

    def _evaluate(self, label: str) -> Cost:
        tokens, unknown = self._evaluated
        return Cost(tokens, 2 * tokens * self._size(label).body_active, unknown=unknown)

    def _compare(self, pair: str) -> Cost:
        arms = self._pairs[pair]
        named = arms.reasoning.backbone
        sizes = [self._size(backbone_label(arms.base)), self._size(pair if named is None else backbone_label(named))]
        tokens = self._compared * (2 if self.recipe.hrsa.ceiling else 1)
        # Hidden states of all layers wait on disk, float32; "fast" looks at so many tokens at most.
        looked_at = self._compared if self.recipe.hrsa.estimator == "exact" else min(self._compared, Settings().tokens)
        scratch = 4.0 * looked_at * sum(size.states for size in sizes)
        return Cost(2 * tokens, sum(2 * tokens * size.body_active for size in sizes), scratch=scratch)

    def _along(self, pair: str) -> Cost:
        """Return the cost of a comparison at the start and at each checkpoint, of a sample of the texts."""
        once, recipe = self._compare(pair), self.recipe.training
        try:
            examples = self.contents.data.examples * recipe.epochs
        except InputError:
            examples = 0.0  # said where the training is estimated
        steps = recipe.max_steps or math.ceil(examples / recipe.batch_size)
        points = 1 + steps // (recipe.save_every or steps or 1)
        return Cost(points * once.tokens, points * once.flops, scratch=once.scratch)

    # Numbers of tokens.

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the first backbone that has one at hand, or None."""
        for backbone in dict.fromkeys(self._backbones.values()):
            try:
                return _tokenizer(backbone)
            except InputError:
                continue
        return None

    @functools.cached_property
    def _tokens_of_an_example(self) -> float:
        """Return the tokens of a training example: query with its prompt, positive and hard negatives."""
        recipe = self.recipe.training
        try:
            data = self.contents.data
        except InputError:
            return float((2 + recipe.hard_negatives) * recipe.max_seq_length)
        tokens = 0.0
        for dataset in data.datasets.values():
            sample = dataset.select(range(min(SAMPLE, len(dataset))))
            columns = [name for name in sample.column_names if name != "instruction"]
            texts = [
                format_instruction(recipe.instruction_template, row["instruction"]) * (name == "query") + row[name]
                for row in sample
                for name in columns
            ]
            counted = sum(min(count, recipe.max_seq_length) for count in self._count(texts))
            tokens += counted / len(sample) * len(dataset) / data.examples
        return tokens

    def _count(self, texts: list[str]) -> list[float]:
        """Return the tokens of each text."""
        if self.tokenizer is None:
            return [len(text) / CHARACTERS for text in texts]
        return [len(ids) for ids in self.tokenizer(texts)["input_ids"]]

    @functools.cached_property
    def _evaluated(self) -> tuple[float, tuple[str, ...]]:
        """Return the tokens of all tasks, from what mteb says of their sizes, and of which it says nothing."""
        recipe = self.recipe.training
        longest = recipe.evaluation_max_seq_length or recipe.max_seq_length
        tokens, silent = 0.0, []
        for name, task in self.contents.found_tasks.items():
            sizes = [_characters(part) for part in _parts(task)]
            if not sizes or None in sizes:
                silent.append(name)
            tokens += sum(min(size[0] / CHARACTERS, size[1] * longest) for size in sizes if size is not None)
        said = f"mteb knows no size of {len(silent)} tasks, which are left out: {', '.join(silent[:3])}"
        return tokens, ((said + (" ..." if len(silent) > 3 else ""),) if silent else ())

    @functools.cached_property
    def _compared(self) -> float:
        """Return the tokens of the texts that models are compared on."""
        corpus = self.recipe.hrsa
        longest = corpus.max_tokens or self.recipe.training.max_seq_length
        return float(sum(min(count, longest) for count in self._count(self.contents.words)))


def _first(error: InputError) -> str:
    """Return the beginning of a long error."""
    return str(error).partition(": ")[0]


def size_of(backbone: str) -> Size:
    """Return the numbers of weights of a backbone, from its config.

    Raises:
        InputError: if there is no config at hand.
    """
    import torch
    from transformers import AutoModelForCausalLM

    source = resolve(backbone)
    if source.kind == "adapter":
        return size_of(adapter_base(source))
    config = causal_config(source).get_text_config()
    with loading(source), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    total = sum(weight.numel() for weight in model.parameters())
    states = (config.num_hidden_layers + 1) * table.shape[1]
    if head is table:
        return Size(total, total, total, total - table.numel(), states)
    body = total - head.numel()
    return Size(total, total - table.numel(), body, body - table.numel(), states)


def _tokenizer(backbone: str) -> Any:
    from transformers import AutoTokenizer

    source = resolve(backbone)
    if source.kind == "adapter":
        return _tokenizer(adapter_base(source))
    with loading(source):
        return AutoTokenizer.from_pretrained(source.location, **source.load_arguments())


def _parts(task: Any) -> list[dict[str, Any]]:
    """Return mteb's descriptive statistics of the splits and subsets on which a task is evaluated."""
    found = []
    known = task.metadata.descriptive_stats or {}
    for split in task.eval_splits:
        whole = known.get(split)
        parts = (whole or {}).get("hf_subset_descriptive_stats", {})
        if parts and set(task.hf_subsets) < set(parts):
            found += [parts[subset] for subset in task.hf_subsets if subset in parts]
        elif whole is not None:
            found.append(whole)
    return found


def _characters(part: dict[str, Any]) -> tuple[float, float] | None:
    """Return the characters and the number of texts of a part of a task; None where its statistics do not say."""
    texts = [value for key, value in part.items() if "text" in key and isinstance(value, dict)]
    total = sum(value.get("total_text_length") or 0 for value in texts) or part.get("number_of_characters") or 0
    if not total:
        return None
    return float(total), float(part["num_samples"] * max(1, len(texts)))
