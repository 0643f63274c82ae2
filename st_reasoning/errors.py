"""What can go wrong, as exceptions with one base class.

The command line turns every :class:`STReasoningError` into one line on standard error and the exit code of its
class; anything else is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class STReasoningError(Exception):
    """Base class of every error this package raises on purpose."""

    exit_code = 1


class InputError(STReasoningError, ValueError):
    """The caller named something that does not exist or cannot be used; says what was expected."""

    exit_code = 2


class ConversionError(STReasoningError):
    """A backbone cannot be turned into the embedder that was asked for; says what was seen."""

    exit_code = 2


class MissingExtraError(STReasoningError, ImportError):
    """An optional dependency is needed and not installed."""

    exit_code = 2

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed: pip install 'st-reasoning[{extra}]'"
        )


def unknown_name(kind: str, name: str, known: Iterable[str], *, where: str = "") -> InputError:
    """Return the error for a name that is not among the known ones.

    Args:
        kind: What the name should have been, e.g. ``"recipe key"``.
        name: The name that was given.
        known: All names that would have been right.
        where: Where it stood, e.g. a file.

    Returns:
        An :class:`InputError` (not raised) naming the close matches, or all known names where none is close.
    """
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=3, cutoff=0.6)
    place = f" in {where}" if where else ""
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"expected one of {', '.join(options)}"
    return InputError(f"unknown {kind} {name!r}{place}: {hint}")
