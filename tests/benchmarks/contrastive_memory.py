"""Peak memory of contrastive training: ``python tests/benchmarks/contrastive_memory.py [BACKBONE] [LAYERS]``.

One forward and backward pass of PackedInfoNCE over 64 and over 1024 gsm_symbolic questions with their solutions, at
one budget, each in a fresh process; SmolLM2-135M (by default the file in its package) is cut to 2 layers. Prints the
largest resident memory during the step, the memory before it, and the ratio of the former (bar: 1.2). Linux only.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.models import SMOLLM2

BUDGET = 2048
SIZES = (64, 1024)


def resident(name: str) -> float:
    """Return ``VmRSS`` (now) or ``VmHWM`` (the peak) of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def measure(backbone: str, layers: str, size: str) -> None:
    """Print the resident memory before one step and the peak during it, in MB."""
    from st_reasoning.training.loss import PackedInfoNCE
    from tests.benchmarks.contrastive_speed import cut_embedder, gsm_batch, run

    model = cut_embedder(backbone, int(layers))
    columns = gsm_batch(model, int(size))
    # Forget the peak of loading the whole model.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    run(model, PackedInfoNCE(model, mini_batch_tokens=BUDGET), columns)
    print(before, resident("VmHWM"))


def main(backbone: str = SMOLLM2, layers: str = "2") -> None:
    """Measure both sizes, each in a process of its own, and print the ratio."""
    peaks = []
    for size in SIZES:
        command = [sys.executable, __file__, backbone, layers, str(size)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        before, peak = map(float, printed.splitlines()[-1].split())
        peaks.append(peak)
        print(f"batch {size:>4}: peak {peak:.0f} MB, before the step {before:.0f} MB")
    print(f"ratio of the peaks: {peaks[1] / peaks[0]:.3f}")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        measure(*sys.argv[1:])
    else:
        main(*sys.argv[1:])
