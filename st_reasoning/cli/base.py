"""What the commands share: options, errors as one line, the answer on standard output."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from st_reasoning.errors import STReasoningError

OUTPUT = click.Path(path_type=Path)
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace what the output folder holds.")
TEMPLATE = click.option("--instruction-template", help="Has {instruction} in it; put before the query.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")


class _Failure(click.ClickException):
    """One of our errors, shown as one line."""

    def __init__(self, error: STReasoningError) -> None:
        super().__init__(" ".join(str(error).split()))
        vars(self)["exit_code"] = error.exit_code  # click declares it for the class


class Group(click.Group):
    """Ends on our own errors with one line; anything else is a defect and keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error of ours becomes its message and exit code."""
        try:
            return super().invoke(ctx)
        except STReasoningError as error:
            raise _Failure(error) from error


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given, or have a default here; the others have theirs where they are used."""
    return {name: value for name, value in options.items() if value is not None}


def answer(facts: dict[str, Any], as_json: bool, words: str) -> None:
    """Print the result, as JSON or in words."""
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else words)


@contextlib.contextmanager
def working() -> Iterator[None]:
    """Keep standard output for the answer, and of what the libraries say the progress of long work.

    Trainers print their losses on standard output; bars that flash by on every load, and advice meant for developers,
    help nobody.
    """
    import warnings

    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        if not sys.warnoptions:
            warnings.simplefilter("ignore", FutureWarning)
        yield
