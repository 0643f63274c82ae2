"""Instructions before a query, with a boundary that is exact for the tokenizer at hand.

sentence-transformers leaves a prompt out of the pooling by its number of tokens when tokenised alone. A prompt that
ends in a space breaks that: a BPE tokenizer gives the space a token of its own, but glues it to the first word once a
text follows, so the count is one too many, the first word is not pooled, and a one-word query becomes the zero vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_reasoning.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAPER_TEMPLATE = "Instruction: {instruction}\nQuery: "
CODE_TEMPLATE = "Instruct: {instruction}\nQuery: "
# By these names in recipes and on the command line: what the paper prints, and what its authors' code does.
TEMPLATES = {"paper": PAPER_TEMPLATE, "code": CODE_TEMPLATE}

# First characters that tokenizers treat differently: letters of either case, digits, punctuation, other scripts.
BOUNDARY_TEXTS = (
    "Where is it?", "a", "why", "7", "3 + 4 = 7", "(x)", "$5", '"so"', "-1", "é", "数学", "Что", "\\frac{1}{2}",
)  # fmt: skip


def format_instruction(template: str, instruction: str) -> str:
    """Return the prompt for one instruction; an empty instruction is no prompt at all.

    Raises:
        InputError: if the template has no place for the instruction.
    """
    template = TEMPLATES.get(template, template)
    if "{instruction}" not in template:
        raise InputError(f"the instruction template {template!r} has no {{instruction}} in it")
    # Not str.format: instructions and templates may hold other braces (LaTeX, JSON).
    return template.replace("{instruction}", instruction) if instruction else ""


def fit_template(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """Return the closest form of ``template`` whose end is a token boundary whatever text follows.

    Args:
        tokenizer: The tokenizer of the embedder.
        template: The wish, or one of the names of :data:`TEMPLATES`.

    Returns:
        The template itself, or without white space at its end, or with a line break there.

    Raises:
        InputError: if none of these is exact; names the text that shows it.
    """
    template = TEMPLATES.get(template, template)
    stripped = template.rstrip()
    failures = []
    for candidate in dict.fromkeys((template, stripped, stripped + "\n")):
        prompt = format_instruction(candidate, "Given a question, retrieve its answer")
        text = first_inexact(tokenizer, prompt)
        if text is None:
            return candidate
        failures.append(f"{candidate[-12:]!r} before {text!r}")
    raise InputError(
        f"no form of the instruction template {template!r} ends at a token boundary of this tokenizer "
        f"({'; '.join(failures)}); end it in a character that the tokenizer never joins to the next word"
    )


def first_inexact(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str | None:
    """Return the first of :data:`BOUNDARY_TEXTS` whose tokens begin before ``prompt`` ends, or None."""
    alone = tokenizer(prompt)["input_ids"]
    if alone and alone[-1] in tokenizer.all_special_ids:
        alone = alone[:-1]  # an EOS that the tokenizer appends; sentence-transformers does not count it either
    for text in BOUNDARY_TEXTS:
        together = tokenizer(prompt + text)["input_ids"]
        if together[: len(alone)] != alone or len(together) <= len(alone):
            return text
    return None
