"""The command that is mteb's own."""

from __future__ import annotations

import click


@click.command("mteb", add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def mteb(arguments: tuple[str, ...]) -> None:
    """Run mteb's own command, which then knows our tasks, benchmarks and models, and folders on disk.

    Every argument is mteb's. After a normal installation plain `mteb` does the same; this command does it where that is
    switched off (ST_REASONING_MTEB=0) or not allowed.

    \b
    Example:
      st-reasoning mteb run -m embedders/smollm2 -b "ReasoningEmbedding(generated, v1)"
    """
    from st_reasoning.study.stock_mteb import run

    run(arguments)
