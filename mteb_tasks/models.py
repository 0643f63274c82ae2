"""What is known of the published embedders of the study, and of what a recipe of this project trains on.

The names of the study's embedders are those its public code and model cards give. Their licences, parameter counts and
commits could not be looked up without a network and are left out: a run of one needs ``--model-revision``, and, for
the code in its repository, ``ST_REASONING_REMOTE_CODE=1``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from mteb.models.model_meta import ModelMeta, ScoringFunction

from mteb_tasks.instructed import InstructedEmbedder
from st_reasoning.errors import InputError

# The data sets of recipes/paper.yaml as mteb calls them, for what counts as seen in training.
MTEB_NAMES = {
    "msmarco": "MSMARCO",
    "nli": "AllNLI",
    "hotpotqa": "HotpotQA",
    "fever": "FEVER",
    "mrtydi": "MrTidyRetrieval",
    "nq": "NQ",
    "quora": "QuoraRetrieval",
    "t2ranking": "T2Retrieval",
    "squad": "SQuAD",
    "triviaqa": "TriviaQA",
    "dureader": "DuRetrieval",
}
# Name of the embedder -> backbone it was trained from.
PUBLISHED = {
    "lucaswychan/Qwen3-0.6B-Base-Reasoning-Embedding": "Qwen/Qwen3-0.6B-Base",
    "lucaswychan/Qwen3-0.6B-Base-checkpoint-200-Reasoning-Embedding": "Qwen/Qwen3-0.6B-Base",
    "lucaswychan/Qwen3-0.6B-Reasoning-Embedding": "Qwen/Qwen3-0.6B",
    "lucaswychan/Qwen-2.5-1.5B-SimpleRL-Zoo-Reasoning-Embedding": "hkust-nlp/Qwen-2.5-1.5B-SimpleRL-Zoo",
}
# Says that code from a model's repository may run.
REMOTE_CODE = "ST_REASONING_REMOTE_CODE"
# As the published weights were evaluated; the paper's text has "Instruction:".
TEMPLATE = "Instruct: {instruction}\nQuery: "


def trained_on(names: Iterable[str]) -> set[str]:
    """Return names of a recipe's data sets as mteb has them; others as they are."""
    return {MTEB_NAMES.get(name, name) for name in names}


def published() -> list[ModelMeta]:
    """Describe the published embedders of the study."""
    return [
        # create_empty knows the fields that a later mteb may require.
        ModelMeta.create_empty(
            overwrites={
                "loader": load_published,
                "loader_kwargs": {"instruction_template": TEMPLATE, "trust_remote_code": True},
                "name": name,
                "open_weights": True,
                "framework": ["Sentence Transformers", "PyTorch"],
                "reference": f"https://huggingface.co/{name}",
                "similarity_fn_name": ScoringFunction.COSINE,
                "use_instructions": True,
                "adapted_from": backbone,
                "training_datasets": trained_on(MTEB_NAMES),
                "public_training_code": "https://github.com/lucaswychan/gritlm-re",
            }
        )
        for name, backbone in PUBLISHED.items()
    ]


def at_commit(meta: ModelMeta, revision: str) -> ModelMeta | None:
    """Describe a published embedder at a commit; None for other models. mteb itself takes registered commits only."""
    return meta.model_copy(update={"revision": revision}) if meta.loader is load_published else None


def load_published(name: str, revision: str | None = None, **kwargs: Any) -> InstructedEmbedder:
    """Load a published embedder; bidirectional attention is in its repository's own code.

    Raises:
        InputError: without a revision, for code that is run, and scores that are kept, must be of one commit; or
            where the environment does not say that such code may run.
    """
    if revision in (None, ModelMeta.create_empty().revision) or os.environ.get(REMOTE_CODE) != "1":
        raise InputError(
            f"{name} runs code of its repository, and no commit of it is known here: look at one, name it with "
            f"--model-revision, and set {REMOTE_CODE}=1"
        )
    return InstructedEmbedder(name, revision=revision, **kwargs)
