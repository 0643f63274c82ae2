"""GGUF files, parsed once where transformers would parse them for the config, for the tokenizer and for the weights."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def parsed_once() -> Iterator[None]:
    """Parse each GGUF file once within the block, and faster.

    For most architectures transformers builds a ``gguf.GGUFReader`` each time it wants a config, and that reader makes
    an array of every token of the vocabulary: 6 s for the 49,000 tokens of SmolLM2, 2.8 s when the arrays are plain
    ones. Within the block ``gguf.GGUFReader`` is a function that remembers the readers it has made; then it is the
    class again, and they are gone. A block inside another one shares its readers.
    """
    import gguf
    import numpy as np

    original: Any = gguf.GGUFReader
    if not isinstance(original, type):  # an outer block has put its function there
        yield
        return

    class Reader(original):  # type: ignore[misc]
        def _get(self, *arguments: Any, **options: Any) -> Any:
            # Each slice of a memmap is a memmap, at twice the price of the array that it is a view of.
            self.data: Any = np.asarray(self.data)
            return super()._get(*arguments, **options)

    remembered = functools.cache(Reader)

    def read(path: os.PathLike[str] | str) -> Any:
        return remembered(os.path.abspath(path))

    gguf.GGUFReader = read
    try:
        yield
    finally:
        gguf.GGUFReader = original
