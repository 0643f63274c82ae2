"""Both losses over two processes (gloo) against one process with the joined batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from sentence_transformers import SentenceTransformer

from st_reasoning.backbone import convert, load_causal_lm
from st_reasoning.training.hybrid import HybridLoss
from st_reasoning.training.loss import PackedInfoNCE
from st_reasoning.training.packing import pack
from st_reasoning.training.trainer import wrap_layers
from tests.training.test_loss import PROMPT, step, texts

# Two ranks of five queries: the first rank's texts are shorter, so that it has fewer mini-batches.
COLUMNS = [texts(5, seed, 8) + texts(5, 10 + seed, 30) for seed in range(3)]
# A text of each rank is a negative of the other's.
COLUMNS[2][1], COLUMNS[2][8] = COLUMNS[1][7], COLUMNS[1][2]


def features(model: SentenceTransformer, rows: slice) -> list[dict[str, Any]]:
    prompts = [PROMPT, None, None]
    return [dict(model.preprocess(c[rows], prompt=p)) for c, p in zip(COLUMNS, prompts, strict=True)]


OPTIONS: list[dict[str, Any]] = [
    {"temperature": 0.05, "mini_batch_tokens": 120},
    {"temperature": 0.05, "mini_batch_tokens": None},
    {"temperature": 0.05, "mini_batch_tokens": 120, "false_negatives": 0.02},
]


def make(model: SentenceTransformer, options: dict[str, Any], *, head: Any, gather: bool) -> list[Any]:
    """Return InfoNCE, and with it the hybrid of the same."""
    infonce = PackedInfoNCE(model, gather_across_devices=gather, **options)
    return [infonce, HybridLoss(model, infonce, weight=0.3, head=head, mini_batch_tokens=100)]


def work(rank: int, folder: Path, llm: Path) -> None:
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    model = convert(str(llm))
    columns = features(model, slice(5 * rank, 5 * rank + 5))
    head = load_causal_lm(str(llm))[0].get_output_embeddings().weight  # type: ignore[operator]
    losses = [loss for options in OPTIONS for loss in make(model, options, head=head, gather=True)]
    wrapped = DistributedDataParallel(model)
    found = []
    # Twice in a row, so that one step leaves nothing behind that spoils the next.
    for loss in losses * 2:
        # As SentenceTransformerTrainer does once accelerate has wrapped the model.
        loss.model = wrapped
        model.zero_grad()
        value = loss(columns)
        value = sum(value.values()) if isinstance(value, dict) else value
        value.backward()
        found.append((value.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tiny_llm: Path, tmp_path: Path) -> None:
    model = convert(str(tiny_llm))
    counts = [len(pack(features(model, rows), 120).mini_batches) for rows in (slice(5), slice(5, 10))]
    assert counts[0] < counts[1]
    torch.multiprocessing.spawn(work, (tmp_path, tiny_llm), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    whole = features(model, slice(None))
    head = load_causal_lm(str(tiny_llm))[0].get_output_embeddings().weight  # type: ignore[operator]
    expected = [
        step(model, lambda m, o=options, k=kind: make(m, o, head=head, gather=False)[k], whole)
        for options in OPTIONS
        for kind in (0, 1)
    ]
    # The batch does hold false negatives.
    assert expected[4][0] < expected[0][0] - 1e-3
    for (loss, gradient), (loss_0, gradient_0), (loss_1, gradient_1) in zip(expected * 2, *ranks, strict=True):
        # Each rank averages its own queries; DDP averages the gradients of the ranks.
        assert float((loss_0 + loss_1) / 2) == pytest.approx(loss, rel=1e-5)
        assert torch.equal(gradient_0, gradient_1)
        # step() divides the loss by 4.
        assert float((gradient_0 / 4 - gradient).norm() / gradient.norm()) < 1e-5


def sharded(rank: int, folder: Path, llm: Path) -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    model: Any = convert(str(llm), device="cpu")
    columns = features(model, slice(5 * rank, 5 * rank + 5))
    mesh = init_device_mesh("cpu", (2,))
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap")
    wrap_layers(plugin, model)
    wanted = fsdp2_prepare_auto_wrap_policy(plugin, model)
    wrapped = [module for module in model.modules() if wanted(module)]
    assert wrapped == list(model[0].model.layers)
    for module in [*wrapped, model]:
        fully_shard(module, mesh=mesh)
    loss = PackedInfoNCE(model, gather_across_devices=True, **OPTIONS[0])
    value = loss(columns)
    value.backward()
    gradient = torch.cat([p.grad.full_tensor().flatten() for p in model.parameters()])
    torch.save((value.detach(), gradient), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_weights_in_shards_get_the_same_gradients(tiny_llm: Path, tmp_path: Path) -> None:
    """FSDP, as far as two CPU processes can show: mini-batches of uneven number, gathered negatives."""
    torch.multiprocessing.spawn(sharded, (tmp_path, tiny_llm), nprocs=2)
    (loss_0, gradient), (loss_1, other) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    model = convert(str(tiny_llm))
    loss, expected = step(model, lambda m: PackedInfoNCE(m, **OPTIONS[0]), features(model, slice(None)))
    assert float((loss_0 + loss_1) / 2) == pytest.approx(loss, rel=1e-5)
    assert torch.equal(gradient, other)
    assert float((gradient / 4 - expected).norm() / expected.norm()) < 1e-5
