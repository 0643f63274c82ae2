"""Hidden states that outlive the process that made them, batch by batch."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from st_reasoning.config import versions
from st_reasoning.errors import InputError
from st_reasoning.files import content_hash, new_file

# Packages that decide what the states of a model are.
DECISIVE = ("torch", "transformers", "sentence-transformers", "peft")
# What is older than this, in seconds, and still partial was left behind by a process that was killed.
ABANDONED = 3600.0


@dataclass(frozen=True)
class StateCache:
    """A folder with one safetensors file per model and batch.

    A file is complete or absent. It is named by the hash of everything its content follows from (:func:`batch_key`)
    and holds a checksum of its content and name: one that is damaged, or was renamed, is not used.

    Attributes:
        folder: Where the files are; made when the first one is written. Any file may be deleted at any time.
    """

    folder: Path

    def __post_init__(self) -> None:
        if self.folder.is_file():
            raise InputError(f"cache: expected a folder, got the file {self.folder}")
        for partial in self.folder.glob("*/.*.partial"):
            try:
                if time.time() - partial.stat().st_mtime > ABANDONED:
                    partial.unlink()
            except FileNotFoundError:  # another process was faster
                continue

    def path(self, key: str) -> Path:
        """Return the file of a batch, in one of 256 folders."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def read(self, key: str) -> dict[str, Tensor] | None:
        """Return the tensors stored under a key, on the CPU; None, with a warning where damaged, if there are none."""
        from safetensors import SafetensorError, safe_open

        path = self.path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                said = (file.metadata() or {}).get("sha256")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, OSError) as error:
            warnings.warn(f"{path} is damaged ({error}); its batch is run again", stacklevel=2)
            return None
        if said != _checksum(key, tensors):
            warnings.warn(f"{path} is damaged (its checksum is wrong); its batch is run again", stacklevel=2)
            return None
        return tensors

    def write(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Store tensors under a key, complete or not at all.

        Raises:
            InputError: if the folder cannot be written, e.g. because the disk is full.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        stored = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        path = self.path(key)
        try:
            with new_file(path) as scratch:
                save_file(stored, scratch, metadata={"sha256": _checksum(key, stored)})
        except (SafetensorError, OSError) as error:
            size = sum(tensor.nbytes for tensor in stored.values())
            raise InputError(
                f"cache: cannot write {size / 1e6:.0f} MB to {path.parent} ({error}); free space there, name another "
                "folder, or do without"
            ) from error


def model_key(network: Any, pooling: dict[str, Any] | None) -> str:
    """Return the SHA-256, in hex, of what decides the states that a transformers model gives for token ids.

    That is: weights and buffers, adapters, config (attention mode, RoPE, window), attention implementation, dtype, kind
    of device, pooling, and the packages that run it. The tokenizer is not among it, since token ids are part of
    :func:`batch_key`. What a program does to a model beside these, such as a hook of its own, is not seen.

    Args:
        network: The transformers model, loaded.
        pooling: The settings of the Pooling behind it; None for the mean.
    """
    config = network.config.to_dict()
    for name in ("_name_or_path", "transformers_version"):
        config.pop(name, None)
    facts = {
        "class": f"{type(network).__module__}.{type(network).__qualname__}",
        "config": config,
        "attention": getattr(network.config, "_attn_implementation", None),
        "dtype": str(network.dtype),
        "device": network.device.type,
        "precision": torch.get_float32_matmul_precision(),
        "autocast": torch.is_autocast_enabled(network.device.type),
        "adapters": _adapters(network),
        "pooling": pooling,
        "versions": {name: version for name, version in versions().items() if name in DECISIVE},
        # Buffers that are not saved with a model, such as rotary frequencies, decide its states as well.
        "weights": _checksum("", {**dict(network.named_buffers()), **network.state_dict()}),
    }
    # Configs hold keys and values that JSON has not, e.g. numbers as keys.
    return content_hash(json.loads(json.dumps(facts, default=str)))


def batch_key(model: str, ids: Sequence[Sequence[Sequence[int]]]) -> str:
    """Return the SHA-256, in hex, of a model's key and the token ids of the texts of each of its forward passes."""
    return content_hash([model, ids])


def _adapters(network: Any) -> list[list[str]]:
    """Return what the weights do not say of PEFT's layers: scale, and whether they are active or merged."""
    facts = ("scaling", "active_adapters", "merged_adapters", "disable_adapters")
    return [
        [name, *(str(getattr(module, fact, None)) for fact in facts)]
        for name, module in network.named_modules()
        if hasattr(module, "merged_adapters")
    ]


def _checksum(key: str, tensors: dict[str, Any]) -> str:
    """Return the SHA-256, in hex, of a name and of names, dtypes, shapes and bytes of tensors."""
    digest = hashlib.sha256(key.encode())
    for name, tensor in sorted(tensors.items()):
        if not isinstance(tensor, Tensor):  # what a module stores beside tensors
            digest.update(f"{name} {tensor!r}\0".encode())
            continue
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\0".encode())
        content: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(content)
    return digest.hexdigest()
