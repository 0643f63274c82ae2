"""The command line: what it prints, what it refuses, and what it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from st_reasoning.cli import main


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def texts(folder: Path) -> Path:
    path = folder / "texts.jsonl"
    rows = [{"text": f"{i} apples and {i + 2} pears are {2 * i + 2} fruits.", "label": str(i % 2)} for i in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "verb", [[], ["convert"], ["train"], ["mine"], ["variants", "sft"], ["hrsa"], ["realignment"], ["study"]]
)
def test_help_has_an_example(verb: list[str]) -> None:
    found = call(*verb, "--help")
    assert found.exit_code == 0
    assert f"st-reasoning {' '.join(verb)}".strip() in found.output
    assert "\\b" not in found.output
    # On lines of its own, as it can be copied.
    assert any(line.strip().startswith("st-reasoning ") for line in found.output.splitlines())


def test_convert_says_what_was_proven(tiny_llm: Path, tmp_path: Path) -> None:
    found = call("convert", tiny_llm, tmp_path / "out")
    assert found.exit_code == 0, found.output
    assert "bidirectional attention under sdpa (proven: unpadded x5" in found.stdout
    found = call("convert", tiny_llm, tmp_path / "causal", "--attention", "causal", "--pooling", "last", "--json")
    facts = json.loads(found.stdout)
    assert (facts["attention"]["attention"], facts["pooling"]) == ("causal", "lasttoken")


def test_hrsa_of_a_model_with_itself_is_one(tiny_llm: Path, tmp_path: Path) -> None:
    call("convert", tiny_llm, tmp_path / "embedder")
    # The same weights, looked at as a language model and as an embedder: attention is what differs.
    found = call("hrsa", tiny_llm, tmp_path / "embedder", "--texts", texts(tmp_path), "--output", tmp_path / "out")
    assert found.exit_code == 0, found.output
    panel = json.loads((tmp_path / "out" / "hrsa.json").read_text())
    assert [m["attention"] for m in panel["models"]] == ["causal", "bidirectional"]
    assert panel["layers"][0]["linear_cka"]["biased"] == pytest.approx(1, abs=1e-6)
    assert panel["layers"][-1]["linear_cka"]["biased"] < 0.999
    assert len(list((tmp_path / "out").glob("*.png"))) == 5
    found = call("hrsa", tiny_llm, tiny_llm, "--texts", texts(tmp_path), "--output", tmp_path / "twice", "--json")
    panel = json.loads(found.stdout)
    assert [m["name"] for m in panel["models"]] == ["tiny-llama (first)", "tiny-llama (second)"]
    assert panel["layers"][-1]["knn_overlap"]["5"]["value"] == pytest.approx(1)


RECIPE = """
data:
  - {name: gsm, instruction: Find the solution., generated: {family: gsm_symbolic, examples: 8}}
hard_negatives: 1
batch_size: 4
"""


def test_train_by_recipe(tiny_llm: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    found = call("train", recipe, "--backbone", tiny_llm, "--output", tmp_path / "out", "--seed", 3)
    assert found.exit_code == 0, found.output
    assert "2 steps over 8 examples" in found.stdout
    as_json = call("train", recipe, "--backbone", tiny_llm, "--output", tmp_path / "json", "--json")
    assert json.loads(as_json.stdout)["steps"] == 2  # the trainer's own prints are not in the way
    again = call("train", recipe, "--backbone", tiny_llm, "--output", tmp_path / "out")
    assert (again.exit_code, "not empty" in again.stderr) == (2, True)


def wrong_inputs(llm: Path, folder: Path) -> dict[str, tuple[list[object], str]]:
    """Name -> the arguments, and what the one line must say."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE)
    typo = folder / "typo.yaml"
    typo.write_text(RECIPE + "learning_rat: 1\n")
    empty = folder / "empty.jsonl"
    empty.write_text("")
    blank = folder / "blank.jsonl"
    blank.write_text('{"text": "fine"}\n{"text": "  "}\n')
    study = folder / "study.yaml"
    study.write_text(
        f"pairs: [{{name: a, base: {llm}, reasoning: {{backbone: {llm}}}}}]\n"
        f"tasks: [NoSuchTask]\nhrsa: {{}}\ntraining:{RECIPE.replace(chr(10), chr(10) + '  ')}\n"
    )
    out = folder / "out"
    return {
        "missing backbone": (["convert", "./nowhere", out], "no such backbone: ./nowhere; expected"),
        "unknown hub model": (["convert", "no-org/no-model", out], "cannot load the backbone 'no-org/no-model'"),
        "unknown pooling": (["convert", llm, out, "--pooling", "men"], "did you mean 'mean'"),
        "missing recipe": (["train", folder / "no.yaml", "--backbone", llm, "--output", out], "no such file"),
        "a folder as recipe": (["train", folder, "--backbone", llm, "--output", out], "expected a recipe in YAML"),
        "unknown key": (["train", typo, "--backbone", llm, "--output", out], "did you mean 'learning_rate'?"),
        "study as sft": (["variants", "sft", recipe, "--backbone", llm, "--output", out], "unknown key"),
        "missing texts": (["hrsa", llm, llm, "--texts", folder / "no.jsonl", "--output", out], "no such file"),
        "empty texts": (["hrsa", llm, llm, "--texts", empty, "--output", out], "is empty; expected one JSON object"),
        "blank text": (["hrsa", llm, llm, "--texts", blank, "--output", out], "row 2: expected a text in the column"),
        "unknown model": (["hrsa", llm, "./nowhere", "--texts", texts(folder), "--output", out], "no such backbone"),
        "unknown task": (["study", study, "--output", out], "unknown task 'NoSuchTask'"),
    }


def test_wrong_input_is_one_line_and_leaves_nothing(tiny_llm: Path, tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name, (arguments, said) in wrong_inputs(tiny_llm, tmp_path).items():
        before = sorted(tmp_path.rglob("*"))
        with subtests.test(name):
            found = call(*arguments)
            assert found.exit_code == 2, found.output
            (line,) = [line for line in found.stderr.splitlines() if line.strip()]
            assert line.startswith("Error: ")
            assert said in line
            assert sorted(tmp_path.rglob("*")) == before
