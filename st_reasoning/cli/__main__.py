"""``python -m st_reasoning.cli``."""

from st_reasoning.cli import main

main()
