"""The proofs of a conversion, run on any sentence-transformers folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_reasoning.attention import AttentionReport, probe_attention
from st_reasoning.backbone.prompts import BOUNDARY_TEXTS, first_inexact
from st_reasoning.backbone.sources import Source, loading
from st_reasoning.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class Check:
    """What a model was seen to do.

    Attributes:
        folder: The model.
        attention: What its attention is.
        pooling: Pooling mode and whether prompts are pooled.
        prompts: The model's prompts by name.
        problems: One sentence for each thing that is wrong; empty if nothing is.
    """

    folder: str
    attention: AttentionReport
    pooling: str
    prompts: dict[str, str]
    problems: tuple[str, ...]

    def to_mapping(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    def describe(self) -> str:
        """Say what was found, a line each."""
        prompts = ", ".join(f"{name} {text!r}" for name, text in self.prompts.items() if text) or "none"
        lines = [self.attention.describe(), f"pooling: {self.pooling}", f"prompts: {prompts}"]
        return "\n".join([*lines, *(f"PROBLEM: {problem}" for problem in self.problems or ())])


def check_folder(folder: Path, *, attention: str | None = None) -> Check:
    """Run every proof on a sentence-transformers folder.

    Args:
        folder: Any folder with ``modules.json``.
        attention: What its attention has to be; by default it has to be uniform.

    Raises:
        InputError: if there is no such folder, or it cannot be loaded.
    """
    from sentence_transformers import SentenceTransformer

    if not (folder / "modules.json").is_file():
        raise InputError(f"{folder} has no modules.json; expected a sentence-transformers folder")
    with loading(Source(str(folder), "folder", str(folder))):
        model = SentenceTransformer(str(folder), local_files_only=True)
    return check_model(model, str(folder), attention=attention)


def check_model(model: SentenceTransformer, name: str, *, attention: str | None = None) -> Check:
    """Run every proof on a loaded model; see :func:`check_folder`."""
    if not hasattr(model[0], "model") or model.tokenizer is None:
        raise InputError(
            f"the first module of {name} is {type(model[0]).__name__}; expected a transformer with a tokenizer"
        )
    report = probe_attention(model)
    problems = []
    if report.attention == "mixed":
        problems.append(f"attention is not uniform: {report.describe()}")
    elif attention not in (None, report.attention):
        problems.append(f"attention is {report.attention}, expected {attention}")
    pooling: Any = next((module for module in model if type(module).__name__ == "Pooling"), None)
    excluded = pooling is not None and not pooling.include_prompt
    problems += _text_problems(model)
    if excluded:
        problems += _prompt_problems(model)
    return Check(
        folder=name,
        attention=report,
        pooling="none"
        if pooling is None
        else f"{pooling.pooling_mode}, prompts {'excluded' if excluded else 'included'}",
        prompts={name: text or "" for name, text in model.prompts.items()},
        problems=tuple(problems),
    )


def _text_problems(model: SentenceTransformer) -> list[str]:
    """Compare what reaches the transformer with what the tokenizer makes of the text alone."""
    text = "Where is it?"
    seen = model.preprocess([text])["input_ids"][0].tolist()
    alone = model.tokenizer(text)["input_ids"]
    if seen == alone:
        return []
    return [f"plain text does not reach the model as it is (a chat template?): {model.tokenizer.decode(seen)!r}"]


def _prompt_problems(model: SentenceTransformer) -> list[str]:
    """Find prompts whose end is not a token boundary, and texts that embed to nothing under them."""
    import torch

    problems = []
    for name, prompt in model.prompts.items():
        if not prompt:
            continue
        if (text := first_inexact(model.tokenizer, prompt)) is not None:
            problems.append(
                f"the prompt {name!r} ends inside a token when {text!r} follows: part of the text is not pooled"
            )
        norms = model.encode(list(BOUNDARY_TEXTS), prompt=prompt, convert_to_tensor=True).norm(dim=1)
        if bool((norms < torch.finfo(torch.float32).eps).any()):
            zero = BOUNDARY_TEXTS[int(norms.argmin())]
            problems.append(f"under the prompt {name!r} the text {zero!r} embeds to the zero vector")
    return problems
