"""Whether two backbones are given the same inputs, looked at side by side from config and tokenizer alone.

A base model and its reasoning variant often differ in more than their weights: another chat template, a pad token, a
BOS that one of them prepends. Each such difference is a second reason for a difference in scores.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from st_reasoning.backbone import inputs
from st_reasoning.backbone.gguf_files import parsed_once
from st_reasoning.backbone.inputs import TEXTS, Inputs
from st_reasoning.backbone.prompts import PAPER_TEMPLATE
from st_reasoning.backbone.sources import resolve
from st_reasoning.errors import InputError, unknown_name
from st_reasoning.files import content_hash

SHOWN = 52  # characters of a value in a table


@dataclass(frozen=True)
class Finding:
    """One point in which two backbones were compared.

    Attributes:
        name: Stable; the one to waive.
        base: What the base model has, short.
        reasoning: What the reasoning model has.
        equal: Whether the two are the same; decided on the whole values, not on what is shown of them.
        why: What a difference here does to the comparison.
    """

    name: str
    base: str
    reasoning: str
    equal: bool
    why: str


@dataclass(frozen=True)
class Audit:
    """Two backbones side by side.

    Attributes:
        findings: One for each of :data:`NAMES`, in that order.
        models: The names of the base and of the reasoning model, as they were given.
    """

    findings: tuple[Finding, ...]
    models: tuple[str, str]

    @property
    def differences(self) -> tuple[Finding, ...]:
        """The findings that are not equal."""
        return tuple(finding for finding in self.findings if not finding.equal)

    def to_mapping(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "schema": 1,
            "models": list(self.models),
            "equal": not self.differences,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def describe(self) -> str:
        """Return a table for a terminal, differences marked with ``!`` and explained below it."""
        rows = [("", "base", "reasoning"), *((f.name, f.base, f.reasoning) for f in self.findings)]
        marks = [" ", *(" " if f.equal else "!" for f in self.findings)]
        wide, broad = (max(len(row[column]) for row in rows) for column in (0, 1))
        lines = [
            f"{mark} {name:{wide}}  {base:{broad}}  {reasoning}".rstrip()
            for mark, (name, base, reasoning) in zip(marks, rows, strict=True)
        ]
        different = self.differences
        if not different:
            return "\n".join([*lines, "", f"All {len(self.findings)} are equal."])
        total = f"{len(different)} of {len(self.findings)} differ:"
        return "\n".join([*lines, "", total, *(f"! {f.name}: {f.why}" for f in different)])


def audit(base: str, reasoning: str, *, instruction_template: str = PAPER_TEMPLATE) -> Audit:
    """Compare what two backbones would be given, without loading their weights.

    Args:
        base: A backbone as for :func:`st_reasoning.convert`, or an embedder folder.
        reasoning: The other one.
        instruction_template: As for :func:`st_reasoning.convert`.

    Raises:
        InputError: if config or tokenizer cannot be loaded, or the conversion would refuse the tokenizer.
    """
    names = (base, reasoning)
    findings = []
    with parsed_once() if any(resolve(name).kind == "gguf" for name in names) else contextlib.nullcontext():
        arms = tuple(inputs.look(name, instruction_template) for name in names)
        for name, check in _CHECKS.items():
            values = check.read(arms[0]), check.read(arms[1])
            findings.append(Finding(name, *check.show(*values), values[0] == values[1], check.why))
    return Audit(tuple(findings), (base, reasoning))


def refuse_unequal(found: Audit, *, waive: Iterable[str] = ()) -> None:
    """Refuse two backbones that differ in anything that was not waived.

    Args:
        found: What :func:`audit` returned.
        waive: Names of findings whose difference is meant, or part of what is compared.

    Raises:
        InputError: naming every such difference, or a name in ``waive`` that is none.
    """
    waived = set(waive)
    check_names(waived)
    left = [finding for finding in found.differences if finding.name not in waived]
    if left:
        said = "; ".join(f"{f.name} ({f.base} against {f.reasoning}): {f.why}" for f in left)
        names = ", ".join(f.name for f in found.differences)
        raise InputError(
            f"{found.models[0]} and {found.models[1]} are not given the same: {said}. "
            f"Make them equal, or write 'waive: [{names}]' in the recipe's pair if that is meant"
        )


def check_names(names: Iterable[str], *, where: str = "waive") -> None:
    """Refuse what is not the name of a finding.

    Raises:
        InputError: naming close matches.
    """
    for name in sorted(names):
        if name not in NAMES:
            raise unknown_name("finding", name, NAMES, where=where)


# How it is shown: a text for each of the two values.


def _short(text: str) -> str:
    """Return a text on one line and without control characters; of a long one the beginning and a hash."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    if len(safe) <= SHOWN:
        return safe
    return f"{safe[: SHOWN - 12]}... {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _each(show: Callable[[Any], str]) -> Callable[[Any, Any], tuple[str, str]]:
    return lambda base, reasoning: (_short(show(base)), _short(show(reasoning)))


def _show_template(template: Any) -> str:
    if not template:
        return "none"
    return f"{len(str(template))} characters, sha256 {content_hash(template)[:8]}"


def _parts(show: Callable[[str, Any], str]) -> Callable[[Any, Any], tuple[str, str]]:
    """Show mappings part by part; where two differ, only the parts that do."""

    def both(base: dict[str, Any], reasoning: dict[str, Any]) -> tuple[str, str]:
        keys = tuple(dict.fromkeys((*base, *reasoning)))
        differ = [key for key in keys if base.get(key) != reasoning.get(key)]
        shown = ([show(key, side.get(key)) for key in differ or keys] for side in (base, reasoning))
        first, second = (_short(", ".join(filter(None, parts))) or "none" for parts in shown)
        return first, second

    return both


def _show_special(role: str, value: Any) -> str:
    tokens = [value] if role != "others" else value
    return f"{role} {' '.join(f'{token[0]}={token[1]}' if token else 'none' for token in tokens or [None])}"


def _show_added(added: dict[str, list[str]]) -> str:
    return ", ".join(f"{' '.join(tokens) or 'nothing'} {place}" for place, tokens in added.items())


def _show_attention(part: str, value: Any) -> str:
    if part == "is_causal":
        return "causal" if value else "bidirectional"
    if part == "layers" and value:
        return ", ".join(f"{count} {kind.removesuffix('_attention')}" for kind, count in Counter(value).items())
    if part == "window" and value:
        return f"window {value}"
    return str(value or "")


def _show_rope(part: str, value: Any) -> str:
    if value is None:
        return ""
    return f"{part} {value:g}" if isinstance(value, float) else f"{part} {value}"


def _show_lengths(lengths: dict[str, Any]) -> str:
    return ", ".join(f"{place} {value}" for place, value in lengths.items() if value is not None)


def _show_vocabularies(base: dict[str, int], reasoning: dict[str, int]) -> tuple[str, str]:
    """Show sizes and hashes, and the first token that is not the same in both."""
    differ = sorted(base.items() ^ reasoning.items(), key=lambda item: item[::-1])
    first = differ[0][0] if differ else None

    def show(vocabulary: dict[str, int]) -> str:
        summary = f"{len(vocabulary)}, sha256 {content_hash(vocabulary)[:8]}"
        if first is None:
            return summary
        return f"{summary}, {_short(first)} is {vocabulary.get(first, 'missing')}"

    return show(base), show(reasoning)


def _show_ids(base: list[list[int]], reasoning: list[list[int]]) -> tuple[str, str]:
    """Show the first text with different ids, from the first different one on."""
    for text, ids, others in zip(TEXTS, base, reasoning, strict=True):
        if ids != others:
            pairs = enumerate(zip(ids, others, strict=False))
            start = next((k for k, pair in pairs if pair[0] != pair[1]), min(len(ids), len(others)))
            first, second = (f"{part[start : start + 3]} at {start} of {len(part)}" for part in (ids, others))
            return f"{_short(text)}: {first}", second
    shown = f"{len(TEXTS)} texts, sha256 {content_hash(base)[:8]}"
    return shown, shown


@dataclass(frozen=True)
class _Check:
    why: str
    read: Callable[[Inputs], Any]
    show: Callable[[Any, Any], tuple[str, str]]


_CHECKS = {
    "chat_template": _Check(
        "the conversion keeps plain text plain, but whatever applies the template feeds the two differently",
        lambda arm: arm.tokenizer.chat_template or None,
        _each(_show_template),
    ),
    "special_tokens": _Check(
        "a text that holds or is given such a token means something else to one of the two",
        inputs.special_tokens,
        _parts(_show_special),
    ),
    "pad_token": _Check(
        "padding is masked in the embedder, but other code that masks this token masks real tokens of one of the two",
        inputs.pad_token,
        _each(lambda pad: f"{pad[0]}={pad[1]}"),
    ),
    "added_tokens": _Check(
        "one of the two reads, and pools, a token that the other is not given",
        lambda arm: {place: arm.settled[place] for place in ("before", "after")},
        _each(_show_added),
    ),
    "padding_side": _Check(
        "the conversion pads both on the right; other code would shift positions and the last token in one of the two",
        lambda arm: arm.padding_side,
        _each(str),
    ),
    "prompt_boundary": _Check(
        "queries of the two carry prompts that end differently",
        lambda arm: arm.boundary,
        _each(lambda template: repr(template if len(template) < SHOWN else f"...{template[9 - SHOWN :]}")),
    ),
    "vocabulary": _Check(
        "the same token id stands for different text, so embeddings of tokens cannot be matched by id",
        lambda arm: arm.tokenizer.get_vocab(),
        _show_vocabularies,
    ),
    "token_ids": _Check(
        "the same text is cut into different tokens, so the two read inputs of different length and content",
        inputs.token_ids,
        _show_ids,
    ),
    "dtype": _Check(
        "weights that were stored in fewer bits have been rounded, whatever dtype they are loaded in",
        inputs.dtype,
        _each(str),
    ),
    "attention": _Check(
        "a difference in scores may come from the architecture or its attention instead of the training",
        inputs.attention,
        _parts(_show_attention),
    ),
    "rope": _Check(
        "the same distance between two tokens turns their states by another angle, so positions mean something else",
        inputs.rope,
        _parts(_show_rope),
    ),
    "depth_and_width": _Check(
        "the two differ in capacity and dimension, and their layers cannot be matched one to one",
        inputs.depth_and_width,
        _each(lambda shape: f"{shape[0]} layers x {shape[1]}"),
    ),
    "max_length": _Check(
        "long texts may be cut at different places, or read beyond what one of the two was made for",
        inputs.max_length,
        _each(_show_lengths),
    ),
}

NAMES = tuple(_CHECKS)
