"""Turn a causal LLM into a SentenceTransformer, prove its attention, and write it down."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_reasoning.attention import Attention, AttentionReport, verify_attention
from st_reasoning.backbone.prompts import PAPER_TEMPLATE, fit_template, format_instruction
from st_reasoning.backbone.sources import (
    Source,
    forget_quantisation,
    loading,
    merged,
    refuse_other_kinds,
    resolve,
    torch_dtype,
)
from st_reasoning.config import versions
from st_reasoning.errors import ConversionError, InputError, unknown_name

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SCHEMA = 1

# The field's names (recipes, papers) beside those of sentence-transformers' Pooling.
POOLINGS = {
    "mean": "mean",
    "last": "lasttoken",
    "lasttoken": "lasttoken",
    "weighted_mean": "weightedmean",
    "weightedmean": "weightedmean",
    "cls": "cls",
    "max": "max",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
}


@dataclass(frozen=True)
class Conversion:
    """What was done to a backbone; kept on the model as ``model.st_reasoning`` and in its folder as JSON."""

    backbone: str
    source: str
    architecture: str
    attention: AttentionReport
    pooling: str
    dimension: int
    instruction_template: str
    special_tokens: dict[str, Any]
    max_seq_length: int
    dtype: str

    def to_mapping(self) -> dict[str, Any]:
        """Return JSON values, versions included."""
        return {"schema": SCHEMA, **asdict(self), "versions": versions()}


def convert(
    backbone: str,
    *,
    attention: Attention = "bidirectional",
    partial: bool = False,
    pooling: str = "mean",
    dimension: int | None = None,
    instruction: str = "",
    instruction_template: str = PAPER_TEMPLATE,
    max_seq_length: int = 512,
    dtype: str = "float32",
    device: str | None = None,
) -> SentenceTransformer:
    """Turn a causal language model into an embedder and prove that its attention is what was asked for.

    The model is a plain :class:`~sentence_transformers.SentenceTransformer`: transformer, pooling without the prompt,
    L2 normalisation. Plain text is tokenised as it is, whatever chat template the tokenizer carries. SDPA attention is
    tried first, eager attention where only that passes the proof.

    Args:
        backbone: Hub name, folder, ``.gguf`` file, or one of these inside a package (``package:PACKAGE/PATH``). A LoRA
            adapter is merged into its base; of a model that reads images as well, the language part is taken.
        attention: ``"bidirectional"`` (the causal mask is removed) or ``"causal"``.
        partial: Accept a hybrid whose recurrent layers stay causal; without it, such a backbone is refused.
        pooling: ``"mean"``, ``"last"``, ``"weighted_mean"``, or another mode of sentence-transformers' Pooling.
        dimension: Keep the first so many dimensions (Matryoshka); by default all.
        instruction: What a query asks for; becomes the model's default ``query`` prompt.
        instruction_template: How an instruction is put before a query; its end is fitted to the tokenizer, see
            :func:`~st_reasoning.backbone.fit_template`.
        max_seq_length: Longest input in tokens; longer texts are truncated.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        device: As for SentenceTransformer; by default what torch finds.

    Returns:
        The embedder; :func:`conversion_of` tells what was done.

    Raises:
        InputError: if the backbone cannot be loaded, or a name is unknown.
        ConversionError: if the proof fails; the architecture and what was seen are named.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize
    from sentence_transformers.sentence_transformer.modules import Pooling

    _check_options(attention, pooling, dimension, max_seq_length)
    source = resolve(backbone)
    with merged(source, dtype=dtype) as place, loading(source):
        transformer = _load_transformer(place, dtype)
    forget_quantisation(transformer.model)
    refuse_other_kinds(transformer.model.config, backbone)
    # On the loaded config: passed as config_kwargs it is dropped without a word for most architectures.
    transformer.model.config.is_causal = attention == "causal"
    special_tokens = settle_tokenizer(transformer.tokenizer, backbone)
    transformer.max_seq_length = min(max_seq_length, transformer.max_seq_length or max_seq_length)
    template = fit_template(transformer.tokenizer, instruction_template)
    width = transformer.get_embedding_dimension()
    if dimension is not None and dimension > width:
        raise InputError(f"dimension must be at most the width of {backbone}, {width}, got {dimension}")
    pooled = Pooling(width, POOLINGS[pooling], include_prompt=False)
    truncation = [_first_dimensions(width, dimension, dtype)] if dimension not in (None, width) else []
    model = SentenceTransformer(
        modules=[transformer, pooled, *truncation, Normalize()],
        prompts={"query": format_instruction(template, instruction), "document": ""},
        similarity_fn_name="cosine",
        device=device,
    )
    conversion = Conversion(
        backbone=backbone,
        source=source.kind,
        architecture=type(transformer.model).__name__,
        attention=_prove(model, attention, partial=partial),
        pooling=POOLINGS[pooling],
        dimension=dimension or width,
        instruction_template=template,
        special_tokens=special_tokens,
        max_seq_length=int(transformer.max_seq_length),
        dtype=dtype,
    )
    # Not assigned: to type checkers, an attribute of a torch module is a tensor or a module.
    setattr(model, "st_reasoning", conversion)  # noqa: B010
    return model


def _check_options(attention: str, pooling: str, dimension: int | None, max_seq_length: int) -> None:
    if pooling not in POOLINGS:
        raise unknown_name("pooling", pooling, POOLINGS)
    if attention not in ("bidirectional", "causal"):
        raise unknown_name("attention", attention, ("bidirectional", "causal"))
    for name, value in (("max_seq_length", max_seq_length), ("dimension", dimension)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")


def _load_transformer(source: Source, dtype: str) -> Any:
    from sentence_transformers.base.modules import Transformer

    arguments = source.load_arguments()
    return Transformer(
        source.location,
        model_kwargs={"dtype": torch_dtype(dtype), **arguments},
        config_kwargs=dict(arguments),
        processor_kwargs=dict(arguments),
        # Without this, a tokenizer that has a chat template makes encode() wrap plain text into a chat, with a
        # system prompt, and pooling then finds no prompt to leave out.
        modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        module_output_name="token_embeddings",
    )


def _first_dimensions(width: int, dimension: int | None, dtype: str) -> Any:
    """Return a module that keeps the first dimensions; truncate_dim would be forgotten by the folder."""
    import torch
    from sentence_transformers.base.modules import Dense

    keep = torch.eye(dimension or width, width, dtype=torch_dtype(dtype))
    return Dense(width, dimension or width, bias=False, activation_function=torch.nn.Identity(), init_weight=keep)


def _prove(model: SentenceTransformer, attention: Attention, *, partial: bool) -> AttentionReport:
    """Prove the attention of a model as it is, or else under eager attention."""
    try:
        return verify_attention(model, attention, partial=partial)
    except ConversionError as refused:
        transformer: Any = model[0].model
        if transformer.config._attn_implementation == "eager":
            raise
        transformer.set_attn_implementation("eager")
        try:
            return verify_attention(model, attention, partial=partial)
        except ConversionError as again:
            raise ConversionError(f"{refused}; and {str(again).split(', but ', 1)[-1]}") from None


def open_model(name: str, *, attention: Attention = "causal", dtype: str = "float32") -> SentenceTransformer:
    """Open either side of a comparison: an embedder folder as it is, anything else as a backbone.

    Args:
        name: A sentence-transformers folder, or a backbone as for :func:`convert`.
        attention: For a backbone only; an LLM is looked at as it was trained unless told otherwise.
        dtype: For a backbone only.
    """
    from sentence_transformers import SentenceTransformer

    folder = Path(name).expanduser()
    if not (folder / "modules.json").is_file():
        return convert(name, attention=attention, dtype=dtype)
    source = resolve(name) if (folder / "config.json").is_file() else None
    if source is None:
        raise InputError(f"the embedder {name} has no config.json beside modules.json")
    with loading(source):
        return SentenceTransformer(str(folder), local_files_only=True)


def conversion_of(model: SentenceTransformer) -> Conversion:
    """Return what :func:`convert` recorded on a model.

    Raises:
        InputError: if the model was not made by :func:`convert`.
    """
    found = getattr(model, "st_reasoning", None)
    if not isinstance(found, Conversion):
        raise InputError("this model was not made by st_reasoning.convert; its backbone and attention are unknown")
    return found


def settle_tokenizer(tokenizer: Any, backbone: str) -> dict[str, Any]:
    """Settle padding, and record which special tokens a plain text is given.

    Padding is put on the right: then positions count from the first token in every architecture. Masked as it is, which
    token pads changes no embedding.
    """
    if tokenizer is None:
        raise InputError(f"{backbone} has no tokenizer; expected tokenizer files beside the weights")
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        known = (getattr(tokenizer, name) for name in ("eos_token", "unk_token", "bos_token"))
        tokenizer.pad_token = next((token for token in known if token is not None), None)
        if tokenizer.pad_token is None:
            raise InputError(f"the tokenizer of {backbone} has neither pad nor EOS, UNK or BOS token to pad with")
    ids, bare = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    start = next((k for k in range(len(ids)) if ids[k : k + len(bare)] == bare), 0)
    return {
        "pad": str(tokenizer.pad_token),
        "before": tokenizer.convert_ids_to_tokens(ids[:start]),
        "after": tokenizer.convert_ids_to_tokens(ids[start + len(bare) :]),
        "padding_side": "right",
    }
