"""An embedder that puts the task's instruction before queries, and never before documents."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mteb.abstasks.abstask import get_abstask_prompt
from mteb.models import SentenceTransformerEncoderWrapper
from mteb.types import PromptType

from st_reasoning.errors import InputError
from st_reasoning.files import read_jsonl

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata

logger = logging.getLogger("mteb.st_reasoning")  # below "mteb", so that `mteb run -v` governs it

# (model name, revision, task) -> side -> the prompt that was put before its texts. Saving looks it up here,
# for mteb saves by a description of the model that has not seen the model work.
_USED: dict[tuple[str, str, str], dict[str, str]] = {}


class InstructedEmbedder(SentenceTransformerEncoderWrapper):  # type: ignore[misc]
    """A sentence-transformers model with an instruction template.

    mteb's ``InstructSentenceTransformerModel`` would leave documents to the model's default prompt, take a
    dictionary of prompts for the instruction in tasks without sides, and stop at braces in the template.
    """

    def __init__(self, model: str, *, instruction_template: str, **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        self.instruction_template = instruction_template

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> Any:
        """Embed the texts of ``inputs``, a data loader whose batches hold a list under ``"text"``.

        The prompt goes to sentence-transformers as a prompt, not glued to the texts: only so does a pooling
        that leaves prompts out know how long it is. In tasks without sides (STS, classification) every text
        counts as a query.

        Returns:
            Embeddings of shape (n, d), float32.
        """
        side = prompt_type or PromptType.query
        # An empty prompt is not none: without one, sentence-transformers takes the model's default prompt.
        prompt = "" if side == PromptType.document else self.query_prompt(task_metadata)
        key = (str(self.mteb_model_meta.name), str(self.mteb_model_meta.revision), task_metadata.name)
        if _USED.setdefault(key, {}).get(side.value) != prompt:
            _USED[key][side.value] = prompt
            logger.info("Prompt for the %s side of %s: %r", side.value, task_metadata.name, prompt)
        encode = {
            None: self.model.encode,
            PromptType.query: self.model.encode_query,
            PromptType.document: self.model.encode_document,
        }[prompt_type]
        texts = [text for batch in inputs for text in batch["text"]]
        embeddings = encode(texts, prompt=prompt, **kwargs)
        return embeddings.detach().cpu().float() if hasattr(embeddings, "detach") else embeddings

    def query_prompt(self, task_metadata: TaskMetadata) -> str:
        """Return the task's instruction for queries in the template."""
        return query_prompt(self.instruction_template, task_metadata)


def query_prompt(template: str, task_metadata: TaskMetadata) -> str:
    """Return the task's instruction for queries, or else that of its mteb base class, in ``template``."""
    own = task_metadata.prompt
    if isinstance(own, dict):
        own = own.get(PromptType.query.value)
    instruction = own or get_abstask_prompt(task_metadata.name)
    # Not str.format: the template may hold other braces. No instruction, no template around nothing.
    return template.replace("{instruction}", instruction) if instruction else ""


def refuse_other_prompt(task_metadata: TaskMetadata, model: Any, cache: Any) -> None:
    """Refuse kept scores of a task that was asked with another instruction: mteb's cache does not look at it.

    The same task has mteb's instruction in one benchmark and the paper's in another.

    Args:
        task_metadata: Of the task that is to be evaluated.
        model: The model's ``ModelMeta``; those without an instruction template are not looked at.
        cache: mteb's ``ResultCache``.

    Raises:
        InputError: if the instruction that was written beside the scores is another one.
    """
    template = (getattr(model, "loader_kwargs", None) or {}).get("instruction_template")
    settings = Path(cache.get_task_result_path(task_metadata.name, model)).with_name("run_settings.jsonl")
    if template is None or not settings.is_file():
        return
    now = query_prompt(template, task_metadata)
    for row in read_jsonl(settings):
        then = ((row.get("encode_kwargs") or {}).get("prompt") or {}).get(PromptType.query.value, now)
        if row.get("task") == task_metadata.name and then != now:
            raise InputError(
                f"{settings.parent} has scores of {task_metadata.name} asked with {then!r}, not with {now!r}: name "
                "another output folder, or replace them with --overwrite-strategy always"
            )


def prompts_used(model: Any, task_name: str) -> dict[str, str]:
    """Return the prompt put before each side's texts, if this process has evaluated the model on the task.

    Args:
        model: A ``ModelMeta``, or a mere name, for which nothing is known.
        task_name: The task's name.
    """
    key = (str(getattr(model, "name", None)), str(getattr(model, "revision", None)), task_name)
    return dict(_USED.get(key, {}))
