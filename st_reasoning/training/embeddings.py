"""Embeddings that outlive the process that made them, chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from st_reasoning.backbone import RECORD, fit_template, format_instruction, read_record
from st_reasoning.backbone.prompts import CODE_TEMPLATE
from st_reasoning.config import versions
from st_reasoning.errors import InputError
from st_reasoning.files import content_hash, folder_hash, new_file

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Embeddings = npt.NDArray[np.float32]

# Packages that decide what a model's embeddings are.
DECISIVE = ("torch", "transformers", "sentence-transformers", "tokenizers", "peft")


@dataclass(frozen=True)
class Embedder:
    """A model and what it is made of.

    Attributes:
        model: The model.
        folder: Where its files are; for a model of the hub, in the hub's cache.
        hash: SHA-256 of these files.
        identity: SHA-256 of them and of the versions of what runs them; with it, embeddings may change.
    """

    model: SentenceTransformer
    folder: Path
    hash: str
    identity: str

    def query_prompt(self, instruction: str, template: str | None = None) -> str:
        """Return what is put before a query for an instruction; an empty instruction is no prompt at all.

        Args:
            instruction: What the query asks for.
            template: Has ``{instruction}`` in it; by default the one that the model was made with, if it says so.

        Raises:
            InputError: if no form of the template ends at a token boundary of the model's tokenizer.
        """
        if template is None:
            made_here = (self.folder / RECORD).is_file()
            template = read_record(self.folder)["instruction_template"] if made_here else CODE_TEMPLATE
        return format_instruction(fit_template(self.model.tokenizer, template), instruction) if instruction else ""


def open_embedder(name: str, *, device: str | None = None) -> Embedder:
    """Load a sentence-transformers model from a folder or the hub.

    Raises:
        InputError: if there is none of that name, or it is no sentence-transformers model.
    """
    from huggingface_hub import snapshot_download
    from sentence_transformers import SentenceTransformer

    expected = "expected a sentence-transformers folder, or a hub name such as ORG/NAME"
    folder = Path(name).expanduser()
    local = folder.is_dir()
    if local and not (folder / "modules.json").is_file():
        raise InputError(f"{name} has no modules.json; {expected} (st-reasoning convert makes one)")
    if not local and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise InputError(f"no such model: {name}; {expected}")
    try:
        model = SentenceTransformer(str(folder) if local else name, device=device, local_files_only=local)
        if not local:
            folder = Path(snapshot_download(name, local_files_only=True))
    # torch asserts where a device was not compiled in.
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError, AssertionError) as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"cannot load the model {name!r}: {first}; {expected}") from error
    if not (folder / "modules.json").is_file():
        raise InputError(f"the model {name} has no modules.json; {expected}")
    found = folder_hash(folder)
    packages = {name: version for name, version in versions().items() if name in DECISIVE}
    return Embedder(model, folder, found, content_hash([found, packages]))


@dataclass(frozen=True)
class StoredEmbeddings:
    """Embeds texts, and keeps what is embedded in files of one chunk each.

    A file is named by the hash of everything its content follows from: the model's files, the packages' versions, the
    prompt and the texts. sentence-transformers' own cache (``cache_folder`` of ``mine_hard_negatives``) goes by the
    model's hub name, which is None for every local folder, and is written only when all texts are embedded.

    Attributes:
        embedder: The model.
        folder: Where the files are.
        chunk: Texts per file: what is lost at most when the process is killed.
        batch_size: Texts per forward pass.
    """

    embedder: Embedder
    folder: Path
    chunk: int = 512
    batch_size: int = 32

    def queries(self, texts: Sequence[str], prompt: str | None) -> Embeddings:
        """Embed queries under ``prompt``, or with None under the model's own query prompt.

        Returns:
            Normalised embeddings, [n, d].
        """
        return self._embed(texts, "query", prompt)

    def documents(self, texts: Sequence[str]) -> Embeddings:
        """Embed documents, as the model does by itself: an instruction is for queries.

        Returns:
            Normalised embeddings, [n, d].
        """
        return self._embed(texts, "document", None)

    def _embed(self, texts: Sequence[str], kind: Literal["query", "document"], prompt: str | None) -> Embeddings:
        from tqdm import tqdm

        found: Embeddings | None = None
        with tqdm(total=len(texts), desc=f"Embedding {kind} texts", unit=" texts") as bar:
            for start in range(0, len(texts), self.chunk):
                chunk = list(texts[start : start + self.chunk])
                part = self._chunk(chunk, kind, prompt)
                if found is None:
                    found = np.empty((len(texts), part.shape[1]), dtype=np.float32)
                found[start : start + len(chunk)] = part
                bar.update(len(chunk))
        if found is None:
            raise InputError("there is no text to embed")
        return found

    def _chunk(self, texts: list[str], kind: str, prompt: str | None) -> Embeddings:
        path = self.folder / f"{content_hash([self.embedder.identity, kind, prompt, texts])}.npy"
        if path.is_file():
            stored: Embeddings = np.load(path)
            return stored
        model = self.embedder.model
        encode = model.encode_query if kind == "query" else model.encode_document
        embeddings = np.asarray(
            encode(
                texts,
                prompt=prompt,
                batch_size=self.batch_size,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            ),
            dtype=np.float32,
        )
        with new_file(path) as scratch, scratch.open("wb") as stream:
            np.save(stream, embeddings)
        return embeddings
