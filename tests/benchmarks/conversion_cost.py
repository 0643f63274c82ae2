"""What the proofs of a conversion cost: `python tests/benchmarks/conversion_cost.py FOLDER` (a causal-LM folder).

Both sides in one run, alternating: loading and saving a SentenceTransformer without any proof, and convert() with
save_embedder(), which prove attention in memory and again on the reloaded copy. Prints the ratio of the medians, of
elapsed time and of processor time: the second tells more on a machine that others use too.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers.utils import logging

from st_reasoning.backbone import convert, save_embedder


def plain(backbone: str, folder: Path) -> None:
    transformer = Transformer(backbone)
    modules = [transformer, Pooling(transformer.get_embedding_dimension()), Normalize()]
    SentenceTransformer(modules=modules).save(str(folder))


def proven(backbone: str, folder: Path) -> None:
    save_embedder(convert(backbone), folder)


def seconds(work: Callable[[str, Path], None], backbone: str) -> tuple[float, float]:
    """Return elapsed and processor time."""
    with tempfile.TemporaryDirectory() as scratch:
        start, busy = time.perf_counter(), time.process_time()
        work(backbone, Path(scratch) / "out")
        return time.perf_counter() - start, time.process_time() - busy


if __name__ == "__main__":
    logging.disable_progress_bar()
    times: dict[Callable[[str, Path], None], list[tuple[float, float]]] = {plain: [], proven: []}
    for _ in range(9):
        for work, found in times.items():
            found.append(seconds(work, sys.argv[1]))
    for name, part in (("elapsed", 0), ("processor", 1)):
        without, with_proof = (statistics.median(each[part] for each in found) for found in times.values())
        print(f"{name}: load and save {without:.2f} s, with proof {with_proof:.2f} s, ratio {with_proof / without:.2f}")
