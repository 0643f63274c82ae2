"""How well `st-reasoning screen` foretells the scores of a study, on tiny models of graded quality.

    python -m tests.benchmarks.screen_agreement [FOLDER]

One tiny llama, and the same after 25 to 800 steps of language modelling on worked solutions, the best of them with
noise on its weights as well: seven backbones, each trained contrastively under two seeds and scored on three generated
tasks by a study, then screened by the command. Prints the table, the agreement and the time of both.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from st_reasoning.config import write_resolved
from st_reasoning.study import Corpus, Pair, Reasoning, StudyRecipe
from st_reasoning.training import DataSet, Generated, TrainingRecipe
from tests.models import make_llama

STEPS = (25, 100, 200, 400, 800)
NOISE = 0.5  # of the deviation of each weight matrix
TASKS = ("GSMSymbolicSolutionRetrieval", "GSMSymbolicExchangedRetrieval", "ReasoningGymFamilyClustering")


def make_backbones(root: Path) -> list[Path]:
    """Write the seven, the untrained one first."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from st_reasoning.problems import gsm_problems, gsm_templates, held_out_templates

    torch.manual_seed(0)
    found = [make_llama(root / "untrained", hidden_size=64, layers=4)]
    model = AutoModelForCausalLM.from_pretrained(found[0])
    tokenizer = AutoTokenizer.from_pretrained(found[0])
    trained = frozenset(gsm_templates()) - held_out_templates()
    texts = [f"{p.question}\n{p.solution}\n" for p in gsm_problems(20, seed=5, templates=trained)]
    ids = torch.tensor([token for text in texts for token in tokenizer(text)["input_ids"]])
    rows = ids[: len(ids) // 128 * 128].reshape(-1, 128)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(1, max(STEPS) + 1):
        batch = rows[torch.randint(len(rows), (16,))]
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if step in STEPS:
            found.append(save(model, found[0], root / f"steps-{step}"))
            print(f"after {step} steps: loss {loss.item():.2f}", flush=True)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight += NOISE * weight.std() * torch.randn_like(weight)
    found.append(save(model, found[0], root / "noisy"))
    return found


def save(model: object, like: Path, folder: Path) -> Path:
    shutil.copytree(like, folder)
    model.save_pretrained(folder)  # type: ignore[attr-defined]
    return folder


def run(root: Path) -> None:
    first, *others = make_backbones(root / "backbones")
    recipe = StudyRecipe(
        pairs=tuple(Pair(f"to-{other.name}", str(first), Reasoning(backbone=str(other))) for other in others),
        training=TrainingRecipe(
            data=(DataSet("gsm", "Given a math word problem, retrieve its worked solution.",
                          generated=Generated("gsm_symbolic", 640)),),
            hard_negatives=1, batch_size=16, max_seq_length=256, learning_rate=5e-4, warmup=0.1,
        ),
        tasks=TASKS,
        seeds=(0, 1),
        hrsa=Corpus(templates=5, per_template=5),
    )  # fmt: skip
    write_resolved(root / "study.yaml", recipe)
    cli = [sys.executable, "-m", "st_reasoning.cli"]
    start = time.perf_counter()
    subprocess.run([*cli, "study", str(root / "study.yaml"), "--output", str(root / "study")], check=True)
    print(f"study: {time.perf_counter() - start:.0f} s", flush=True)
    for seeds in ("1", "2"):
        start = time.perf_counter()
        options = ["--recipe", str(root / "study.yaml"), "--against", str(root / "study"), "--seeds", seeds]
        subprocess.run([*cli, "screen", *options, "--output", str(root / f"screen-{seeds}.json")], check=True)
        print(f"screening with {seeds} seeds: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder))
