"""The steps of a study, from its recipe: what is done to what, in which order."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from st_reasoning import __version__
from st_reasoning.backbone import resolve
from st_reasoning.backbone.sources import is_plain
from st_reasoning.config import to_mapping
from st_reasoning.errors import InputError
from st_reasoning.study.contents import Contents
from st_reasoning.study.curve import compare_along
from st_reasoning.study.labels import ARMS, arm_label, backbone_label
from st_reasoning.study.plan import Step
from st_reasoning.study.recipe import Pair, StudyRecipe
from st_reasoning.study.steps import (
    audit_pair,
    compare_models,
    convert_backbone,
    evaluate,
    import_backbone,
    refuse_other_order,
    write_corpus,
)
from st_reasoning.training import train
from st_reasoning.variants import SFTRecipe, fine_tune, reinforce


def lay_out(
    recipe: StudyRecipe,
    output: Path,
    *,
    contents: Contents | None = None,
    plain: Callable[[str], bool] | None = None,
) -> list[Step]:
    """Lay out the steps of a study in an order in which each comes after those it needs.

    Nothing is read but what a name means: inputs are functions, which whoever needs keys has to call.

    Args:
        recipe: The study.
        output: Its folder.
        contents: Of the inputs, where they have been read in part already.
        plain: Whether a named backbone is a plain causal LLM, and no step has to make it one; by default found out, on
            the hub if need be.

    Raises:
        InputError: for a backbone that does not exist, or two that would share a name.
    """
    layout = _Layout(recipe, output, contents or Contents(recipe), plain or (lambda name: is_plain(resolve(name))))
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
            if recipe.hrsa.curve:
                layout.curve(pair, seed)
    return list(layout.steps.values())


class _Layout:
    """Collects steps; asked twice for the same one (a base that two pairs share), it keeps one."""

    def __init__(self, recipe: StudyRecipe, output: Path, contents: Contents, plain: Callable[[str], bool]) -> None:
        self.recipe = recipe
        self.output = output
        self.contents = contents
        self.steps: dict[str, Step] = {}
        self.texts = output / "texts.jsonl" if recipe.hrsa.texts is None else Path(recipe.hrsa.texts)
        # May ask the hub.
        self._is_plain = functools.cache(plain)
        self._named: dict[str, str | None] = {}
        self._users = self._pairs_of_labels()

    def _pairs_of_labels(self) -> dict[str, list[str]]:
        """Return the pairs that a backbone is an arm of, by its label."""
        users: dict[str, list[str]] = {}
        for pair in self.recipe.pairs:
            for arm in ARMS:
                users.setdefault(arm_label(pair, arm), []).append(pair.name)
        return users

    def add(
        self,
        name: str,
        output: Path,
        run: Callable[[], dict[str, Any]],
        *,
        inputs: Callable[[], Any] = lambda: None,
        needs: tuple[str, ...] = (),
        pairs: tuple[str, ...] = (),
    ) -> None:
        """Add a step, unless it is there; ``pairs`` are those whose audit decides whether it is of use."""
        after = tuple(f"audit/{pair}" for pair in dict.fromkeys(pairs))
        step = Step(name, lambda: {"st_reasoning": __version__, "inputs": inputs()}, needs, output, run, after)
        self.steps.setdefault(name, step)

    # What there is to begin with.

    def corpus(self) -> None:
        """Draw the texts; those of the user are no step, but their content still decides what is done again."""
        if self.recipe.hrsa.texts is None:
            run = functools.partial(write_corpus, self.recipe.hrsa, self.texts)
            self.add("texts", self.texts, run, inputs=lambda: self.contents.texts)

    def backbones(self, pair: Pair) -> None:
        """Make the arms of a pair that are no plain folder yet: import what is named, train what is not there."""
        self._existing(pair.base)
        making = pair.reasoning.making
        if making is None:
            self._existing(str(pair.reasoning.backbone))
            return
        self._claim(pair.name, None)
        folder = self.output / "backbones" / pair.name
        base = self._place(pair.base)
        run: Callable[[], dict[str, Any]]
        if isinstance(making, SFTRecipe):
            run = functools.partial(fine_tune, making, base, folder, overwrite=True)
        else:
            run = functools.partial(reinforce, making, base, folder, overwrite=True)

        def inputs() -> Any:
            return [self.contents.backbone(pair.base), to_mapping(making)]

        self.add(self._making(pair), folder, run, inputs=inputs, needs=self._import_of(pair.base))

    def audit(self, pair: Pair) -> None:
        """Compare what the two arms are given; all that is done with the pair comes after it."""
        place = self.output / "audit" / f"{pair.name}.json"
        template = self.recipe.training.instruction_template
        named = pair.reasoning.backbone
        if named is not None:
            # As they are named, not as they are imported: what is audited is what was asked for.
            run = functools.partial(
                audit_pair, pair.base, named, place, waive=pair.waive, instruction_template=template
            )
            self.add(
                f"audit/{pair.name}",
                place,
                run,
                inputs=lambda: [list(pair.waive), self.contents.audit(pair.base, named).to_mapping()],
            )
            return
        (base, needs_base), (made, needs_made) = (self._backbone(pair, arm) for arm in ARMS)
        run = functools.partial(audit_pair, base, made, place, waive=pair.waive, instruction_template=template)

        def inputs() -> Any:
            return [list(pair.waive), self.contents.backbone(pair.base), template]

        # No step needs this one: it stands before them, and another waiver does not make them be done again.
        self.add(f"audit/{pair.name}", place, run, inputs=inputs, needs=(*needs_base, *needs_made))

    # What is done with an arm.

    def untrained(self, pair: Pair, arm: str) -> None:
        """Convert an arm and evaluate it as it is."""
        (backbone, needs), label = self._backbone(pair, arm), arm_label(pair, arm)
        folder = self.output / "embedders" / label / "untrained"
        options = self.recipe.training.conversion()
        run = functools.partial(convert_backbone, backbone, folder, overwrite=True, **options)

        def inputs() -> Any:
            return [self._content(pair, arm), options]

        self.add(f"convert/{label}", folder, run, inputs=inputs, needs=needs, pairs=tuple(self._users[label]))
        self._evaluate(f"evaluate/{label}/untrained", folder, f"convert/{label}")

    def trained(self, pair: Pair, arm: str, seed: int) -> None:
        """Train an arm and evaluate it."""
        (backbone, needs), label = self._backbone(pair, arm), arm_label(pair, arm)
        folder = self.output / "embedders" / label / f"seed-{seed}"
        name = f"train/{label}/seed-{seed}"
        keep = self.recipe.hrsa.curve
        run = functools.partial(
            train, self.recipe.training, backbone, folder, seed=seed, overwrite=True, keep_checkpoints=keep
        )

        def inputs() -> Any:
            # Checkpoints do not change what is trained, but a training that has kept none is done again for them.
            return [self._content(pair, arm), *self.contents.training, seed, *(["checkpoints"] if keep else [])]

        self.add(name, folder, run, inputs=inputs, needs=needs, pairs=tuple(self._users[label]))
        self._evaluate(f"evaluate/{label}/seed-{seed}", folder, name)

    def _evaluate(self, name: str, folder: Path, need: str) -> None:
        results = self.output / "mteb"
        run = functools.partial(evaluate, folder, self.recipe.tasks, results, benchmarks=self.recipe.benchmarks)
        self.add(name, results, run, inputs=lambda: self.contents.tasks, needs=(need,))

    # What is compared.

    def compare_backbones(self, pair: Pair) -> None:
        """Compare the arms as language models."""
        (a, needs_a), (b, needs_b) = (self._backbone(pair, arm) for arm in ARMS)

        def contents() -> Any:
            return [self._content(pair, arm) for arm in ARMS]

        self._compare(f"hrsa/{pair.name}/backbones", pair, a, b, contents, (*needs_a, *needs_b))

    def compare_embedders(self, pair: Pair, seed: int) -> None:
        """Compare the trained embedders of one seed."""
        labels = [arm_label(pair, arm) for arm in ARMS]
        a, b = (str(self.output / "embedders" / label / f"seed-{seed}") for label in labels)
        needs = tuple(f"train/{label}/seed-{seed}" for label in labels)
        # Prompts are part of what is shown: where they may differ, so may the order's hash.
        same = None if "prompt_boundary" in pair.waive else functools.partial(refuse_other_order, a, b)
        self._compare(f"hrsa/{pair.name}/seed-{seed}", pair, a, b, lambda: None, needs, before=same)

    def curve(self, pair: Pair, seed: int) -> None:
        """Compare the two trainings of one seed, checkpoint by checkpoint."""
        labels = [arm_label(pair, arm) for arm in ARMS]
        folders = [self.output / "embedders" / label for label in labels]
        place = self.output / "curve" / pair.name / f"seed-{seed}.json"
        longest, k = self._longest(), min(self.recipe.hrsa.k)
        run = functools.partial(
            compare_along,
            folders[0] / f"seed-{seed}",
            folders[1] / f"seed-{seed}",
            self.texts,
            place,
            max_tokens=longest,
            k=k,
            before=(folders[0] / "untrained", folders[1] / "untrained"),
        )
        needs = [
            f"{kind}/{label}{end}" for kind, end in (("train", f"/seed-{seed}"), ("convert", "")) for label in labels
        ]
        self.add(
            f"curve/{pair.name}/seed-{seed}",
            place,
            run,
            inputs=lambda: [self.contents.texts, longest, k],
            needs=(*dict.fromkeys(needs), *self._drawn()),
            pairs=(pair.name,),
        )

    def _longest(self) -> int:
        """Return where texts are cut: embedders read no further than they were trained to."""
        return self.recipe.hrsa.max_tokens or self.recipe.training.max_seq_length

    def _drawn(self) -> tuple[str, ...]:
        """Return the step that draws the texts, where they are drawn."""
        return ("texts",) if "texts" in self.steps else ()

    def _compare(
        self,
        name: str,
        pair: Pair,
        a: str,
        b: str,
        contents: Callable[[], Any],
        needs: tuple[str, ...],
        *,
        before: Callable[[], None] | None = None,
    ) -> None:
        folder = self.output / name
        needs = tuple(dict.fromkeys((*needs, *self._drawn())))
        options = {**self.recipe.hrsa.panel(), "max_tokens": self._longest()}

        def run() -> dict[str, Any]:
            if before is not None:
                before()
            found = compare_models(a, b, self.texts, folder, names=ARMS, overwrite=True, **options)
            return {"texts": found["corpus"]["texts"], "tokens": found["corpus"]["tokens"]}

        def inputs() -> Any:
            return [contents(), self.contents.texts, options]

        self.add(name, folder, run, inputs=inputs, needs=needs, pairs=(pair.name,))

    # What a name means.

    def _existing(self, backbone: str) -> None:
        """Take note of a backbone that the recipe names; one that is no plain folder becomes one first."""
        self._claim(backbone_label(backbone), backbone)
        for name in self._import_of(backbone):
            folder = self._import_folder(backbone)
            run = functools.partial(import_backbone, backbone, folder)
            self.add(name, folder, run, inputs=lambda: self.contents.backbone(backbone))

    def _claim(self, label: str, backbone: str | None) -> None:
        """Refuse two models of one label: a named one, or None for the one that is made for the pair of that name."""
        other = self._named.setdefault(label, backbone)
        if other == backbone:
            return
        if other is None or backbone is None or self.contents.backbone(other) != self.contents.backbone(backbone):
            names = (name or f"the reasoning arm of the pair {label}" for name in (other, backbone))
            raise InputError(
                f"two different models of the study are both called {label!r} ({' and '.join(names)}); "
                "rename one of the folders, or the pair"
            )

    def _content(self, pair: Pair, arm: str) -> Any:
        """Return the content of an arm's backbone where a recipe names it; a made one is known by its step."""
        if arm == "reasoning" and pair.reasoning.making is not None:
            return pair.name
        return self.contents.backbone(pair.base if arm == "base" else str(pair.reasoning.backbone))

    def _import_folder(self, backbone: str) -> Path:
        return self.output / "backbones" / backbone_label(backbone)

    def _import_of(self, backbone: str) -> tuple[str, ...]:
        """Return the step that makes a plain folder of a named backbone, if it is none."""
        return () if self._is_plain(backbone) else (f"import/{backbone_label(backbone)}",)

    def _place(self, backbone: str) -> str:
        """Where a named backbone is loaded from: its imported folder, or itself."""
        return str(self._import_folder(backbone)) if self._import_of(backbone) else backbone

    def _making(self, pair: Pair) -> str:
        """Return the name of the step that makes a reasoning arm."""
        return f"{'sft' if pair.reasoning.sft else 'rlvr'}/{pair.name}"

    def _backbone(self, pair: Pair, arm: str) -> tuple[str, tuple[str, ...]]:
        """Return where an arm's backbone is loaded from, and the steps that make it."""
        if arm == "reasoning" and pair.reasoning.making is not None:
            return str(self.output / "backbones" / pair.name), (self._making(pair),)
        name = pair.base if arm == "base" else str(pair.reasoning.backbone)
        return self._place(name), self._import_of(name)
