"""What a study recipe says, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from st_reasoning.config import write_resolved
from st_reasoning.errors import InputError
from st_reasoning.study import Corpus, Pair, Reasoning, StudyRecipe
from st_reasoning.study.plan import keys
from st_reasoning.study.run import plan_study
from st_reasoning.study.tasks import find_tasks, names_by_benchmark
from st_reasoning.training import DataSet, Generated, TrainingRecipe
from st_reasoning.variants import RLVRRecipe, SFTRecipe

TASK = "GSMSymbolicSolutionRetrieval"
GENERATED = "ReasoningEmbedding(generated, v1)"
TRAINING = TrainingRecipe(data=(DataSet("gsm", "Find.", generated=Generated("gsm_symbolic", 8)),))


def study(base: str, reasoning: Reasoning, **changes: object) -> StudyRecipe:
    values = {"tasks": (TASK,), **changes}
    return StudyRecipe(pairs=(Pair("pair", base, reasoning),), training=TRAINING, **values)  # type: ignore[arg-type]


def test_what_was_resolved_reads_back_as_the_same_recipe(tmp_path: Path) -> None:
    pairs = (
        Pair("a", "org/base", Reasoning(backbone="org/code"), method="code", waive=("chat_template",)),
        Pair("b", "org/base", Reasoning(sft=SFTRecipe(families={"gsm_symbolic": {"difficulty": 0.5}}))),
        Pair("c", "org/base", Reasoning(rlvr=RLVRRecipe(steps=3))),
        Pair("d", "org/base", Reasoning(backbone="org/other")),
    )
    assert [pair.method for pair in pairs] == ["code", "SFT", "RLVR", "not stated"]
    recipe = StudyRecipe(
        pairs, TRAINING, benchmarks=(GENERATED,), hrsa=Corpus(estimator="exact", k=(3, 4), max_tokens=9)
    )
    write_resolved(tmp_path / "recipe.yaml", recipe)
    assert StudyRecipe.read(tmp_path / "recipe.yaml") == recipe
    assert TrainingRecipe.read(tmp_path / "recipe.yaml") == TRAINING


def test_a_recipe_needs_something_to_score() -> None:
    with pytest.raises(InputError, match="no tasks and no benchmarks; expected at least one"):
        study("org/base", Reasoning(backbone="org/other"), tasks=())
    with pytest.raises(InputError, match="names one of its benchmarks twice"):
        study("org/base", Reasoning(backbone="org/other"), benchmarks=(GENERATED, GENERATED))
    with pytest.raises(InputError, match="expected exactly one of 'backbone', 'sft' and 'rlvr'"):
        Reasoning(sft=SFTRecipe(), rlvr=RLVRRecipe())
    with pytest.raises(InputError, match="k must be one or more numbers of at least 1"):
        Corpus(k=())
    with pytest.raises(InputError, match="max_tokens must be at least 1, got 0"):
        Corpus(max_tokens=0)


def test_the_tasks_of_a_benchmark_are_asked_in_its_way() -> None:
    generated = names_by_benchmark((GENERATED,))[GENERATED]
    assert len(generated) == 10
    found = find_tasks((TASK, "ReasoningGymFamilyClustering"), (GENERATED,))
    assert tuple(found) == generated  # both are among them
    paper = find_tasks(("BrightBiologyRetrieval", TASK), ("ReasoningStudy(paper)",))
    assert list(paper)[-1] == TASK
    import mteb

    (plain,) = mteb.get_tasks(tasks=["BrightBiologyRetrieval"])
    assert paper["BrightBiologyRetrieval"].metadata.prompt != plain.metadata.prompt
    with pytest.raises(InputError, match=r"ReasoningStudy\(paper\) and BRIGHT\(v1.1\) ask the task .* different ways"):
        find_tasks((), ("ReasoningStudy(paper)", "BRIGHT(v1.1)"))
    with pytest.raises(InputError, match=r"unknown benchmark 'ReasoningEmbeding\(generated, v1\)': did you mean"):
        find_tasks((), ("ReasoningEmbeding(generated, v1)",))


def test_settings_of_the_comparison_decide_the_comparison_alone(tiny_llm: Path, tmp_path: Path) -> None:
    made = Reasoning(rlvr=RLVRRecipe(steps=1, problems=4))
    recipes = [
        study(str(tiny_llm), made, seeds=(0,), hrsa=hrsa) for hrsa in (Corpus(), Corpus(k=(3,), estimator="exact"))
    ]
    before, after = (keys(plan_study(recipe, tmp_path / "out")) for recipe in recipes)
    assert {name for name in before if before[name] != after[name]} == {"hrsa/pair/backbones", "hrsa/pair/seed-0"}
    assert "rlvr/pair" in before


def test_a_benchmark_changes_what_is_evaluated_alone(tiny_llm: Path, tmp_path: Path) -> None:
    made = Reasoning(sft=SFTRecipe(examples=8))
    recipes = [study(str(tiny_llm), made, seeds=(0,), benchmarks=names) for names in ((), (GENERATED,))]
    before, after = (keys(plan_study(recipe, tmp_path / "out")) for recipe in recipes)
    assert {name.split("/")[0] for name in before if before[name] != after[name]} == {"evaluate"}


def test_an_arm_that_is_made_has_its_name_to_itself(tiny_llm: Path, tmp_path: Path) -> None:
    pairs = (Pair("tiny-llama", str(tiny_llm), Reasoning(sft=SFTRecipe(examples=8))),)
    with pytest.raises(InputError, match="the reasoning arm of the pair tiny-llama"):
        plan_study(StudyRecipe(pairs, TRAINING, tasks=(TASK,)), tmp_path / "out")


def test_a_curve_needs_checkpoints(tiny_llm: Path, tmp_path: Path) -> None:
    made = Reasoning(sft=SFTRecipe(examples=8))
    with pytest.raises(InputError, match="the curve is drawn from checkpoints; give the training save_every"):
        study(str(tiny_llm), made, hrsa=Corpus(curve=True))
