"""GGUF: read like any other backbone, and parsed no more often than needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, AutoTokenizer

from st_reasoning.attention import probe_attention
from st_reasoning.backbone import audit, convert, load_causal_lm, save_causal_lm, save_embedder
from st_reasoning.backbone.gguf_files import parsed_once
from st_reasoning.errors import InputError
from tests.models import make_gguf


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gguf(tmp_path_factory.mktemp("gguf"))


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were parsed, by whomever: the reader is the real one and takes notes."""
    files: list[str] = []

    class Noted(gguf.GGUFReader):
        def __init__(self, path: Any, *arguments: Any) -> None:
            files.append(str(path))
            super().__init__(path, *arguments)

    monkeypatch.setattr(gguf, "GGUFReader", Noted)
    return files


def test_an_embedder_from_gguf_is_bidirectional_after_reload(tiny: Path, tmp_path: Path) -> None:
    model = convert(str(tiny))
    save_embedder(model, tmp_path / "out")
    copy = SentenceTransformer(str(tmp_path / "out"))
    assert probe_attention(copy).attention == "bidirectional"
    np.testing.assert_allclose(copy.encode(["seven apples"]), model.encode(["seven apples"]), atol=1e-6)


def test_trap_each_look_at_a_file_parses_it_again(tiny: Path, parsed: list[str]) -> None:
    """What it costs where nobody remembers; if this ever fails, transformers has mended it."""
    AutoConfig.from_pretrained(tiny.parent, gguf_file=tiny.name)
    AutoTokenizer.from_pretrained(tiny.parent, gguf_file=tiny.name)
    assert parsed == [str(tiny)] * 2


@pytest.mark.parametrize("work", [lambda file: audit(file, file), convert, load_causal_lm])
def test_each_file_is_parsed_once(tiny: Path, parsed: list[str], work: Callable[[str], Any]) -> None:
    reader = gguf.GGUFReader
    work(str(tiny))
    assert parsed == [str(tiny)]
    assert gguf.GGUFReader is reader


def test_what_is_read_is_the_same_as_without(tiny: Path) -> None:
    def read() -> tuple[Any, ...]:
        config = AutoConfig.from_pretrained(tiny.parent, gguf_file=tiny.name).to_dict()
        tokenizer = AutoTokenizer.from_pretrained(tiny.parent, gguf_file=tiny.name)
        tensors = gguf.GGUFReader(str(tiny)).tensors
        weights = [(t.name, t.tensor_type.name, t.data.tobytes(), t.data.shape) for t in tensors]
        return config, tokenizer.get_vocab(), tokenizer("seven apples")["input_ids"], weights

    plain = read()
    with parsed_once():
        assert read() == plain
        assert read() == plain


def test_another_file_of_that_name_is_read_in_the_next_block(tiny: Path, parsed: list[str]) -> None:
    with parsed_once(), parsed_once():
        first = gguf.GGUFReader(tiny)
        assert gguf.GGUFReader(str(tiny)) is first
    with parsed_once():
        assert gguf.GGUFReader(tiny) is not first
    assert len(parsed) == 2


@pytest.mark.parametrize("share", [0.00002, 0.01, 0.2, 0.9])
def test_a_file_that_ends_early_is_refused_in_one_line(tiny: Path, tmp_path: Path, share: float) -> None:
    real = gguf.GGUFReader
    whole = tiny.read_bytes()
    (tmp_path / "broken.gguf").write_bytes(whole[: int(len(whole) * share)])
    for work in (convert, load_causal_lm):
        with pytest.raises(InputError, match=r"cannot load the backbone .*broken\.gguf") as caught:
            work(str(tmp_path / "broken.gguf"))
        assert "\n" not in str(caught.value)
        assert gguf.GGUFReader is real


def test_the_audit_of_gguf_and_its_folder_differs_in_how_it_is_stored_only(tiny: Path, tmp_path: Path) -> None:
    save_causal_lm(*load_causal_lm(str(tiny)), tmp_path / "folder")
    (finding,) = audit(str(tiny), str(tmp_path / "folder")).differences
    assert (finding.name, finding.base, finding.reasoning) == ("dtype", "GGUF F32, Q8_0", "float32")
