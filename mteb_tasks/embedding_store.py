"""A bounded folder of embeddings, which several processes may read and write at once.

``<folder>/<scope>/<name>.safetensors`` holds the embeddings of some texts, with the SHA-256 of each text; a scope is
whatever decides an embedding besides the text. Files are complete or absent and never changed, so nothing is locked:
a file that another process has thrown out is embeddings to compute again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from st_reasoning.files import new_file

if TYPE_CHECKING:
    import numpy as np

SUFFIX = ".safetensors"
ABANDONED = 3600.0  # seconds after which a half-written file is that of a process that was killed


class EmbeddingStore:
    """Embeddings by scope and text.

    Args:
        folder: Where they lie; made when something is written.
        limit: How many bytes the files may hold together. The ones not used for longest go first.
    """

    def __init__(self, folder: Path, *, limit: int) -> None:
        self.folder, self.limit = folder, limit
        # scope -> file name -> SHA-256 of the texts in it, in order
        self._keys: dict[str, dict[str, list[bytes]]] = {}

    def find(self, scope: str, texts: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the embeddings, each of shape (d,), of those texts that have one."""
        wanted = {text_key(text): text for text in texts}
        found: dict[str, np.ndarray] = {}
        for name, keys in list(self._known(scope).items()):  # damaged files leave it
            rows = {place: wanted[key] for place, key in enumerate(keys) if key in wanted}
            if rows and (embeddings := self._read(self.folder / scope / name)) is not None:
                found.update({text: embeddings[place] for place, text in rows.items()})
        return found

    def add(self, scope: str, embeddings: Mapping[str, np.ndarray]) -> None:
        """Keep embeddings, each of shape (d,), and throw out the oldest files if there are too many bytes."""
        import numpy as np
        from safetensors.numpy import save_file

        keys = [text_key(text) for text in embeddings]
        vectors = np.stack(list(embeddings.values()))
        if vectors.nbytes > self.limit:
            return
        packed = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), -1)
        path = self.folder / scope / (hashlib.sha256(packed.tobytes()).hexdigest()[:32] + SUFFIX)
        with new_file(path) as scratch:
            save_file({"keys": packed, "embeddings": vectors}, scratch, metadata={"sha256": _hash(packed, vectors)})
        self._keys.setdefault(scope, {})[path.name] = keys
        self._throw_out()

    def _known(self, scope: str) -> dict[str, list[bytes]]:
        """Return the keys in each file of a scope, reading those of files that are new."""
        from safetensors import SafetensorError, safe_open

        known = self._keys.setdefault(scope, {})
        there = {path.name: path for path in (self.folder / scope).glob(f"*{SUFFIX}")}
        for name in known.keys() - there.keys():
            del known[name]
        for name in there.keys() - known.keys():
            try:
                with safe_open(there[name], framework="numpy") as file:
                    known[name] = [row.tobytes() for row in file.get_tensor("keys")]
            except FileNotFoundError:
                continue
            except (SafetensorError, OSError, ValueError) as error:
                self._discard(there[name], error)
        return known

    def _read(self, path: Path) -> np.ndarray | None:
        """Return the embeddings of a file, of shape (n, d); None where it is gone or damaged."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                keys: np.ndarray = file.get_tensor("keys")
                vectors: np.ndarray = file.get_tensor("embeddings")
                stated = (file.metadata() or {}).get("sha256")
            if _hash(keys, vectors) != stated:
                raise ValueError("its content is not what its checksum says")
            os.utime(path)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError) as error:
            self._discard(path, error)
            return None
        return vectors

    def _discard(self, path: Path, error: Exception) -> None:
        warnings.warn(
            f"the stored embeddings in {path} are damaged ({error}); they are computed again",
            RuntimeWarning,
            stacklevel=2,
        )
        with contextlib.suppress(OSError):
            path.unlink()
        self._keys.get(path.parent.name, {}).pop(path.name, None)

    def _throw_out(self) -> None:
        """Delete the files that were not used for longest, until the rest keeps the limit."""
        files = []
        for path in self.folder.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                found = path.stat()
                if path.suffix == SUFFIX:
                    files.append((found.st_mtime_ns, found.st_size, path))
                elif time.time() - found.st_mtime > ABANDONED:
                    path.unlink()
        excess = sum(size for _, size, _ in files) - self.limit
        for _, size, path in sorted(files):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty
                path.parent.rmdir()
            excess -= size


def text_key(text: str) -> bytes:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _hash(keys: np.ndarray, vectors: np.ndarray) -> str:
    digest = hashlib.sha256(keys.tobytes())
    digest.update(f"{vectors.dtype} {vectors.shape}".encode())
    digest.update(vectors.tobytes())
    return digest.hexdigest()
