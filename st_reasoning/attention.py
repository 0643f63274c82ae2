"""Proof, by running the model, that its attention is what was asked for.

A config that says ``is_causal: false`` proves nothing: some architectures ignore it, some only where a batch has no
padding, some only under one attention implementation, and in hybrids some layers have no attention at all. So the last
token of a text is changed, and two things are watched. In the whole model, the final state of every earlier token:
under causal attention not one may move, under bidirectional attention all must. And in each layer by itself, the state
of any earlier token: what a bidirectional layer lets through would otherwise pass for the work of the causal ones
above it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from st_reasoning.errors import ConversionError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

Attention = Literal["bidirectional", "causal"]
Seen = Literal["bidirectional", "causal", "mixed"]

# What counts as "no change": the noise of the same input run twice times this factor, and at least the rounding that
# another token can cause by regrouping sums (in mixtures of experts, tokens of one expert are multiplied together).
# A bidirectional layer moves a state by 1e-3 and more.
NOISE_FACTOR = 10.0
ROUNDING = {"float32": 1e-5, "float16": 1e-3, "bfloat16": 2e-3}
# In half precision a distant token may move less than rounding does: then most earlier tokens must move, not all.
ALL_MOVED = {"float32": 0.99, "float16": 0.5, "bfloat16": 0.5}
SHORT, LONG, PADDING = 8, 64, 4
# A window of 4,096 tokens would make the proof cost minutes on a CPU. The mask is built by the same code for any
# window, so a long one is narrowed to this while the model is probed.
NARROW_WINDOW = 32


@dataclass(frozen=True)
class Probe:
    """One batch shape under which the whole model was looked at.

    Attributes:
        batch: ``"unpadded"`` (all texts of one length) or ``"padded"``.
        length: Tokens of the probed text.
        change: Median over earlier tokens of the relative change of their final state when the last token changes.
        noise: The largest such change when nothing changes.
        moved: Share of the earlier tokens within the window of the last one that moved by more than the noise.
        attention: What this probe saw.
    """

    batch: Literal["unpadded", "padded"]
    length: int
    change: float
    noise: float
    moved: float
    attention: Seen


@dataclass(frozen=True)
class AttentionReport:
    """What all probes of one model saw.

    Attributes:
        attention: What the model is: ``"bidirectional"`` or ``"causal"`` if every probe and every layer agrees,
            otherwise ``"mixed"``.
        implementation: The attention implementation of transformers, e.g. ``"sdpa"``.
        architecture: Class name of the transformer.
        probes: One entry per batch shape and length.
        layers: What each layer is by itself, the first one first; empty where the layers could not be told apart.
        window: The sliding window the model has, None without one.
        batch_gap: The largest relative difference between the states of one text in an unpadded and in a padded
            batch. Where it is more than rounding, the same text has two embeddings and the model counts as mixed.
    """

    attention: Seen
    implementation: str
    architecture: str
    probes: tuple[Probe, ...]
    layers: tuple[Seen, ...] = ()
    window: int | None = None
    batch_gap: float = 0.0

    @property
    def causal_layers(self) -> tuple[int, ...]:
        """Which layers let nothing through from later tokens, counted from 0."""
        return tuple(number for number, seen in enumerate(self.layers) if seen == "causal")

    @property
    def partly(self) -> bool:
        """Whether this is a hybrid: bidirectional as a whole in every batch shape, causal in some layers."""
        whole = {probe.attention for probe in self.probes}
        hybrid = 0 < len(self.causal_layers) < len(self.layers)
        return whole == {"bidirectional"} and hybrid and not self.two_embeddings

    @property
    def two_embeddings(self) -> bool:
        """Whether padding changes the states of a text."""
        return self.batch_gap > 0.05

    def to_mapping(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    def describe(self) -> str:
        """Say in one line what was seen."""
        seen = ", ".join(f"{p.batch} x{p.length}: {p.attention} (change {p.change:.1e})" for p in self.probes)
        if self.causal_layers and len(self.causal_layers) < len(self.layers):
            seen += f"; layers {_ranges(self.causal_layers)} of {len(self.layers)} are causal by themselves"
        if self.two_embeddings:
            seen += f"; padding a batch changes the states of a text by {self.batch_gap:.1e}"
        return f"{self.architecture} under {self.implementation} is {self.attention}: {seen}"


def verify_attention(model: SentenceTransformer, expected: Attention, *, partial: bool = False) -> AttentionReport:
    """Prove that the transformer inside ``model`` has the expected attention.

    Args:
        model: Any SentenceTransformer whose first module is a transformer.
        expected: ``"bidirectional"`` or ``"causal"``.
        partial: Accept as bidirectional a hybrid some of whose layers (state space, linear attention) stay causal.

    Raises:
        ConversionError: if any probe saw something else; names the architecture and what was seen.
    """
    report = probe_attention(model)
    if report.attention == expected or (partial and expected == "bidirectional" and report.partly):
        return report
    hint = ""
    if report.partly:
        hint = "; only its attention layers can see later tokens: pass partial=True (--partial) to accept that"
    raise ConversionError(f"asked for {expected} attention, but {report.describe()}{hint}")


def probe_attention(model: SentenceTransformer) -> AttentionReport:
    """Look at the attention of the transformer inside ``model``: padded and unpadded, short and beyond its window."""
    return probe_transformer(model[0].model)


def probe_transformer(transformer: Any) -> AttentionReport:
    """Look at the attention of a transformers model without a head."""
    window = _window(transformer.config)
    was_training = transformer.training
    transformer.eval()
    try:
        with _narrowed(transformer, window):
            longest = getattr(transformer.config.get_text_config(), "max_position_embeddings", None) or LONG
            probes, gaps = [], []
            for length in (SHORT, min(LONG, int(longest) - PADDING)):
                unpadded, clean = _probe(transformer, length, padded=False, window=window)
                padded, same = _probe(transformer, length, padded=True, window=window)
                probes += [unpadded, padded]
                gaps.append(float(_relative(clean, same).max()))
            layers = _probe_layers(transformer)
    finally:
        transformer.train(was_training)
    seen: set[Seen] = {probe.attention for probe in probes} | set(layers)
    report = AttentionReport(
        attention=seen.pop() if len(seen) == 1 else "mixed",
        implementation=str(transformer.config._attn_implementation),
        architecture=type(transformer).__name__,
        probes=tuple(probes),
        layers=layers,
        window=window,
        batch_gap=max(gaps),
    )
    return replace(report, attention="mixed") if report.two_embeddings else report


def _window(config: Any) -> int | None:
    window = getattr(config.get_text_config(), "sliding_window", None)
    return int(window) if window else None


@contextlib.contextmanager
def _narrowed(transformer: Any, window: int | None) -> Iterator[None]:
    """Narrow a long sliding window, wherever the model keeps it, for the time of the probe."""
    if window is None or window <= NARROW_WINDOW:
        yield
        return
    holders = [transformer.config.get_text_config(), *transformer.modules()]
    kept = [(holder, holder.sliding_window) for holder in holders if getattr(holder, "sliding_window", None) == window]
    for holder, _ in kept:
        holder.sliding_window = NARROW_WINDOW
    try:
        yield
    finally:
        for holder, value in kept:
            holder.sliding_window = value


def _texts(transformer: Any, length: int) -> tuple[Tensor, Tensor]:
    """Return token ids of a random text and of the same with another last token, [length] each."""
    import torch

    vocabulary = transformer.get_input_embeddings().num_embeddings
    generator = torch.Generator().manual_seed(length)
    # Away from both ends of the vocabulary, where special tokens live.
    low, high = min(100, vocabulary // 4), max(vocabulary - 100, vocabulary // 2)
    text = torch.randint(low, high, (length,), generator=generator)
    other = text.clone()
    other[-1] = low + (int(text[-1]) - low + (high - low) // 2) % (high - low)
    return text, other


def _states(transformer: Any, ids: Tensor, mask: Tensor) -> Tensor:
    import torch

    ids, mask = ids.to(transformer.device), mask.to(transformer.device)
    try:
        with torch.inference_mode():
            states: Tensor = transformer(input_ids=ids, attention_mask=mask).last_hidden_state
    # Whatever the model's own code raises: some architectures fail without their causal mask.
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ConversionError(
            f"{type(transformer).__name__} under {transformer.config._attn_implementation} cannot run a batch of "
            f"{len(ids)} texts of {ids.shape[1]} tokens: {cause}"
        ) from error
    return states


def _probe(transformer: Any, length: int, *, padded: bool, window: int | None) -> tuple[Probe, Tensor]:
    """Run one batch of three texts: a clean one, the same again (noise), and one with another last token.

    Returns:
        What was seen, and the final states of the clean text without its last token, [length - 1, d].
    """
    import torch

    text, other = _texts(transformer, length)
    ids = torch.stack([text, text, other])
    mask = torch.ones_like(ids)
    if padded:
        # A fourth, longer text makes the batch wider than the probed ones.
        longest = torch.cat([text, text[:PADDING]])[None]
        ids = torch.cat([torch.nn.functional.pad(ids, (0, PADDING), value=int(text[0])), longest])
        mask = torch.cat([torch.nn.functional.pad(mask, (0, PADDING)), torch.ones_like(longest)])
    earlier = _states(transformer, ids, mask)[:3, : length - 1].double().cpu()
    noise, change = _relative(earlier[0], earlier[1]), _relative(earlier[0], earlier[2])
    moved = change > _floor(transformer, noise)
    # One layer is sure to show the last token to its own window only; how far it travels in all is the model's affair.
    reach = min(window or length, NARROW_WINDOW if window else length)
    share = float(moved[-(reach - 1) :].double().mean())
    everywhere = share >= ALL_MOVED[_precision(transformer)]
    seen: Seen = "mixed" if moved.any() else "causal"
    probe = Probe(
        batch="padded" if padded else "unpadded",
        length=length,
        change=float(change.median()),
        noise=float(noise.max()),
        moved=share,
        attention="bidirectional" if everywhere else seen,
    )
    return probe, earlier[0]


def _probe_layers(transformer: Any) -> tuple[Seen, ...]:
    """Look at every layer by itself in one forward pass.

    A batch of three equal rows runs through the model. Before each layer rows 1 and 2 are set back to row 0, and row 2
    gets another state at its last position; behind the layer, rows 1 (noise) and 2 (change) are compared with row 0.
    """
    import torch

    seen: list[Seen] = []

    def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        states = args[0] if args else kwargs["hidden_states"]
        if states.shape[:2] != ids.shape:
            return None
        states = states[:1].repeat(3, *[1] * (states.dim() - 1))
        # The negated state: as large as real ones are, and nothing that normalisation takes back.
        states[2, -1] = -states[2, -1]
        return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})

    def behind(_: Any, __: tuple[Any, ...], ___: dict[str, Any], output: Any) -> None:
        states = output[0] if isinstance(output, (tuple, list)) else output
        if states.shape[:2] != ids.shape:
            return
        states = states[:, :-1].double().cpu()
        floor = _floor(transformer, _relative(states[0], states[1]))
        moved = bool((_relative(states[0], states[2]) > floor).any())
        seen.append("bidirectional" if moved else "causal")

    layers = decoder_layers(transformer)
    text, _ = _texts(transformer, SHORT)
    ids = torch.stack([text] * 3)
    with contextlib.ExitStack() as hooks:
        for layer in layers:
            for handle in (
                layer.register_forward_pre_hook(before, with_kwargs=True),
                layer.register_forward_hook(behind, with_kwargs=True),
            ):
                hooks.callback(handle.remove)
        _states(transformer, ids, torch.ones_like(ids))
    # A model may keep its states otherwise than as [texts, tokens, d] (Gemma 3n: several streams of them).
    return tuple(seen) if len(seen) == len(layers) else ()


def decoder_layers(transformer: Any) -> list[Any]:
    """Return the stack of layers of a transformers model: its longest list of modules, [L]; empty if there is none."""
    import torch

    stacks = [list(module) for module in transformer.modules() if isinstance(module, torch.nn.ModuleList)]
    count = getattr(transformer.config.get_text_config(), "num_hidden_layers", None)
    stacks = [stack for stack in stacks if len(stack) == count]
    return stacks[0] if stacks else []


def _precision(transformer: Any) -> str:
    return str(transformer.dtype).removeprefix("torch.")


def _floor(transformer: Any, noise: Tensor) -> float:
    return max(NOISE_FACTOR * float(noise.max()), ROUNDING[_precision(transformer)])


def _relative(a: Tensor, b: Tensor) -> Tensor:
    """Return the norm of the difference of two states over the norm of the first, [tokens]."""
    relative: Tensor = (a - b).norm(dim=-1) / a.norm(dim=-1).clamp(min=1e-30)
    return relative


def _ranges(numbers: tuple[int, ...]) -> str:
    """Return ascending numbers as short text: ``(0, 1, 2, 5)`` -> ``"0-2, 5"``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
