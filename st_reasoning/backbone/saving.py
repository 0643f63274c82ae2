"""Write an embedder, and prove that the folder is what was in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_reasoning.attention import first_states, probe_attention, probe_first_layers
from st_reasoning.backbone.adapters import distance
from st_reasoning.backbone.convert import Conversion, conversion_of
from st_reasoning.backbone.export import make_portable, write_card
from st_reasoning.backbone.sources import torch_dtype
from st_reasoning.errors import ConversionError, InputError
from st_reasoning.files import new_folder, read_json, write_json

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

RECORD = "st_reasoning.json"

# Largest distance of embeddings between a model and its saved copy, relative to their size: element by element, wide
# embeddings that are far apart would look alike.
COPY_TOLERANCE = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 3e-2}
SAMPLE = 512


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
        # Its card would be written over below.
        model.save(str(scratch), create_model_card=False)
        record = {**conversion.to_mapping(), **facts}
        write_json(scratch / RECORD, record)
        write_card(scratch, record, model.prompts)
        make_portable(
            scratch, max_seq_length=conversion.max_seq_length, implementation=conversion.attention.implementation
        )
        _prove_copy(model, scratch, conversion)


def _prove_copy(model: SentenceTransformer, folder: Path, conversion: Conversion) -> None:
    """Compare what a plain sentence-transformers makes of the folder with the model that was proven.

    The copy is probed anew, and its tokens, states and embeddings are compared, through as many of the first layers as
    show every kind; of the weights of all layers, names and samples. On a CPU, where it is loaded, its weights are
    mapped from the files: they take no memory of their own.
    """
    from sentence_transformers import SentenceTransformer

    copy = SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch_dtype(conversion.dtype)}
    )
    transformer: Any = copy[0].model
    proven, implementation = conversion.attention, transformer.config._attn_implementation
    layers = probe_first_layers(transformer)
    report = None if layers else probe_attention(copy)
    seen = report.attention if report else layers
    if (seen, implementation) != (
        proven.attention if report else proven.layers[: len(layers)],
        proven.implementation,
    ):
        raise ConversionError(
            f"saved as {proven.attention} under {proven.implementation}, but the saved copy is not: it is "
            f"{report.attention if report else '/'.join(dict.fromkeys(layers))} under {implementation}"
        )
    _compare_weights(model, copy)
    was_training = model.training
    model.eval()
    try:
        before, after = (_first_embeddings(embedder) for embedder in (model, copy))
    finally:
        model.train(was_training)
    # Same weights and same batch; other kernels where the model is on a GPU, and the rounding of the stored dtype.
    tolerance = COPY_TOLERANCE[conversion.dtype]
    for name, ours in before.items():
        theirs = after[name]
        # NaN is no number within any tolerance.
        if ours.shape != theirs.shape or not distance(ours.float(), theirs.float()) <= tolerance:
            raise ConversionError(f"the saved embedder differs from the one in memory: {name} are not the same")


def _first_embeddings(model: SentenceTransformer) -> dict[str, Any]:
    """Return token ids and embeddings of a few texts, with and without the query prompt, after the first layers."""
    import torch

    transformer: Any = model[0].model
    texts = ["One apple and two pears.", "Seven."]
    # As queries too: a prompt that was lost or is counted otherwise changes nothing but these.
    prompts = {"documents": None, "queries": model.prompts.get("query") or None}
    batches = {name: model.preprocess(texts, prompt=prompt) for name, prompt in prompts.items()}
    ids = {f"token ids of {name}": features["input_ids"] for name, features in batches.items()}
    embeddings = {}
    with torch.inference_mode():
        states = first_states(transformer, [(each["input_ids"], each["attention_mask"]) for each in batches.values()])
        for (name, features), tokens in zip(batches.items(), states, strict=True):
            features = {k: v.to(model.device) if torch.is_tensor(v) else v for k, v in features.items()}
            features["token_embeddings"] = tokens.to(transformer.dtype)
            for module in list(model)[1:]:
                features = module(features)
            embeddings[f"embeddings of {name}"] = features["sentence_embedding"].float().cpu()
    return {**ids, **embeddings}


def _compare_weights(model: SentenceTransformer, copy: SentenceTransformer) -> None:
    import torch

    ours, theirs = model.state_dict(), copy.state_dict()
    # Beginning and end of each: whatever is renamed, transposed, cast or left out shows there.
    wrong = ours.keys() ^ theirs.keys() or {
        name
        for name, tensor in ours.items()
        for part in (slice(SAMPLE), slice(-SAMPLE, None))
        if tensor.shape != theirs[name].shape
        or not torch.equal(tensor.flatten()[part].cpu(), theirs[name].flatten()[part])
    }
    if wrong:
        raise ConversionError(
            f"the saved embedder differs from the one in memory: {len(wrong)} weights are not the same, "
            f"{sorted(wrong)[0]} among them"
        )


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
