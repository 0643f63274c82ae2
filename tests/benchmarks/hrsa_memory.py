"""What the HRSA engine needs of memory: `python tests/benchmarks/hrsa_memory.py [TOKENS ...]` (default 13000 130000).

A synthetic stream, in chunks of 10 texts of 26 tokens, of two models with 31 hidden states of width 576. Each
number of tokens runs in a process of its own, after a small run that loads the libraries. Prints the peak of the
resident memory above what the process held before, chunk included, and the ratio of the last to the first.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import torch

from st_reasoning.hrsa import Chunk, Engine, Settings

LAYERS, WIDTH, TEXTS, LENGTH = 31, 576, 10, 26


def stream(tokens: int, layers: int, width: int) -> dict[str, object]:
    with Engine(Settings(k=(5, 10, 50), estimator="fast")) as engine:
        n = TEXTS * LENGTH
        for first in range(0, max(1, tokens // n) * TEXTS, TEXTS):
            generator = torch.Generator().manual_seed(first)
            a = torch.randn(layers, n, width, generator=generator)
            engine.update(
                Chunk(
                    a=a,
                    b=a + torch.randn(a.shape, generator=generator),
                    sentences=torch.arange(first, first + TEXTS).repeat_interleave(LENGTH),
                    types=torch.randint(0, 5000, (n,), generator=generator),
                    pooled_a=None,
                    pooled_b=None,
                    texts=torch.arange(first, first + TEXTS),
                )
            )
        return engine.compute()["sample"]


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--one":
        stream(1000, 2, 16)
        before = peak_megabytes()
        sample = stream(int(sys.argv[2]), LAYERS, WIDTH)
        print(f"{peak_megabytes() - before:.0f} {sample['tokens_seen']} {sample['tokens']}")
        sys.exit()
    peaks = []
    for tokens in sys.argv[1:] or ["13000", "130000"]:
        command = [sys.executable, __file__, "--one", tokens]
        out = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ).stdout.split()
        peaks.append(float(out[0]))
        print(f"{int(out[1]):,} tokens ({int(out[2]):,} looked at): {peaks[-1]:.0f} MB", flush=True)
    print(f"ratio of the last to the first: {peaks[-1] / peaks[0]:.2f}")
