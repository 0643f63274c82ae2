"""How often HRSA intervals hold the true value: `python tests/benchmarks/hrsa_coverage.py [--help]`.

Draws data sets from a known population (tests/hrsa/populations.py), of 150 texts of 6 to 12 tokens that are correlated
within a text, runs the engine on each and prints, by address and layer: coverage with its 95 % binomial interval, the
mean half width over 1.96 standard deviations of the value, and its bias in standard deviations. Layer 1 has sinks, at
the first token of every text; layer 0 has none. "known": the true value is a closed form, or what the fitted probe does
on 20,000 other texts; "mean": it is the mean over all data sets, what the measure is at this size. A star marks what
st_reasoning.hrsa.inference.MARKED names. 1,000 data sets take 11 minutes on one core ("fast"), or 33 ("exact").
"""

from __future__ import annotations

import argparse
import time

import torch

from st_reasoning.hrsa import Settings
from tests.hrsa.populations import Population, lines, margins, simulate

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=1000)
    parser.add_argument("--texts", type=int, default=150)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, help="of the first data set")
    parser.add_argument("--estimators", nargs="+", choices=("exact", "fast"), default=["fast", "exact"])
    parser.add_argument("--no-labels", dest="labels", action="store_false", help="leave the probe out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    population = Population(options.width, options.texts)
    for estimator in options.estimators:
        start = time.perf_counter()
        settings = Settings(k=(5, 10), estimator=estimator)
        results = simulate(population, settings, options.replications, seed=options.seed, labels=options.labels)
        seconds = time.perf_counter() - start
        print(
            f"{estimator}: {options.replications} data sets in {seconds:.0f} s; an honest 95 % shows as "
            f"95 +- {100 * margins(options.replications):.1f} %",
            *lines(results), "", sep="\n", flush=True,
        )  # fmt: skip
