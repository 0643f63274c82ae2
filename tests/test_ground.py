"""The ground floor: errors, files, recipes, problems."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from st_reasoning.config import parse, read_yaml, to_mapping, versions
from st_reasoning.errors import InputError, unknown_name
from st_reasoning.files import folder_hash, new_folder, read_json, read_jsonl, write_json, write_text
from st_reasoning.problems import gsm_problems, gsm_templates, held_out_templates


def test_importing_the_package_and_its_command_loads_neither_torch_nor_mteb() -> None:
    code = "import sys, st_reasoning.cli; print(sorted({'torch', 'mteb', 'transformers'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_an_unknown_name_is_answered_with_what_it_may_have_meant() -> None:
    assert "did you mean 'learning_rate'?" in str(unknown_name("key", "learning_rat", ["learning_rate", "seed"]))
    assert "expected one of a, b" in str(unknown_name("key", "zzz", ["b", "a"]))


# files


def test_a_new_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "out"

    def interrupted() -> None:
        with new_folder(target) as scratch:
            (scratch / "half").write_text("x")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with new_folder(target) as scratch:
        (scratch / "whole").write_text("x")
        assert not target.exists()
    assert [p.name for p in target.iterdir()] == ["whole"]
    assert target.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from st_reasoning.files import new_folder\n"
        "with new_folder(pathlib.Path(sys.argv[1])) as scratch:\n"
        "    (scratch / 'half').write_text('x'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False)
    assert [p.suffix for p in tmp_path.iterdir()] == [".partial"]
    with new_folder(tmp_path / "out") as scratch:
        (scratch / "whole").write_text("x")
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "whole"]


def test_a_folder_with_content_is_replaced_only_on_demand(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("x")
    with pytest.raises(InputError, match="not empty"), new_folder(tmp_path):
        pass
    with pytest.raises(InputError, match="is a file"), new_folder(tmp_path / "old"):
        pass
    with new_folder(tmp_path, overwrite=True) as scratch:
        (scratch / "new").write_text("y")
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ('{"a": 1}\n{"a"', "line 2: not JSON"),
        ("[1]", "line 1: expected a JSON object"),
    ],
)
def test_a_bad_jsonl_file_is_named_by_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=said):
        read_jsonl(path)


def test_a_folder_hash_sees_names_and_contents(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "x", "1")
    first = folder_hash(tmp_path)
    assert folder_hash(tmp_path) == first
    write_text(tmp_path / "a" / "x", "2")
    second = folder_hash(tmp_path)
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    assert len({first, second, folder_hash(tmp_path)}) == 3


# recipes


@dataclass(frozen=True)
class Inner:
    rank: int = 8


@dataclass(frozen=True)
class Outer:
    name: str
    inners: tuple[Inner, ...] = ()
    rate: float = 0.5


def test_a_recipe_is_built_and_written_back() -> None:
    recipe = parse(Outer, {"name": "a", "inners": [{"rank": 2}], "rate": 1}, where="r.yaml")
    assert recipe == Outer("a", (Inner(2),), 1.0)
    assert parse(Outer, to_mapping(recipe), where="again") == recipe


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"nam": "a"}, "unknown key 'nam' in r.yaml: did you mean 'name'"),
        ({"name": "a", "inners": [{"rnak": 1}]}, "unknown key 'rnak' in r.yaml, inners: did you mean 'rank'"),
        ({}, "r.yaml, name: field required"),
        ({"name": "a", "rate": "fast"}, "r.yaml, rate: .*got 'fast'"),
        ({"name": "a", "inners": [{"rank": "x"}]}, r"r.yaml, inners.0.rank: .*got 'x'"),
    ],
)
def test_a_wrong_recipe_says_where_and_what(value: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse(Outer, value, where="r.yaml")


@dataclass(frozen=True)
class Picky:
    name: str

    def __post_init__(self) -> None:
        if self.name == "Bad":
            raise InputError("the name 'Bad' is taken")


def test_what_a_recipe_itself_refuses_is_said_in_its_words() -> None:
    with pytest.raises(InputError) as caught:
        parse(Picky, {"name": "Bad"}, where="r.yaml")
    assert str(caught.value) == "r.yaml: the name 'Bad' is taken"


@pytest.mark.parametrize("content", ["a: [", "- 1\n- 2\n", ""])
def test_what_is_not_a_mapping_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"r\.yaml"):
        read_yaml(path)
    with pytest.raises(InputError, match="no such file"):
        read_yaml(tmp_path / "missing.yaml")


def test_versions_are_those_installed() -> None:
    import torch

    assert versions()["torch"] == torch.__version__
    assert json.dumps(versions())


# problems


def test_held_out_templates_are_fixed() -> None:
    # A change here would leak evaluated templates into training sets that were drawn before.
    assert sorted(held_out_templates()) == [0, 4, 9, 12, 14, 17, 33, 43, 45, 60, 62, 75, 78, 81, 82, 88, 89, 96]
    assert held_out_templates() < set(gsm_templates())


def test_problems_cover_templates_evenly_and_never_repeat() -> None:
    problems = gsm_problems(5, seed=3, templates={0, 4, 9})
    assert Counter(p.template for p in problems) == {0: 5, 4: 5, 9: 5}
    assert [p.template for p in problems[:3]] == [0, 4, 9]
    assert len({p.question for p in problems}) == len({p.solution for p in problems}) == 15
    assert problems == gsm_problems(5, seed=3, templates={0, 4, 9})
    assert {p.question for p in problems}.isdisjoint(p.question for p in gsm_problems(5, seed=4, templates={0, 4, 9}))


def test_solutions_end_in_the_answer_and_questions_carry_no_boilerplate() -> None:
    for problem in gsm_problems(1, seed=0, templates=set(gsm_templates())):
        assert problem.answer in problem.solution.rsplit("####", 1)[-1]
        assert "final answer" not in problem.question


def test_an_unknown_template_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown gsm_symbolic templates \[32\]"):
        gsm_problems(1, seed=0, templates={32})
