"""How long it takes to plan a study of 10,000 steps.

    python -m tests.benchmarks.study_planning

Twenty pairs of tiny llamas and 100 seeds. Timed apart: the layout with its checks and content keys, as a run does it
before its first step (libraries have been imported); the same with a record for every step on disk; and the whole
command `st-reasoning study --plan`, imports included. The first two must take less than 5 seconds of this process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from st_reasoning.config import write_resolved
from st_reasoning.files import write_json
from st_reasoning.study import Corpus, Pair, Reasoning, StudyRecipe
from st_reasoning.study.plan import done_before, keys, record_of
from st_reasoning.study.run import plan_study
from st_reasoning.training import DataSet, Generated, TrainingRecipe
from tests.models import make_llama

LIMIT = 5.0  # seconds


def study(root: Path, pairs: int, seeds: int) -> StudyRecipe:
    models = [make_llama(root / f"model-{number}", seed=number) for number in range(2 * pairs)]
    arms = zip(models[::2], models[1::2], strict=True)
    return StudyRecipe(
        pairs=tuple(
            Pair(f"pair-{number}", str(base), Reasoning(backbone=str(reasoning)), method="RLVR")
            for number, (base, reasoning) in enumerate(arms)
        ),
        training=TrainingRecipe(data=(DataSet("gsm", "Find.", generated=Generated("gsm_symbolic", 200)),)),
        benchmarks=("ReasoningEmbedding(generated, v1)",),
        seeds=tuple(range(seeds)),
        hrsa=Corpus(),
    )


def planned(recipe: StudyRecipe, out: Path) -> tuple[float, int, dict[str, str], int]:
    start = time.process_time()
    steps = plan_study(recipe, out)
    key_of = keys(steps)
    done = sum(done_before(step, key_of[step.name], out / "steps") is not None for step in steps)
    return time.process_time() - start, len(steps), key_of, done


def run(pairs: int = 20, seeds: int = 100) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder), Path(folder) / "out"
        recipe = study(root, pairs, seeds)
        planned(study(root, 1, 1), out)  # imports
        first, count, key_of, _ = planned(recipe, out)
        print(f"{count} steps laid out, checked and keyed: {first:.2f} s")
        for step in plan_study(recipe, out):
            step.output.mkdir(parents=True, exist_ok=True)
            write_json(record_of(out / "steps", step.name), {"key": key_of[step.name], "seconds": 1.0, "facts": {}})
        again, _, _, done = planned(recipe, out)
        print(f"the same with {done} records: {again:.2f} s")
        write_resolved(root / "study.yaml", recipe)
        command = [sys.executable, "-m", "st_reasoning.cli", "study", str(root / "study.yaml"), "--output", str(out)]
        start = time.perf_counter()
        subprocess.run([*command, "--plan", "--json"], check=True, stdout=subprocess.DEVNULL)
        print(f"the command --plan, imports and costs included: {time.perf_counter() - start:.2f} s")
        return max(first, again) < LIMIT


if __name__ == "__main__":
    sys.exit(not run())
