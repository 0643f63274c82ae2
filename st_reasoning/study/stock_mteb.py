"""mteb's own command line with this project's additions, for where the hook that adds them is not wanted."""

from __future__ import annotations

import sys


def run(arguments: tuple[str, ...]) -> None:
    """Call the main function of mteb's command line with ``arguments``."""
    from mteb.cli import main

    import mteb_tasks  # noqa: F401 - registers our additions

    # mteb's parser reads sys.argv and takes no other arguments.
    ours, sys.argv = sys.argv, ["st-reasoning mteb", *arguments]
    try:
        main()
    finally:
        sys.argv = ours
