"""Turn a causal LLM into a SentenceTransformer, prove its attention, and write it down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_reasoning.attention import Attention, AttentionReport, verify_attention
from st_reasoning.backbone.prompts import CODE_TEMPLATE, fit_template, format_instruction
from st_reasoning.backbone.sources import forget_quantisation, loading, resolve, torch_dtype
from st_reasoning.config import versions
from st_reasoning.errors import ConversionError, InputError, unknown_name
from st_reasoning.files import new_folder, read_json, write_json

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

RECORD = "st_reasoning.json"
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
    attention: AttentionReport
    pooling: str
    instruction_template: str
    pad_token: str
    max_seq_length: int
    dtype: str

    def to_mapping(self) -> dict[str, Any]:
        """Return JSON values, versions included."""
        return {
            "schema": SCHEMA,
            "backbone": self.backbone,
            "attention": self.attention.to_mapping(),
            "pooling": self.pooling,
            "instruction_template": self.instruction_template,
            "pad_token": self.pad_token,
            "max_seq_length": self.max_seq_length,
            "dtype": self.dtype,
            "versions": versions(),
        }


def convert(
    backbone: str,
    *,
    attention: Attention = "bidirectional",
    pooling: str = "mean",
    instruction: str = "",
    instruction_template: str = CODE_TEMPLATE,
    max_seq_length: int = 512,
    dtype: str = "float32",
    device: str | None = None,
) -> SentenceTransformer:
    """Turn a causal language model into an embedder and prove that its attention is what was asked for.

    The model is a plain :class:`~sentence_transformers.SentenceTransformer`: transformer, pooling without the prompt,
    L2 normalisation. Plain text is tokenised as it is, whatever chat template the tokenizer carries.

    Args:
        backbone: Hub name, folder, ``.gguf`` file, or ``package:PACKAGE/FILE.gguf``.
        attention: ``"bidirectional"`` (the causal mask is removed) or ``"causal"``.
        pooling: ``"mean"``, ``"last"``, ``"weighted_mean"``, or another mode of sentence-transformers' Pooling.
        instruction: What a query asks for; becomes the model's default ``query`` prompt.
        instruction_template: How an instruction is put before a query; its end is fitted to the tokenizer, see
            :func:`~st_reasoning.backbone.fit_template`.
        max_seq_length: Longest input in tokens; longer texts are truncated.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        device: As for SentenceTransformer; by default what torch finds.

    Returns:
        The embedder; ``model.st_reasoning`` holds the :class:`Conversion`.

    Raises:
        InputError: if the backbone cannot be loaded, or a name is unknown.
        ConversionError: if the proof fails; the architecture and what was seen are named.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    if pooling not in POOLINGS:
        raise unknown_name("pooling", pooling, POOLINGS)
    if attention not in ("bidirectional", "causal"):
        raise unknown_name("attention", attention, ("bidirectional", "causal"))
    if max_seq_length < 1:
        raise InputError(f"max_seq_length must be at least 1, got {max_seq_length}")
    source = resolve(backbone)
    arguments = source.load_arguments()
    with loading(source):
        transformer = Transformer(
            source.location,
            model_kwargs={"dtype": torch_dtype(dtype), **arguments},
            config_kwargs=dict(arguments),
            processor_kwargs=dict(arguments),
            # Without this, a tokenizer that has a chat template makes encode() wrap plain text into a chat, with a
            # system prompt, and pooling then finds no prompt to leave out.
            modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            module_output_name="token_embeddings",
        )
    forget_quantisation(transformer.model)
    _refuse_encoders(transformer.model, backbone)
    # On the loaded config: passed as config_kwargs it is dropped without a word for most architectures.
    transformer.model.config.is_causal = attention == "causal"
    pad_token = _settle_padding(transformer.tokenizer, backbone)
    transformer.max_seq_length = min(max_seq_length, transformer.max_seq_length or max_seq_length)
    template = fit_template(transformer.tokenizer, instruction_template)
    width = transformer.get_embedding_dimension()
    model = SentenceTransformer(
        modules=[transformer, Pooling(width, POOLINGS[pooling], include_prompt=False), Normalize()],
        prompts={"query": format_instruction(template, instruction), "document": ""},
        similarity_fn_name="cosine",
        device=device,
    )
    conversion = Conversion(
        backbone=backbone,
        attention=verify_attention(model, attention),
        pooling=POOLINGS[pooling],
        instruction_template=template,
        pad_token=pad_token,
        max_seq_length=int(transformer.max_seq_length),
        dtype=dtype,
    )
    # Not assigned: to type checkers, an attribute of a torch module is a tensor or a module.
    setattr(model, "st_reasoning", conversion)  # noqa: B010
    return model


def save_embedder(model: SentenceTransformer, folder: Path, *, overwrite: bool = False, **facts: Any) -> None:
    """Write an embedder that was made by :func:`convert`, reload it, and prove the copy.

    The folder needs nothing but sentence-transformers to be loaded. It appears complete or not at all.

    Args:
        model: The embedder, trained or not.
        folder: Where to; must not exist or be empty, unless ``overwrite``.
        overwrite: Whether to replace what is there.
        **facts: Further JSON values for the record, e.g. the training recipe.

    Raises:
        ConversionError: if the reloaded copy attends otherwise than the model or embeds differently.
    """
    conversion = conversion_of(model)
    with new_folder(folder, overwrite=overwrite) as scratch:
        model.save(str(scratch))
        write_json(scratch / RECORD, {**conversion.to_mapping(), **facts})
        _prove_copy(model, scratch, conversion)


def _prove_copy(model: SentenceTransformer, folder: Path, conversion: Conversion) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    expected: Any = conversion.attention.attention
    copy = SentenceTransformer(str(folder), device=str(model.device), local_files_only=True)
    verify_attention(copy, expected)
    texts = ["One apple and two pears.", "Seven."]
    was_training = model.training
    model.eval()
    before, after = (m.encode(texts, convert_to_tensor=True).float() for m in (model, copy))
    model.train(was_training)
    # Same weights, same kernels, same batch: what differs is only rounding of the stored dtype.
    if not torch.allclose(before, after, atol=1e-5):
        gap = float((before - after).abs().max())
        raise ConversionError(f"the saved embedder differs from the one in memory: embeddings are {gap:.1e} apart")


def read_record(folder: Path) -> dict[str, Any]:
    """Read what :func:`save_embedder` wrote beside the weights.

    Raises:
        InputError: if the folder was not written by this package.
    """
    path = folder / RECORD
    if not path.is_file():
        raise InputError(f"{folder} has no {RECORD}; expected a folder written by st-reasoning convert or train")
    record: dict[str, Any] = read_json(path)
    return record


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


def _refuse_encoders(transformer: Any, backbone: str) -> None:
    from transformers import AutoModelForCausalLM

    config = transformer.config
    if type(config) not in AutoModelForCausalLM._model_mapping or getattr(config, "is_encoder_decoder", False):
        raise InputError(f"{backbone} is a {config.model_type} model; expected a causal language model (decoder)")


def _settle_padding(tokenizer: Any, backbone: str) -> str:
    """Make sure that there is a pad token; masked as it is, which one it is changes no embedding."""
    if tokenizer is None:
        raise InputError(f"{backbone} has no tokenizer; expected tokenizer files beside the weights")
    if tokenizer.pad_token is None:
        for name in ("eos_token", "unk_token", "bos_token"):
            if (token := getattr(tokenizer, name)) is not None:
                tokenizer.pad_token = token
                break
        else:
            raise InputError(f"the tokenizer of {backbone} has neither pad nor EOS, UNK or BOS token to pad with")
    return str(tokenizer.pad_token)
