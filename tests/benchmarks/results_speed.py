"""How long 10,000 result files take to load and compare, and how much memory: at most 20 s and 1 GB.

Held against the bar is the time of the processor, of which one core is used: other work on the machine stretches the
time on the clock, which stands beside it.

    python -m tests.benchmarks.results_speed [FILES]

Writes a hundred models (20 trainings of 5 seeds) with scores of a hundred English retrieval tasks of mteb, each file
with the 130 scores of a real one, and runs ``st-reasoning results compare`` and ``show`` in processes of their own.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SECONDS, BYTES = 20.0, 1e9
MEASURE = "import resource, sys; from st_reasoning.cli import main\ntry:\n    main(sys.argv[1:])\nfinally:\n" + (
    "    print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, file=sys.stderr)"
)
KINDS = ("ndcg", "map", "recall", "precision", "mrr", "hit_rate")


def write(root: Path, files: int) -> None:
    import mteb

    found = mteb.get_tasks(task_types=["Retrieval"], languages=["eng"])
    plain = [task for task in found if task.hf_subsets == ["default"] and list(task.eval_splits) == ["test"]]
    names = [task.metadata.name for task in plain][:100]
    rng = random.Random(0)
    for number in range(files // len(names)):
        name, revision = f"org/m{number // 5}-seed-{number % 5}", f"{number:040x}"
        folder = root / "results" / name.replace("/", "__") / revision
        folder.mkdir(parents=True)
        (folder / "model_meta.json").write_text(json.dumps({"name": name, "revision": revision, "loader_kwargs": {}}))
        for task in names:
            entry = {f"{kind}_at_{k}": rng.random() for kind in KINDS for k in (1, 3, 5, 10, 20, 100, 1000)}
            entry |= {f"nauc_{key}_{end}": rng.uniform(-1, 1) for key in list(entry) for end in ("max", "std")}
            entry |= {"main_score": rng.random(), "hf_subset": "default", "languages": ["eng-Latn"]}
            result = {
                "dataset_revision": "1",
                "task_name": task,
                "mteb_version": "2.26.24",
                "scores": {"test": [entry]},
            }
            (folder / f"{task}.json").write_text(json.dumps(result, indent=2))


def measure(*arguments: str) -> tuple[float, float, float]:
    """Return seconds of the processor, seconds on the clock, and the peak of memory in bytes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return worked, seconds, float(done.stderr.split("peak")[-1])


def run(files: int = 10_000) -> bool:
    good = True
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write(root, files)
        count = sum(1 for path in root.rglob("*.json") if path.name != "model_meta.json")
        for name, arguments in (("compare", ("compare", "org/m0", "org/m1")), ("show", ("show",))):
            worked, seconds, memory = measure("results", *arguments, "--results", str(root), "--json")
            good &= worked <= SECONDS and memory <= BYTES
            print(f"{name}: {count:,} files, {worked:.1f} s of work ({seconds:.1f} s), {memory / 1e6:.0f} MB")
    return good


if __name__ == "__main__":
    sys.exit(0 if run(*map(int, sys.argv[1:])) else 1)
