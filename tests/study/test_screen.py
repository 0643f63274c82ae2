"""Screening: what it scores, how it judges, and how its ranking is held against a study."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from st_reasoning.cli import main
from st_reasoning.config import write_resolved
from st_reasoning.errors import InputError
from st_reasoning.files import write_json
from st_reasoning.study import Pair, Reasoning, StudyRecipe
from st_reasoning.study.screen import Screening, agreement, backbones_of, final_scores, found_by, gain, judge, screen
from st_reasoning.training import DataSet, Generated, TrainingRecipe
from st_reasoning.variants import SFTRecipe
from tests.models import make_llama

TEMPLATES = [0, 0, 1, 1, 2, 2, 3, 3]


class Points:
    """Texts are numbers: a query lies where its document lies, moved by an error."""

    def __init__(self, error: float) -> None:
        self.error = error

    def encode_query(self, texts: list[str], **options: Any) -> torch.Tensor:
        return torch.tensor([[float(text) + self.error] for text in texts])

    def encode_document(self, texts: list[str], **options: Any) -> torch.Tensor:
        return torch.tensor([[float(text)] for text in texts])

    def similarity(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return -(a - b.T).abs()


def test_gains_are_those_of_ndcg_at_10() -> None:
    texts = [str(number) for number in range(20)]
    assert found_by(Points(0.0), texts, texts) == [1.0] * 20  # type: ignore[arg-type]
    # Each query lies nearest to the document after its own, which is second, and for the last one first.
    shifted = found_by(Points(0.6), texts, texts)  # type: ignore[arg-type]
    assert shifted == pytest.approx([1 / math.log2(3)] * 19 + [1.0])
    assert found_by(Points(0.0), ["0"] * 20, ["0"] * 20) == [0.0] * 20  # type: ignore[arg-type] # all tie
    assert [gain(9), gain(10)] == [pytest.approx(1 / math.log2(11)), 0.0]


def test_the_word_follows_the_interval() -> None:
    low = [0.1, 0.2, 0.1, 0.2, 0.1, 0.3, 0.2, 0.2]
    high = [value + 0.5 + 0.01 * number for number, value in enumerate(low)]
    assert judge([low], [high], TEMPLATES, reference=False)["word"] == "go"
    assert judge([high], [low], TEMPLATES, reference=False)["word"] == "no-go"
    mixed = judge([low], [[0.2, 0.1, 0.2, 0.1, 0.2, 0.2, 0.1, 0.3]], TEMPLATES, reference=False)
    assert mixed["word"] == "undecided"
    assert mixed["difference"] == pytest.approx(0.0, abs=1e-9)
    assert judge([low], [low], TEMPLATES, reference=True)["word"] == "reference"
    # Problems of a template move together: twice as many of them decide nothing more.
    twice = judge([low * 2], [high * 2], TEMPLATES * 2, reference=False)
    assert twice["interval"] == judge([low], [high], TEMPLATES, reference=False)["interval"]
    two_seeds = judge([low, low], [high, low], TEMPLATES, reference=False)
    assert two_seeds["word"] == "undecided"  # the seeds contradict each other


def screened(*entries: tuple[str, float, float | None]) -> dict[str, Any]:
    return {
        "backbones": [
            {
                "label": label, "short": short, "gain": -short, "untrained": 1.0, "probe": short,
                "hrsa": None if cka is None else {"linear_cka": {"value": cka}},
            }
            for label, short, cka in entries
        ]
    }  # fmt: skip


def test_agreement_is_of_ranks() -> None:
    found = agreement(screened(("a", 1, None), ("b", 2, 0.9), ("c", 30, 0.5)), {"a": 5, "b": 6, "c": 7, "d": 0})
    assert found["models"] == 3
    assert found["orders"]["short"]["kendall"] == found["orders"]["probe"]["spearman"] == 1.0
    assert found["orders"]["linear_cka"]["kendall"] == found["orders"]["gain"]["kendall"] == -1.0
    assert found["orders"]["untrained"] is None  # all are equal
    with pytest.raises(InputError, match="three backbones or more that the study has scored too, got 2"):
        agreement(screened(("a", 1, None), ("b", 2, 0.9)), {"a": 5, "b": 6})


def test_a_study_folder_tells_its_backbones_and_their_scores(tiny_llm: Path, tmp_path: Path) -> None:
    other = make_llama(tmp_path / "other", seed=1)
    recipe = StudyRecipe(
        pairs=(
            Pair("made", str(tiny_llm), Reasoning(sft=SFTRecipe())),
            Pair("named", str(tiny_llm), Reasoning(backbone=str(other))),
        ),
        training=TrainingRecipe(data=(DataSet("gsm", generated=Generated("gsm_symbolic", 8)),)),
        tasks=("GSMSymbolicSolutionRetrieval",),
        seeds=(0, 1),
    )
    write_resolved(tmp_path / "recipe.yaml", recipe)
    made = str(tmp_path / "backbones" / "made")
    assert backbones_of(tmp_path) == {"tiny-llama": str(tiny_llm), "made": made, "other": str(other)}
    with pytest.raises(InputError, match=r"study\.json"):
        final_scores(tmp_path)
    tasks = [
        {"task": "a", "seeds": [{"base": None, "reasoning": 50.0}, {"base": 20.0, "reasoning": 70.0}]},
        {"task": "b", "seeds": [{"base": None, "reasoning": 10.0}, {"base": 40.0, "reasoning": 10.0}]},
    ]
    pair = {"labels": {"base": "tiny-llama", "reasoning": "made"}, "tasks": tasks}
    write_json(tmp_path / "study.json", {"pairs": [pair]})
    assert final_scores(tmp_path) == {"tiny-llama": pytest.approx(30.0), "made": pytest.approx(35.0)}


def test_two_models_are_screened_by_one_command(tiny_llm: Path, tmp_path: Path) -> None:
    other = make_llama(tmp_path / "other", seed=1)
    output = tmp_path / "screen.json"
    command = ["screen", str(tiny_llm), str(other), "--steps", "1", "--output", str(output), "--json"]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert json.loads(output.read_text()) == found
    assert sorted(entry["word"] == "reference" for entry in found["backbones"]) == [False, True]
    shorts = [entry["short"] for entry in found["backbones"]]
    assert shorts == sorted(shorts, reverse=True)
    (compared,) = (entry for entry in found["backbones"] if entry["hrsa"])
    assert compared["label"] == "other"
    low, high = compared["interval"]
    assert low <= compared["difference"] <= high
    assert 0 <= compared["hrsa"]["linear_cka"]["value"] < 1
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 2
    assert "is there already" in again.output


def test_screening_needs_two() -> None:
    with pytest.raises(InputError, match="two different backbones or more, got 1"):
        screen(("a", "a"), Screening())
    with pytest.raises(InputError, match="at least 1 step"):
        Screening(steps=0)
