"""Representation similarity as an mteb task: a model beside a reference, layer by layer (HRSA, arXiv 2601.21192)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mteb.abstasks import AbsTask

from mteb_tasks.local_models import OWN_FILE
from st_reasoning.errors import InputError
from st_reasoning.files import file_hash, folder_hash, read_json

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Names the reference of `mteb run`, which has no option that reaches a task.
REFERENCE = "ST_REASONING_REFERENCE"
NAMES = ("reference", "model")

# Score -> address of the value, read at the last layer: guarded where the record has that.
HEADLINES = {
    "linear_cka": "linear_cka.debiased",
    "dimension_correlation": "dimension_correlation.value",
    "inverse_row_entropy": "procrustes.inverse_row_entropy",
    "procrustes_residual": "procrustes.residual",
    "knn_overlap": "knn_overlap.{k}.value",
    "linear_probe_difference": "linear_probe.difference",
}
MAIN_SCORE = "linear_cka"
# What two panels are paired by is not a score, and long.
_NOT_SCORES = ("jackknife",)


class RepresentationSimilarity(AbsTask):  # type: ignore[misc]
    """How alike are a model and a reference inside? All measures of HRSA at all layers, as scores.

    The reference is the backbone that the model's folder records, or the model's ``adapted_from``; another one is named
    by ``reference`` or, for the stock ``mteb run``, by the environment variable ``ST_REASONING_REFERENCE``: whatever
    `st-reasoning hrsa` takes. Scores against a named reference stand in a subset of their own, so that mteb's cache
    never answers for another one. A backbone is given the model's own kind of attention.

    Each score but ``main_score`` is the value at the last layer, without sink tokens, of the measure it is named after;
    ``panel`` holds the values of all layers with intervals, chance levels and words. Texts are run without prompt.

    ``main_score`` is ``linear_cka``: debiased linear CKA, 1 for the same geometry. It is no quality: two good models
    may be far apart. The task is therefore in no benchmark and in no list of tasks by type; it runs where it is named.

    Args:
        reference: Overrides the recorded one.
        **kwargs: As for any task.
    """

    abstask_prompt = ""

    def __init__(self, reference: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reference = reference or os.environ.get(REFERENCE) or None
        self._name_subset()

    def filter_languages(self, *args: Any, **kwargs: Any) -> RepresentationSimilarity:
        """Filter as every task does; the subset of a named reference stays."""
        super().filter_languages(*args, **kwargs)
        self._name_subset()
        return self

    def _name_subset(self) -> None:
        if self.reference is not None:
            self.hf_subsets = [f"reference={identity(self.reference)}"]

    def keep(self, rows: Any) -> None:
        """Put the data set where mteb looks for it; every reference is shown the same texts."""
        self.dataset = {subset: {"test": rows} for subset in (*self.hf_subsets, "default")}

    def _evaluate_subset(
        self,
        model: Any,
        data_split: Any,
        *,
        hf_split: str,
        hf_subset: str,
        encode_kwargs: Any,
        prediction_folder: Path | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        from st_reasoning.attention import probe_attention
        from st_reasoning.backbone import open_model
        from st_reasoning.hrsa import panel

        embedder = sentence_transformer(model)
        reference = self.reference or recorded_base(model.mteb_model_meta)
        other = open_model(reference, attention=_attention(probe_attention(embedder).attention, model))
        other.to(embedder.device)
        found = panel(other, embedder, data_split["text"], labels=data_split["label"], names=NAMES)
        if prediction_folder is not None:
            self._save_task_predictions(found, model, prediction_folder, hf_split, hf_subset)
        # A folder may hold another model by the time that somebody reads its name.
        return {**scores_of(found), "reference": reference, "reference_content": identity(reference)}

    def _calculate_descriptive_statistics_from_split(
        self, split: str, *, hf_subset: str | None = None, compute_overall: bool = False, num_proc: int | None = None
    ) -> dict[str, Any]:
        texts = self.dataset[hf_subset or "default"][split]["text"]
        lengths = [len(text) for text in texts]
        return {
            "num_samples": len(texts),
            "number_texts_intersect_with_train": None,
            "text_statistics": {
                "total_text_length": sum(lengths),
                "min_text_length": min(lengths),
                "average_text_length": sum(lengths) / len(lengths),
                "max_text_length": max(lengths),
                "unique_texts": len(set(texts)),
            },
        }


def sentence_transformer(model: Any) -> SentenceTransformer:
    """Return the sentence-transformers model inside an mteb model, whatever wraps it.

    Raises:
        InputError: if there is none.
    """
    from sentence_transformers import SentenceTransformer

    inner = model
    while inner is not None and not isinstance(inner, SentenceTransformer):
        inner = getattr(inner, "model", None) or getattr(inner, "_model", None)
    if inner is None:
        meta = getattr(model, "mteb_model_meta", None)
        raise InputError(
            f"{getattr(meta, 'name', model)}: expected a model of sentence-transformers, whose layers can be read, "
            f"got a {type(model).__name__}"
        )
    return inner


def recorded_base(meta: Any) -> str:
    """Return the backbone that a model is recorded to be made from.

    Args:
        meta: mteb's description of the model.

    Raises:
        InputError: if none is recorded, naming how to give one.
    """
    folder = (getattr(meta, "loader_kwargs", None) or {}).get("folder")
    record = Path(folder) / OWN_FILE if folder else None
    base = read_json(record).get("backbone") if record is not None and record.is_file() else None
    base = base or getattr(meta, "adapted_from", None)
    if not base:
        raise InputError(
            f"{meta.name} does not record what it was made from; name a reference: {REFERENCE}=MODEL mteb run ..."
        )
    return str(base)


def identity(reference: str) -> str:
    """Return a name for a reference that no other model shares: with the hash of its content, where that is on disk."""
    from st_reasoning.backbone import resolve

    folder = Path(reference).expanduser()
    if (folder / "modules.json").is_file():
        return f"{folder.resolve().name}@{folder_hash(folder)[:12]}"
    source = resolve(reference)
    if source.on_hub:
        return source.name
    place = Path(source.location)
    found = file_hash(place / source.gguf_file) if source.gguf_file else folder_hash(place)
    return f"{source.label}@{found[:12]}"


def scores_of(panel: Mapping[str, Any]) -> dict[str, Any]:
    """Return a panel as scores: headline numbers at the last layer, and all of it under ``panel``."""
    from st_reasoning.hrsa.addresses import Values
    from st_reasoning.hrsa.reading import middle_k

    values, k = Values(dict(panel)), middle_k(dict(panel))
    scores: dict[str, Any] = {}
    for name, address in HEADLINES.items():
        measure, rest = address.format(k=k).split(".", 1)
        for at in (f"sensitivity.{measure}_without_sinks.{rest}", f"{measure}.{rest}"):
            # mteb takes numbers only; a measure that is undefined has no score, and the panel says why.
            if at in values and (value := values.at(at, -1).value) is not None:
                scores[name] = value
                break
    scores["panel"] = {key: part for key, part in panel.items() if key not in _NOT_SCORES}
    return scores


def _attention(found: str, model: Any) -> Any:
    if found == "mixed":
        raise InputError(
            f"{model.mteb_model_meta.name}: its layers differ in attention; name a reference that is alike"
        )
    return found
