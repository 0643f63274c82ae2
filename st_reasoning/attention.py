"""Proof, by running the model, that its attention is what was asked for.

A config that says ``is_causal: false`` proves nothing: some architectures ignore it, some only where a batch has no
padding, some only under one attention implementation. So the last token of a text is changed and the state of every
earlier token is looked at: under causal attention not one of them may move, under bidirectional attention all must.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from st_reasoning.errors import ConversionError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

Attention = Literal["bidirectional", "causal"]

# Causal attention leaves earlier states untouched bit for bit on every CPU kernel tried; GPU kernels may sum in
# another order. The noise of the same input run twice, times this factor, is what counts as "no change".
NOISE_FACTOR = 10.0


@dataclass(frozen=True)
class Probe:
    """One batch shape under which the model was looked at.

    Attributes:
        batch: ``"unpadded"`` (all texts of one length) or ``"padded"``.
        length: Tokens of the probed text.
        change: Median over earlier tokens of the relative change of their final state when the last token changes.
        noise: The same number when nothing changes.
        moved: Share of earlier tokens that moved by more than the noise.
    """

    batch: Literal["unpadded", "padded"]
    length: int
    change: float
    noise: float
    moved: float

    @property
    def attention(self) -> str:
        """What this probe saw: bidirectional, causal, or mixed."""
        if self.moved == 0.0:
            return "causal"
        return "bidirectional" if self.moved > 0.99 else "mixed"


@dataclass(frozen=True)
class AttentionReport:
    """What all probes of one model saw.

    Attributes:
        attention: ``"bidirectional"`` or ``"causal"`` if every probe agrees, otherwise ``"mixed"``.
        implementation: The attention implementation of transformers, e.g. ``"sdpa"``.
        architecture: Class name of the transformer.
        probes: One entry per batch shape and length.
    """

    attention: str
    implementation: str
    architecture: str
    probes: tuple[Probe, ...]

    def to_mapping(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    def describe(self) -> str:
        """Say in one line what was seen."""
        seen = ", ".join(f"{p.batch} x{p.length}: {p.attention} (change {p.change:.1e})" for p in self.probes)
        return f"{self.architecture} under {self.implementation} is {self.attention}: {seen}"


def verify_attention(model: SentenceTransformer, expected: Attention) -> AttentionReport:
    """Prove that the transformer inside ``model`` has the expected attention.

    Args:
        model: Any SentenceTransformer whose first module is a transformer.
        expected: ``"bidirectional"`` or ``"causal"``.

    Raises:
        ConversionError: if any probe saw something else; names the architecture and what was seen.
    """
    report = probe_attention(model)
    if report.attention != expected:
        raise ConversionError(f"asked for {expected} attention, but {report.describe()}")
    return report


def probe_attention(model: SentenceTransformer) -> AttentionReport:
    """Look at the attention of the transformer inside ``model``, padded and unpadded, short and long.

    "Long" is beyond the model's sliding window where it has one, otherwise 64 tokens.
    """
    transformer: Any = model[0].model
    probes = []
    for length in _probe_lengths(transformer.config):
        probes += [_probe(transformer, length, padded=False), _probe(transformer, length, padded=True)]
    seen = {probe.attention for probe in probes}
    return AttentionReport(
        attention=seen.pop() if len(seen) == 1 else "mixed",
        implementation=str(transformer.config._attn_implementation),
        architecture=type(transformer).__name__,
        probes=tuple(probes),
    )


def _probe_lengths(config: Any) -> tuple[int, int]:
    text_config = config.get_text_config()
    window = getattr(text_config, "sliding_window", None) or 0
    longest = getattr(text_config, "max_position_embeddings", None) or 512
    # Windows of 4096 tokens are common and cost seconds on a CPU; past the window is where a wrong mask would show.
    return 8, min(max(64, int(window) + 8), int(longest))


def _probe(transformer: Any, length: int, *, padded: bool) -> Probe:
    """Run one batch of three texts: a clean one, the same again (noise), and one with another last token."""
    import torch

    vocabulary = transformer.get_input_embeddings().num_embeddings
    generator = torch.Generator().manual_seed(length)
    # Away from both ends of the vocabulary, where special tokens live.
    low, high = min(100, vocabulary // 4), max(vocabulary - 100, vocabulary // 2)
    text = torch.randint(low, high, (length,), generator=generator)
    other = text.clone()
    other[-1] = low + (int(text[-1]) - low + (high - low) // 2) % (high - low)
    ids = torch.stack([text, text, other])
    mask = torch.ones_like(ids)
    if padded:
        # A fourth, longer text makes the batch wider than the probed ones.
        width = length + 4
        longest = torch.randint(low, high, (1, width), generator=generator)
        ids = torch.cat([torch.nn.functional.pad(ids, (0, 4), value=low), longest])
        mask = torch.cat([torch.nn.functional.pad(mask, (0, 4)), torch.ones_like(longest)])
    was_training = transformer.training
    transformer.eval()
    try:
        with torch.inference_mode():
            device = transformer.device
            states = transformer(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
    finally:
        transformer.train(was_training)
    earlier = states[:3, : length - 1].double().cpu()
    noise, change = _relative(earlier[0], earlier[1]), _relative(earlier[0], earlier[2])
    floor = NOISE_FACTOR * noise.max().clamp(min=torch.finfo(torch.float64).tiny)
    return Probe(
        batch="padded" if padded else "unpadded",
        length=length,
        change=float(change.median()),
        noise=float(noise.max()),
        moved=float((change > floor).double().mean()),
    )


def _relative(a: Tensor, b: Tensor) -> Tensor:
    """Return the norm of the difference of two states over the norm of the first, [tokens]."""
    relative: Tensor = (a - b).norm(dim=-1) / a.norm(dim=-1).clamp(min=1e-30)
    return relative
