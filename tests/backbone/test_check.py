"""The check finds, in folders made by others, what our conversion guards against."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from st_reasoning.backbone import convert, save_embedder
from st_reasoning.backbone.check import check_folder
from st_reasoning.cli import main
from st_reasoning.errors import InputError


def naive(llm: Path, folder: Path, prompt: str) -> Path:
    """The embedder one gets by following one's nose."""
    transformer = Transformer(str(llm), config_kwargs={"is_causal": False})
    transformer.tokenizer.pad_token = "</s>"
    modules = [transformer, Pooling(32, "mean", include_prompt=False), Normalize()]
    SentenceTransformer(modules=modules, prompts={"query": prompt}).save(str(folder))
    return folder


def test_our_own_folder_has_no_problem(tiny_llm: Path, tmp_path: Path) -> None:
    save_embedder(convert(str(tiny_llm), instruction="Find it."), tmp_path / "out")
    found = check_folder(tmp_path / "out", attention="bidirectional")
    assert found.problems == ()
    assert found.pooling == "mean, prompts excluded"


def test_three_silent_faults_are_found_in_a_naive_one(tiny_llm: Path, tmp_path: Path) -> None:
    folder = naive(tiny_llm, tmp_path / "naive", "Query: ")
    found = check_folder(folder, attention="bidirectional")
    said = "\n".join(found.problems)
    assert "attention is causal, expected bidirectional" in said
    assert "plain text does not reach the model as it is" in said
    assert "the prompt 'query' ends inside a token" in said


def test_the_command_tells_by_its_exit_code(tiny_llm: Path, tmp_path: Path) -> None:
    save_embedder(convert(str(tiny_llm)), tmp_path / "good")
    folder = naive(tiny_llm, tmp_path / "naive", "Query:\n")
    for path, code in ((tmp_path / "good", 0), (folder, 1), (tiny_llm, 2)):
        found = CliRunner().invoke(main, ["check", str(path)])
        assert (found.exit_code, "PROBLEM" in found.stdout) == (code, code == 1), found.output


def test_what_is_no_such_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no modules\.json"):
        check_folder(tmp_path)
