"""Proof, by running the model, that its attention is what was asked for.

A config that says ``is_causal: false`` proves nothing: some architectures ignore it, some only where a batch has no
padding, some only under one attention implementation, and in hybrids some layers have no attention at all. So the last
token of a text is changed, and two things are watched. In the whole model, the final state of every earlier token:
under causal attention not one may move, under bidirectional attention all must. And in each layer by itself, the state
of any earlier token: what a bidirectional layer lets through would otherwise pass for the work of the causal ones
above it. Both are seen in the same forward pass.

A forward pass of a few tokens costs as much as reading all weights. So the whole model is seen in the unpadded batch,
and what padding does to it, like a copy of a model that was proven, through its first layers only: as many as show
every kind of layer there is, see :mod:`st_reasoning.layers`.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from st_reasoning.errors import ConversionError
from st_reasoning.layers import decoder_layers, distinct_depth

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

Attention = Literal["bidirectional", "causal"]
Seen = Literal["bidirectional", "causal", "mixed"]

# What counts as "no change": the rounding that another token can cause by regrouping sums (in mixtures of experts the
# tokens of one expert are multiplied together), and more where padding alone is seen to cause more, but at most so many
# times that. A bidirectional layer moves a state by 1e-3 and more.
NOISE_FACTOR = 10.0
ROUNDING = {"float32": 1e-5, "float16": 1e-3, "bfloat16": 2e-3}
# In half precision a distant token may move less than rounding does: then most earlier tokens must move, not all.
ALL_MOVED = {"float32": 0.99, "float16": 0.5, "bfloat16": 0.5}
SHORT, LONG, PADDING = 5, 64, 1
# A window of 4,096 tokens would make the proof cost minutes on a CPU. The mask is built by the same code for any
# window, so a long one is narrowed to this while the model is probed.
NARROW_WINDOW = 32


@dataclass(frozen=True)
class Probe:
    """One batch shape under which the whole model was looked at.

    Attributes:
        batch: ``"unpadded"`` (all texts of one length) or ``"padded"``.
        length: Tokens of the probed text.
        depth: Layers that were run; 0 for all of them.
        change: Median over earlier tokens of the relative change of their last state when the last token changes.
        floor: What counted as no change.
        moved: Share of the earlier tokens within the window of the last one that moved by more than that.
        attention: What this probe saw.
    """

    batch: Literal["unpadded", "padded"]
    length: int
    depth: int
    change: float
    floor: float
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
    longest = getattr(transformer.config.get_text_config(), "max_position_embeddings", None) or LONG
    # Without a window there is nothing that only a long text would show.
    lengths = (SHORT, min(LONG, int(longest) - PADDING)) if window else (SHORT,)
    # In half precision rounding grows from layer to layer, and how far it gets is part of the judgement.
    depth = distinct_depth(transformer) if _precision(transformer) == "float32" else 0
    probes, gaps, layers = [], [], list[tuple[Seen, ...]]()
    with _evaluating(transformer), _narrowed(transformer, window):
        for length in lengths:
            alone = _Pass.run(transformer, length, padded=False, keep=depth)
            among = _Pass.run(transformer, length, padded=True, depth=depth if alone.layers else 0)
            gap = float(_relative(alone.kept, among.clean).max())
            probes += [_judge(transformer, seen, gap, window) for seen in (alone, among)]
            layers += [alone.layers, among.layers]
            gaps.append(gap)
    seen: set[Seen] = {probe.attention for probe in probes}.union(*layers)
    report = AttentionReport(
        attention=seen.pop() if len(seen) == 1 else "mixed",
        implementation=str(transformer.config._attn_implementation),
        architecture=type(transformer).__name__,
        probes=tuple(probes),
        layers=_agreed(layers),
        window=window,
        batch_gap=max(gaps),
    )
    return replace(report, attention="mixed") if report.two_embeddings else report


def probe_first_layers(transformer: Any) -> tuple[Seen, ...]:
    """Look at the first layers only, as many as show every kind that there is: [distinct_depth]; empty without layers.

    For a model of which another copy was proven as a whole: the cost is a few layers instead of all.
    """
    depth = distinct_depth(transformer)
    if not depth:
        return ()
    window = _window(transformer.config)
    length = LONG if window else SHORT
    with _evaluating(transformer), _narrowed(transformer, window):
        return _agreed([_Pass.run(transformer, length, padded=padded, depth=depth).layers for padded in (False, True)])


def first_states(transformer: Any, batches: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Return the states behind layer :func:`distinct_depth` - 1 of batches of token ids and masks [texts, tokens].

    Returns:
        [texts, tokens, d] for each batch; the final states of a model whose layers cannot be told.
    """
    depth = distinct_depth(transformer)
    with _evaluating(transformer):
        return [_states(transformer, ids, mask, depth=depth) for ids, mask in batches]


@contextlib.contextmanager
def _evaluating(transformer: Any) -> Iterator[None]:
    # One by one: parts of a model may be in training while others are frozen, and are afterwards as they were.
    training = [module for module in transformer.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


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


class _Enough(Exception):  # noqa: N818 - not an error: it ends a forward pass that has shown what was wanted
    """Carries the states of the layer that was asked for."""

    def __init__(self, states: Tensor) -> None:
        self.states = states


def _states(transformer: Any, ids: Tensor, mask: Tensor, *, depth: int = 0) -> Tensor:
    """Return the final states or, with a depth, those behind that many layers, [texts, tokens, d]."""
    import torch

    def stop(_: Any, __: Any, output: Any) -> None:
        raise _Enough(_tensor(output))

    handle = decoder_layers(transformer)[depth - 1].register_forward_hook(stop) if depth else None
    ids, mask = ids.to(transformer.device), mask.to(transformer.device)
    try:
        with torch.inference_mode():
            states: Tensor = transformer(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    except _Enough as enough:
        return enough.states
    # Whatever the model's own code raises: some architectures fail without their causal mask.
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ConversionError(
            f"{type(transformer).__name__} under {transformer.config._attn_implementation} cannot run a batch of "
            f"{len(ids)} texts of {ids.shape[1]} tokens: {cause}"
        ) from error
    finally:
        if handle is not None:
            handle.remove()
    return states


def _tensor(output: Any) -> Tensor:
    states: Tensor = output[0] if isinstance(output, (tuple, list)) else output
    return states


@dataclass(frozen=True)
class _Pass:
    """What one forward pass showed.

    Attributes:
        depth: Layers that were run; 0 for all of them.
        clean: Last states of a text without its last token, [length - 1, d].
        other: The same where the last token is another one.
        kept: ``clean`` as it was behind an earlier layer, if that was asked for.
        layers: What each layer that was run is by itself; empty where they could not be told apart.
    """

    padded: bool
    length: int
    depth: int
    clean: Tensor
    other: Tensor
    kept: Tensor
    layers: tuple[Seen, ...]

    @classmethod
    def run(cls, transformer: Any, length: int, *, padded: bool, depth: int = 0, keep: int = 0) -> _Pass:
        """Run one batch: a text, the same with another last token, and once more for the layers by themselves.

        With a depth only so many layers are run; ``keep`` is the number of layers behind which states are kept.

        Before each layer the third row is set back to the first, but for the state of its last token, which is negated:
        as large as real ones are, and nothing that normalisation takes back. Behind the layer the two are compared.
        """
        import torch

        text, other = _texts(transformer, length)
        ids = torch.stack([text, other, text])
        mask = torch.ones_like(ids)
        if padded:
            # A fourth, longer text makes the batch wider than the probed ones.
            longest = torch.cat([text, text[:PADDING]])[None]
            ids = torch.cat([torch.nn.functional.pad(ids, (0, PADDING), value=int(text[0])), longest])
            mask = torch.cat([torch.nn.functional.pad(mask, (0, PADDING)), torch.ones_like(longest)])
        last, seen, behind_layer = length - 1, list[Seen](), list[torch.Tensor]()

        def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            states = args[0] if args else kwargs["hidden_states"]
            if states.shape[:2] != ids.shape:
                return None
            states = states.clone()
            states[2] = states[0]
            states[2, last] = -states[2, last]
            return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})

        def behind(_: Any, __: Any, output: Any) -> None:
            states = _tensor(output)
            if states.shape[:2] == ids.shape:
                states = states[:, :last].double().cpu()
                behind_layer.append(states[0])
                moved = bool((_relative(states[0], states[2]) > ROUNDING[_precision(transformer)]).any())
                seen.append("bidirectional" if moved else "causal")

        layers = decoder_layers(transformer)[: depth or None]
        with contextlib.ExitStack() as hooks:
            for layer in layers:
                hooks.callback(layer.register_forward_pre_hook(before, with_kwargs=True).remove)
                hooks.callback(layer.register_forward_hook(behind).remove)
            states = _states(transformer, ids, mask, depth=depth)[:2, :last].double().cpu()
        # A model may keep its states otherwise than as [texts, tokens, d] (Gemma 3n: several streams of them).
        told = len(seen) == len(layers)
        kept = behind_layer[keep - 1] if keep and told else states[0]
        return cls(padded, length, depth, states[0], states[1], kept, tuple(seen) if told else ())


def _judge(transformer: Any, seen: _Pass, gap: float, window: int | None) -> Probe:
    """Say what a forward pass shows of the whole model; ``gap`` is what padding alone changes."""
    precision = _precision(transformer)
    floor = min(max(NOISE_FACTOR * gap, ROUNDING[precision]), NOISE_FACTOR * ROUNDING[precision])
    change = _relative(seen.clean, seen.other)
    moved = change > floor
    # One layer is sure to show the last token to its own window only; how far it travels in all is the model's affair.
    reach = min(window or seen.length, NARROW_WINDOW if window else seen.length)
    share = float(moved[-(reach - 1) :].double().mean())
    partly: Seen = "mixed" if moved.any() else "causal"
    whole: Seen = "bidirectional" if share >= ALL_MOVED[precision] else partly
    if seen.depth:
        # One layer may pass on too little to be seen; by itself each was shown a change that it cannot overlook.
        whole = "bidirectional" if "bidirectional" in seen.layers else "causal"
    return Probe(
        batch="padded" if seen.padded else "unpadded",
        length=seen.length,
        depth=seen.depth,
        change=float(change.median()),
        floor=floor,
        moved=share,
        attention=whole,
    )


def _agreed(found: list[tuple[Seen, ...]]) -> tuple[Seen, ...]:
    """Return what each layer is, over several passes of which some are shorter; "mixed" where they differ."""
    if not all(found):
        return ()
    layers = itertools.zip_longest(*found)
    return tuple(kinds.pop() if len(kinds := {*layer} - {None}) == 1 else "mixed" for layer in layers)


def _precision(transformer: Any) -> str:
    return str(transformer.dtype).removeprefix("torch.")


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
