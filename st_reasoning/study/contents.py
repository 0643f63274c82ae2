"""What the inputs of a study hold: read from files, each once, and only by the process that plans."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from st_reasoning.backbone import Audit, audit, resolve
from st_reasoning.backbone.sources import adapter_base
from st_reasoning.config import to_mapping
from st_reasoning.files import content_hash, file_hash, folder_hash
from st_reasoning.study.recipe import StudyRecipe
from st_reasoning.study.steps import draw_corpus, read_corpus
from st_reasoning.study.tasks import find_tasks, identity
from st_reasoning.training.data import TrainingData, load_data


class Contents:
    """The contents of a study's inputs, as JSON values that change with them; each method may raise InputError."""

    def __init__(self, recipe: StudyRecipe) -> None:
        self.recipe = recipe
        self.backbone = functools.cache(self._backbone)
        self.audit = functools.cache(self._audit)

    @functools.cached_property
    def data(self) -> TrainingData:
        """The examples of the training."""
        return load_data(self.recipe.training)

    @functools.cached_property
    def training(self) -> list[Any]:
        """The training recipe and its data."""
        return [to_mapping(self.recipe.training), self.data.hash]

    @functools.cached_property
    def texts(self) -> Any:
        """The texts of the representation comparison; a file of the user's is read, and refused if it is none."""
        corpus = self.recipe.hrsa
        if corpus.texts is None:
            return corpus.drawn()
        read_corpus(Path(corpus.texts))
        return {"texts": file_hash(Path(corpus.texts))}

    @functools.cached_property
    def words(self) -> list[str]:
        """The texts themselves."""
        corpus = self.recipe.hrsa
        return draw_corpus(corpus)[0] if corpus.texts is None else read_corpus(Path(corpus.texts))[0]

    @functools.cached_property
    def found_tasks(self) -> dict[str, Any]:
        """Mteb's tasks, by name."""
        return find_tasks(self.recipe.tasks, self.recipe.benchmarks)

    @functools.cached_property
    def tasks(self) -> str:
        """The tasks and how they are asked, as one hash: a benchmark has many."""
        return content_hash([identity(task) for task in self.found_tasks.values()])

    def _audit(self, base: str, reasoning: str) -> Audit:
        """Two named backbones side by side."""
        return audit(base, reasoning, instruction_template=self.recipe.training.instruction_template)

    def _backbone(self, name: str) -> dict[str, Any]:
        """What decides the weights of a named backbone: its content, or on the hub its name.

        Those of an adapter are decided by its base as well.
        """
        source = resolve(name)
        location = Path(source.location)
        if source.kind == "gguf":
            digest = file_hash(location / str(source.gguf_file))
        else:
            digest = source.location if source.on_hub else folder_hash(location)
        content: dict[str, Any] = {"backbone": source.label, "hash": digest}
        if source.kind == "adapter":
            content["base"] = self.backbone(adapter_base(source))
        return content
