"""An embedder that puts the task's instruction before queries, and never before documents."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from mteb.abstasks.abstask import get_abstask_prompt
from mteb.models import SentenceTransformerEncoderWrapper
from mteb.types import PromptType

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
        """Return the task's instruction for queries, or else that of its mteb base class, in the template."""
        own = task_metadata.prompt
        if isinstance(own, dict):
            own = own.get(PromptType.query.value)
        instruction = own or get_abstask_prompt(task_metadata.name)
        # Not str.format: the template may hold other braces. No instruction, no template around nothing.
        return self.instruction_template.replace("{instruction}", instruction) if instruction else ""


def prompts_used(model: Any, task_name: str) -> dict[str, str]:
    """Return the prompt put before each side's texts, if this process has evaluated the model on the task.

    Args:
        model: A ``ModelMeta``, or a mere name, for which nothing is known.
        task_name: The task's name.
    """
    key = (str(getattr(model, "name", None)), str(getattr(model, "revision", None)), task_name)
    return dict(_USED.get(key, {}))
