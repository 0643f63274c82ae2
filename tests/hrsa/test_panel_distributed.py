"""Two processes (gloo), each running its share of the texts, give the record of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from st_reasoning.backbone import convert
from st_reasoning.hrsa import panel
from st_reasoning.problems import gsm_problems, gsm_templates
from tests.models import make_llama


def record(first: Path, second: Path) -> dict[str, Any]:
    problems = gsm_problems(7, seed=0, templates=set(sorted(gsm_templates())[:3]))
    models = (convert(str(folder), device="cpu") for folder in (first, second))
    return panel(
        *models, [p.solution for p in problems], labels=[str(p.template) for p in problems], k=[5], batch_tokens=300,
        progress=False,
    )  # fmt: skip


def work(rank: int, folder: Path, first: Path, second: Path) -> None:
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    (folder / f"{rank}.json").write_text(json.dumps(record(first, second)))
    dist.destroy_process_group()


def numbers(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in numbers(item, f"{path}.{key}").items()}
    if isinstance(value, list):
        return {k: v for i, item in enumerate(value) for k, v in numbers(item, f"{path}[{i}]").items()}
    return {path: value}


def test_two_processes_give_the_record_of_one(tiny_llm: Path, tmp_path: Path) -> None:
    other = make_llama(tmp_path / "other", seed=1)
    torch.multiprocessing.spawn(work, (tmp_path, tiny_llm, other), nprocs=2)
    one = numbers(json.loads(json.dumps(record(tiny_llm, other))))
    for rank in range(2):
        found = numbers(json.loads((tmp_path / f"{rank}.json").read_text()))
        assert found.keys() == one.keys()
        for key, value in one.items():
            if key.startswith(".runtime"):
                continue
            # The same batches forward alike; sums over rows in another order differ by rounding.
            assert found[key] == (pytest.approx(value, rel=1e-5, abs=1e-6) if isinstance(value, float) else value), key
