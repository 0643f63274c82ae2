"""``st-reasoning audit``, and the gate as the command line shows it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from st_reasoning.backbone.audit import NAMES
from st_reasoning.cli import main
from tests.models import make_llama


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("plain") / "plain", seed=1, chat=False)


def test_help_has_an_example() -> None:
    found = call("audit", "--help")
    assert found.exit_code == 0
    assert "st-reasoning audit package:" in " ".join(found.output.split())


def test_equal_models_are_exit_code_0(tiny_llm: Path, tmp_path: Path) -> None:
    other = make_llama(tmp_path / "other", seed=1)
    found = call("audit", tiny_llm, other)
    assert found.exit_code == 0, found.output
    assert "All 13 are equal." in found.stdout
    assert found.stderr == ""
    assert json.loads(call("audit", tiny_llm, other, "--json").stdout)["equal"] is True


def test_a_difference_is_exit_code_1_and_marked(tiny_llm: Path, plain: Path) -> None:
    found = call("audit", tiny_llm, plain)
    assert found.exit_code == 1
    marked = [line.split()[1] for line in found.stdout.splitlines() if line.startswith("! ")]
    assert marked == ["chat_template", "chat_template:"]
    found = call("audit", tiny_llm, plain, "--json")
    assert found.exit_code == 1
    facts = json.loads(found.stdout)
    assert [f["name"] for f in facts["findings"]] == list(NAMES)
    assert [f["name"] for f in facts["findings"] if not f["equal"]] == ["chat_template"]
    assert facts["models"] == [str(tiny_llm), str(plain)]


def test_the_template_can_be_named(tiny_llm: Path) -> None:
    found = call("audit", tiny_llm, tiny_llm, "--instruction-template", "{instruction} ::\n", "--json")
    assert found.exit_code == 0, found.output
    (boundary,) = (f for f in json.loads(found.stdout)["findings"] if f["name"] == "prompt_boundary")
    assert boundary["base"] == r"'{instruction} ::\n'"
    found = call("audit", tiny_llm, tiny_llm, "--instruction-template", "Query: ")
    assert found.exit_code == 2
    assert "'Query: ' has no {instruction} in it" in found.stderr


def test_wrong_input_is_one_line_and_exit_code_2(tiny_llm: Path) -> None:
    for missing in ("./nowhere", "no-org/no-model"):
        found = call("audit", tiny_llm, missing)
        assert found.exit_code == 2
        (line,) = [line for line in found.stderr.splitlines() if line.strip()]
        assert line.startswith("Error: ")
        assert missing in line


def test_the_study_refuses_in_one_line_and_leaves_nothing(tiny_llm: Path, plain: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "study.yaml"
    recipe.write_text(
        f"pairs: [{{name: a, base: {tiny_llm}, reasoning: {{backbone: {plain}}}}}]\n"
        "tasks: [GSMSymbolicSolutionRetrieval]\n"
        "training: {data: [{name: gsm, instruction: Find., generated: {family: gsm_symbolic, examples: 8}}]}\n"
    )
    found = call("study", recipe, "--output", tmp_path / "out")
    assert found.exit_code == 2
    (line,) = [line for line in found.stderr.splitlines() if line.strip()]
    assert "chat_template (152 characters" in line
    assert "'waive: [chat_template]'" in line
    assert not (tmp_path / "out").exists()


def test_names_are_checked_without_heavy_imports() -> None:
    code = (
        "import sys; from st_reasoning.backbone.audit import check_names; check_names(['dtype']); "
        "print(sorted({'torch', 'mteb', 'transformers', 'tokenizers'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
