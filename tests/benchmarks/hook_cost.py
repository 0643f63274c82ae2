"""What the hook costs a Python that may never use it: bare start-up, and `import mteb`.

    python tests/benchmarks/hook_cost.py [STARTS] [IMPORTS]

Two virtual environments see the same packages, one with the hook and one without. Each round starts both, in changing
order, and both sides are medians over the same rounds: of the processor time, which other work on the machine disturbs
less than the time on the clock. Bars: 3 ms on a bare start, 10 % on `import mteb`.
"""

from __future__ import annotations

import importlib.util
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

# By its path: the tests are no package.
spec = importlib.util.spec_from_file_location("plugins_conftest", Path(__file__).parents[1] / "plugins" / "conftest.py")
assert spec is not None
assert spec.loader is not None
conftest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(conftest)


def seconds(python: Path, code: str) -> float:
    """Return the processor time of a fresh Python from start to exit, its own and the system's on its behalf."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([python, "-c", code], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def medians(pythons: list[Path], code: str, rounds: int) -> list[float]:
    """Return the median processor time of each Python, in seconds; one round of warming up is not counted."""
    times: list[list[float]] = [[] for _ in pythons]
    for number in range(rounds + 1):
        order = list(range(len(pythons)))
        for place in order if number % 2 else reversed(order):
            took = seconds(pythons[place], code)
            if number:
                times[place].append(took)
    return [statistics.median(each) for each in times]


def main(starts: int = 200, imports: int = 15) -> None:
    """Measure and print both costs."""
    with tempfile.TemporaryDirectory() as scratch:
        pythons = [conftest.python(Path(scratch) / name, hook=name == "hooked").python for name in ("plain", "hooked")]
        for code, rounds in (("", starts), ("import mteb", imports)):
            plain, hooked = medians(pythons, code, rounds)
            print(
                f"{code or 'bare start'}: {plain * 1000:.1f} ms without the hook, {hooked * 1000:.1f} ms with it "
                f"(+{(hooked - plain) * 1000:.1f} ms, ratio {hooked / plain:.3f}; {rounds} rounds)"
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
