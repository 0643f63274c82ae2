"""What the HRSA benchmarks compare: natural sentences that every machine has, and a model with its noisy copy."""

from __future__ import annotations

import copy
import re
import sysconfig
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

NOISE = 0.05


def sentences(count: int) -> list[str]:
    """Return sentences of 12 to 40 words from the docstrings of Python's standard library, every module's in turn."""
    found: dict[str, None] = {}
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        for text in re.findall(r'"""(.*?)"""', path.read_text(encoding="utf-8", errors="ignore"), flags=re.DOTALL):
            for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", re.sub(r"\s+", " ", text)):
                if 12 <= len(sentence.split()) <= 40 and sentence.endswith("."):
                    found[sentence] = None
    every = list(found)
    step = len(every) // count
    return every[:: max(1, step)][:count]


def load(folder: str, *, pooled: bool = False) -> SentenceTransformer:
    """Return a causal LLM, which is compared token by token, or an embedder of it, with pooled states beside."""
    transformer = Transformer(folder)
    pooling = [Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")] if pooled else []
    return SentenceTransformer(modules=[transformer, *pooling], device="cpu").eval()


def widened(folder: str, width: int, layers: int, to: Path) -> str:
    """Write a causal LLM of the same kind as another one, of random weights, and return its folder."""
    config = AutoConfig.from_pretrained(folder)
    config.hidden_size, config.num_hidden_layers = width, layers
    config.intermediate_size, config.head_dim = 8 * width // 3 // 64 * 64, 64
    config.num_attention_heads = width // 64
    config.num_key_value_heads = config.num_attention_heads // 4
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(to)
    AutoTokenizer.from_pretrained(folder).save_pretrained(to)
    return str(to)


def noisy(model: SentenceTransformer, share: float = NOISE) -> SentenceTransformer:
    """Return a copy with Gaussian noise of ``share`` of each matrix's own deviation."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in other.parameters():
            if weight.ndim == 2:
                weight += share * weight.std() * torch.randn(weight.shape, generator=generator)
    return other
