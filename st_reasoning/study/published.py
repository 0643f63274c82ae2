"""What arXiv 2601.21192 v1 (29 Jan 2026) published, to stand beside our own numbers where the pair is the same.

Scores are its Table 1: means over 3 seeds in points, the difference with its standard deviation over the seeds. Inverse
row entropies are its Table 3 and the table of further pairs, on its hard chain-of-thought texts. Words are its Table 2,
shortened.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SOURCE = "arXiv 2601.21192 v1"
SEEDS = 3


@dataclass(frozen=True)
class Cell:
    """One benchmark of one pair: mean scores of both arms, the mean difference and its standard deviation."""

    base: float
    reasoning: float
    difference: float
    std: float


@dataclass(frozen=True)
class PublishedPair:
    """A pair of the paper.

    Attributes:
        name: What our tables call it.
        base: Hub name of the base model.
        reasoning: Hub name of the reasoning model.
        method: SFT or RLVR.
        scores: By benchmark.
        entropy: Inverse row entropy of the map between the last layers, of the backbones and of the embedders.
    """

    name: str
    base: str
    reasoning: str
    method: str
    scores: dict[str, Cell] = field(default_factory=dict)
    entropy: tuple[float, float] | None = None


# By the names that our tables give them. mteb's BRIGHT(v1.1) has long tasks too, which the paper has not.
BRIGHT, BRIGHT_SOURCE, BRIGHT_LEFT_OUT = "BRIGHT", "BRIGHT(v1.1)", "LongRetrieval"
BENCHMARKS = ("MTEB(Multilingual, v2)", "MTEB(Code, v1)", BRIGHT)


def _scores(*cells: tuple[float, float, float, float]) -> dict[str, Cell]:
    return {name: Cell(*cell) for name, cell in zip(BENCHMARKS, cells, strict=True)}


PAIRS = (
    PublishedPair(
        "Qwen3-0.6B (SFT)", "Qwen/Qwen3-0.6B-Base", "Qwen/Qwen3-0.6B", "SFT",
        _scores((53.50, 41.47, -12.03, 0.14), (55.29, 56.28, 0.99, 0.05), (13.06, 13.71, 0.65, 0.06)),
    ),
    PublishedPair(
        "Qwen2.5-1.5B, SimpleRL-Zoo (RLVR)", "Qwen/Qwen2.5-1.5B", "hkust-nlp/Qwen-2.5-1.5B-SimpleRL-Zoo", "RLVR",
        _scores((54.73, 54.54, -0.19, 0.07), (58.98, 58.72, -0.26, 0.08), (17.71, 17.89, 0.18, 0.04)),
        (0.948, 0.883),
    ),
    PublishedPair(
        "Qwen2.5-0.5B, SimpleRL-Zoo (RLVR)", "Qwen/Qwen2.5-0.5B", "hkust-nlp/Qwen-2.5-0.5B-SimpleRL-Zoo", "RLVR",
        _scores((51.25, 51.27, 0.02, 0.09), (57.41, 57.53, 0.12, 0.07), (14.05, 13.99, -0.06, 0.05)),
        (0.992, 0.984),
    ),
    PublishedPair(
        "DeepSeek-R1-Distill-Qwen-1.5B, ProRL (RLVR)", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
        "nvidia/Nemotron-Research-Reasoning-Qwen-1.5B", "RLVR",
        _scores((46.19, 46.25, 0.06, 0.06), (45.47, 45.87, 0.40, 0.07), (9.02, 9.47, 0.45, 0.02)),
        (0.161, 0.863),
    ),
    PublishedPair(
        "Qwen3-4B, PSR (RLVR)", "Qwen/Qwen3-4B", "Qwen3-4B-PSR", "RLVR",
        _scores((59.85, 59.79, -0.06, 0.05), (63.90, 64.57, 0.67, 0.03), (18.10, 18.17, 0.07, 0.03)),
        (0.812, 0.586),
    ),
    PublishedPair(
        "Qwen2.5-Math-1.5B, DeepSeek-R1-Distill (SFT)", "Qwen/Qwen2.5-Math-1.5B",
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "SFT", entropy=(0.108, 0.142),
    ),
)  # fmt: skip
TRAINED = "embedders"
# Its Table 2: by level of the hierarchy, the word for SFT backbones, for RLVR backbones, and for embedders.
WORDS = {
    "coordinate basis": {"SFT": "mixed", "RLVR": "preserved", TRAINED: "realigned"},
    "global geometry": {"SFT": "distorted", "RLVR": "stable", TRAINED: "realigned"},
    "local geometry": {"SFT": "reorganised", "RLVR": "reorganised", TRAINED: "irreversible"},
    "linear readout": {"SFT": "degraded", "RLVR": "transferred", TRAINED: "aligned"},
}
# Which of our words say what a word of the paper says; ours at chance is what the paper calls by its stronger word.
SAME = {
    "mixed": {"drifted", "at chance"},
    "preserved": {"preserved"},
    "distorted": {"distorted", "at chance"},
    "stable": {"stable"},
    "reorganised": {"reorganised", "at chance"},
    "degraded": {"degraded", "at chance"},
    "transferred": {"transferred"},
    "realigned": {"realigned"},
    "irreversible": {"irreversible"},
    "aligned": {"realigned", "preserved"},
}


def published_pair(base: str, reasoning: str | None) -> PublishedPair | None:
    """Return what the paper has of a pair, by the hub names of both models.

    The paper does not say where Qwen3-4B-PSR can be had: there the last part of the name is enough.
    """
    if reasoning is None:
        return None
    for pair in PAIRS:
        named = reasoning if "/" in pair.reasoning else reasoning.rpartition("/")[2]
        if base.casefold() == pair.base.casefold() and named.casefold() == pair.reasoning.casefold():
            return pair
    return None
