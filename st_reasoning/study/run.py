"""Lay out the steps of a study, run what is missing, and report."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from st_reasoning import __version__
from st_reasoning.backbone import audit, refuse_unequal, resolve
from st_reasoning.backbone.inputs import stored_dtype
from st_reasoning.backbone.sources import adapter_base, is_plain
from st_reasoning.config import to_mapping, write_resolved
from st_reasoning.errors import InputError
from st_reasoning.files import file_hash, folder_hash, write_json, write_text
from st_reasoning.study.plan import Step, run_steps
from st_reasoning.study.recipe import Pair, StudyRecipe
from st_reasoning.study.report import render
from st_reasoning.study.steps import (
    audit_pair,
    check_tasks,
    compare_models,
    convert_backbone,
    evaluate,
    import_backbone,
    read_corpus,
    refuse_other_order,
    write_audit,
    write_corpus,
)
from st_reasoning.study.summary import ARMS, summarise
from st_reasoning.training import train
from st_reasoning.training.data import load_data
from st_reasoning.variants import fine_tune


def run_study(recipe: StudyRecipe, output: Path, *, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Run every step of a study that is not done yet and write ``study.json`` and ``report.html``.

    Args:
        recipe: The study.
        output: Its folder; a second call with the same recipe continues there.
        say: Receives a line for each step.

    Returns:
        The content of ``study.json``.

    Raises:
        InputError: for a backbone, task or file that does not exist, or a pair whose arms are not given the same;
            nothing is written then, unless the pair's reasoning model is made here.
    """
    steps = plan_study(recipe, output)
    output.mkdir(parents=True, exist_ok=True)
    write_resolved(output / "recipe.yaml", recipe)
    outcomes = run_steps(steps, output / "steps", say=say)
    study = summarise(recipe, output, outcomes)
    write_json(output / "study.json", study)
    write_text(output / "report.html", render(study, output))
    return study


def plan_study(recipe: StudyRecipe, output: Path) -> list[Step]:
    """Lay out the steps of a study in order, after checking everything that can be checked without running it.

    Raises:
        InputError: for a backbone, task or file that does not exist, or a pair whose arms are not given the same.
    """
    if output.is_file():
        raise InputError(f"the output {output} is a file; expected a folder")
    check_tasks(recipe.tasks)
    data_hash = load_data(recipe.training).hash
    layout = _Layout(recipe, output, data_hash)
    layout.corpus()
    for pair in recipe.pairs:
        layout.backbones(pair)
        layout.audit(pair)
    for pair in recipe.pairs:
        for arm in ARMS:
            layout.untrained(pair, arm)
        layout.compare_backbones(pair)
        for seed in recipe.seeds:
            for arm in ARMS:
                layout.trained(pair, arm, seed)
            layout.compare_embedders(pair, seed)
    return list(layout.steps.values())


class _Layout:
    """Collects steps; asked twice for the same one (a base that two pairs share), it keeps one."""

    def __init__(self, recipe: StudyRecipe, output: Path, data_hash: str) -> None:
        self.recipe = recipe
        self.output = output
        self.data_hash = data_hash
        self.steps: dict[str, Step] = {}
        self.texts = output / "texts.jsonl"
        # Both may ask the hub.
        self._resolve, self._is_plain = functools.cache(resolve), functools.cache(is_plain)
        self._contents: dict[str, dict[str, Any]] = {}

    def add(
        self,
        name: str,
        output: Path,
        run: Callable[[], dict[str, Any]],
        *,
        inputs: Any = None,
        needs: tuple[str, ...] = (),
    ) -> None:
        step = Step(name, {"st_reasoning": __version__, "inputs": inputs}, needs, output, run)
        if self.steps.setdefault(name, step).inputs != step.inputs:
            raise InputError(
                f"two different models of the study are both called {output.parent.name!r} (step {name}); "
                "rename one of the folders"
            )

    def corpus(self) -> None:
        corpus = self.recipe.hrsa
        if corpus.texts is not None:
            self.texts = Path(corpus.texts)
            read_corpus(self.texts)  # refused now rather than after hours
            # Not a step: the texts are the user's. Their content still decides what is done again.
            self.texts_key: Any = {"texts": self.texts.read_text(encoding="utf-8")}
            return
        self.texts_key = to_mapping(corpus)
        self.add("texts", self.texts, functools.partial(write_corpus, corpus, self.texts), inputs=self.texts_key)

    def backbones(self, pair: Pair) -> None:
        self._existing(pair.base)
        if pair.reasoning.sft is None:
            self._existing(str(pair.reasoning.backbone))
            return
        folder = self.output / "backbones" / pair.name
        run = functools.partial(fine_tune, pair.reasoning.sft, self._place(pair.base), folder, overwrite=True)
        inputs = [self._content(pair.base), to_mapping(pair.reasoning.sft)]
        self.add(f"sft/{pair.name}", folder, run, inputs=inputs, needs=self._import_of(pair.base))

    def audit(self, pair: Pair) -> None:
        """Audit two named backbones now; one that is made here as soon as it exists."""
        place = self.output / "audit" / f"{pair.name}.json"
        template = self.recipe.training.instruction_template
        run: Callable[[], dict[str, Any]]
        needs: tuple[str, ...] = ()
        if pair.reasoning.sft is None:
            found = audit(pair.base, str(pair.reasoning.backbone), instruction_template=template)
            refuse_unequal(found, waive=pair.waive)
            run = functools.partial(write_audit, found, place, waive=pair.waive)
            inputs = [list(pair.waive), found.to_mapping()]
        else:
            self._refuse_other_dtype(pair, pair.reasoning.sft.dtype)
            (base, needs_base, _), (made, needs_made, _) = (self._backbone(pair, arm) for arm in ARMS)
            run = functools.partial(audit_pair, base, made, place, waive=pair.waive, instruction_template=template)
            inputs, needs = [list(pair.waive), self._content(pair.base), template], (*needs_base, *needs_made)
        # No step needs this one: it stands before them, and another waiver does not make them be done again.
        self.add(f"audit/{pair.name}", place, run, inputs=inputs, needs=needs)

    def _refuse_other_dtype(self, pair: Pair, made: str) -> None:
        """Refuse before a fine-tuning what the audit would refuse after it."""
        # An imported backbone is a folder in float32 by then.
        stored = "float32" if self._import_of(pair.base) else stored_dtype(pair.base)
        if stored != made and "dtype" not in pair.waive:
            raise InputError(
                f"pair {pair.name}: the weights of {pair.base} are stored as {stored}, the fine-tuning would write "
                f"{made}; give 'sft' the same dtype, or write 'waive: [dtype]' in the pair if that is meant"
            )

    def untrained(self, pair: Pair, arm: str) -> None:
        backbone, needs, label = self._backbone(pair, arm)
        folder = self.output / "embedders" / label / "untrained"
        options = self.recipe.training.conversion()
        run = functools.partial(convert_backbone, backbone, folder, overwrite=True, **options)
        self.add(f"convert/{label}", folder, run, inputs=[self._arm_content(pair, arm), options], needs=needs)
        self._evaluate(f"evaluate/{label}/untrained", folder, f"convert/{label}")

    def trained(self, pair: Pair, arm: str, seed: int) -> None:
        backbone, needs, label = self._backbone(pair, arm)
        folder = self.output / "embedders" / label / f"seed-{seed}"
        name = f"train/{label}/seed-{seed}"
        run = functools.partial(train, self.recipe.training, backbone, folder, seed=seed, overwrite=True)
        inputs = [self._arm_content(pair, arm), to_mapping(self.recipe.training), self.data_hash, seed]
        self.add(name, folder, run, inputs=inputs, needs=needs)
        self._evaluate(f"evaluate/{label}/seed-{seed}", folder, name)

    def compare_backbones(self, pair: Pair) -> None:
        (a, needs_a, _), (b, needs_b, _) = (self._backbone(pair, arm) for arm in ARMS)
        contents = [self._arm_content(pair, arm) for arm in ARMS]
        self._compare(f"hrsa/{pair.name}/backbones", a, b, contents, (*needs_a, *needs_b))

    def compare_embedders(self, pair: Pair, seed: int) -> None:
        labels = [self._backbone(pair, arm)[2] for arm in ARMS]
        a, b = (str(self.output / "embedders" / label / f"seed-{seed}") for label in labels)
        needs = tuple(f"train/{label}/seed-{seed}" for label in labels)
        # Prompts are part of what is shown: where they may differ, so may the order's hash.
        same = None if "prompt_boundary" in pair.waive else functools.partial(refuse_other_order, a, b)
        self._compare(f"hrsa/{pair.name}/seed-{seed}", a, b, None, needs, before=same)

    def _compare(
        self,
        name: str,
        a: str,
        b: str,
        contents: Any,
        needs: tuple[str, ...],
        *,
        before: Callable[[], None] | None = None,
    ) -> None:
        folder = self.output / name
        needs = tuple(dict.fromkeys((*needs, *(("texts",) if "texts" in self.steps else ()))))
        # Embedders read no further than they were trained to; backbones must be shown the same tokens.
        longest = self.recipe.training.max_seq_length

        def run() -> dict[str, Any]:
            if before is not None:
                before()
            found = compare_models(a, b, self.texts, folder, names=ARMS, max_tokens=longest, overwrite=True)
            return {"texts": found["corpus"]["texts"], "tokens": found["corpus"]["tokens"]}

        self.add(name, folder, run, inputs=[contents, self.texts_key, longest], needs=needs)

    def _evaluate(self, name: str, folder: Path, need: str) -> None:
        results = self.output / "mteb"
        run = functools.partial(evaluate, folder, self.recipe.tasks, results)
        self.add(name, results, run, inputs=list(self.recipe.tasks), needs=(need,))

    def _existing(self, backbone: str) -> None:
        """Check a backbone that the recipe names; one that is no plain folder becomes one first."""
        for name in self._import_of(backbone):
            folder = self._import_folder(backbone)
            run = functools.partial(import_backbone, backbone, folder)
            self.add(name, folder, run, inputs=self._content(backbone))

    def _arm_content(self, pair: Pair, arm: str) -> Any:
        """Return the content of an arm's backbone where a recipe names it; a made one is known by its step."""
        if arm == "reasoning" and pair.reasoning.sft is not None:
            return pair.name
        return self._content(pair.base if arm == "base" else str(pair.reasoning.backbone))

    def _import_folder(self, backbone: str) -> Path:
        return self.output / "backbones" / self._resolve(backbone).label

    def _import_of(self, backbone: str) -> tuple[str, ...]:
        """Return the step that makes a plain folder of a named backbone, if it is none."""
        source = self._resolve(backbone)
        return () if self._is_plain(source) else (f"import/{source.label}",)

    def _content(self, backbone: str) -> dict[str, Any]:
        """Return what decides the weights of a named backbone: its content, or on the hub its name.

        Those of an adapter are decided by its base as well.
        """
        if backbone not in self._contents:
            source = self._resolve(backbone)
            location = Path(source.location)
            if source.kind == "gguf":
                digest = file_hash(location / str(source.gguf_file))
            else:
                digest = source.location if source.on_hub else folder_hash(location)
            content: dict[str, Any] = {"backbone": source.label, "hash": digest}
            if source.kind == "adapter":
                content["base"] = self._content(adapter_base(source))
            self._contents[backbone] = content
        return self._contents[backbone]

    def _place(self, backbone: str) -> str:
        """Where a named backbone is loaded from: its imported folder, or itself."""
        return str(self._import_folder(backbone)) if self._import_of(backbone) else backbone

    def _backbone(self, pair: Pair, arm: str) -> tuple[str, tuple[str, ...], str]:
        """Return where an arm's backbone is loaded from, the steps that make it, and its label."""
        if arm == "reasoning" and pair.reasoning.sft is not None:
            return str(self.output / "backbones" / pair.name), (f"sft/{pair.name}",), pair.name
        name = pair.base if arm == "base" else str(pair.reasoning.backbone)
        return self._place(name), self._import_of(name), self._resolve(name).label
