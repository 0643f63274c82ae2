"""``accelerate launch -m st_reasoning.training RECIPE --backbone B --output O``: the train command, in each process."""

import sys

from st_reasoning.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]], prog_name="python -m st_reasoning.training")
