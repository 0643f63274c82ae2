"""What every self-contained HTML page of ours is made with: templates, a frame, and data to save from the page."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


def templates(package: str) -> jinja2.Environment:
    """Return the jinja2 environment of a package's templates: text is escaped, a missing name is an error.

    ``frame.html.j2``, with our look and no content, is there for each to extend.
    """
    import jinja2

    return jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name, ".") for name in (package, "st_reasoning.html")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def script_hash(script: str) -> str:
    """Return what a page's content security policy calls the one script that may run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def csv_uri(text: str) -> str:
    """Return CSV as a link that a page can carry."""
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode()).decode()
