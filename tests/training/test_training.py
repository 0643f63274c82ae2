"""Training: what reaches the model, and that the same seed gives both arms the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from st_reasoning.backbone import convert, read_record
from st_reasoning.errors import InputError
from st_reasoning.problems import gsm_templates, held_out_templates
from st_reasoning.training import DataSet, Generated, TrainingRecipe, load_data, train
from tests.models import make_llama

INSTRUCTION = "Given a math word problem, retrieve its worked solution"


def recipe(**changes: Any) -> TrainingRecipe:
    data = DataSet("gsm", INSTRUCTION, generated=Generated("gsm_symbolic", 24))
    defaults: dict[str, Any] = {
        "data": (data,), "hard_negatives": 1, "batch_size": 8, "max_seq_length": 64, "learning_rate": 1e-3,
    }  # fmt: skip
    return TrainingRecipe(**{**defaults, **changes})


def test_defaults_are_the_papers() -> None:
    """STUDY.md, embedding recipe (arXiv 2601.21192, Tables 5 to 7)."""
    paper = TrainingRecipe(data=recipe().data)
    assert (paper.attention, paper.pooling, paper.temperature, paper.hard_negatives) == (
        "bidirectional",
        "mean",
        0.02,
        3,
    )
    assert (paper.batch_size, paper.learning_rate, paper.schedule) == (2048, 2e-5, "cosine")
    assert (paper.warmup, paper.weight_decay, paper.max_seq_length, paper.epochs) == (0.03, 0.05, 512, 1)


def test_examples_stay_off_held_out_templates_and_negatives_solve_siblings() -> None:
    from st_reasoning.problems import gsm_problems

    rows = load_data(recipe(hard_negatives=2)).datasets["gsm"]
    known = {p.solution: p for p in gsm_problems(3, seed=0, templates=set(gsm_templates()) - held_out_templates())}
    for row in rows:
        positive = known[row["positive"]]
        negatives = [known[row["negative_1"]], known[row["negative_2"]]]
        assert positive.question == row["query"]
        assert {n.template for n in negatives} == {positive.template}
        assert len({positive.solution, *(n.solution for n in negatives)}) == 3
        assert positive.template not in held_out_templates()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 0}, "batch_size must be positive"),
        ({"pooling": "lst"}, "unknown pooling 'lst': did you mean 'last'"),
        ({"instruction_template": "Query:"}, "has no {instruction}"),
        ({"data": ()}, "has no data"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_loaded(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        recipe(**changes)


def batches_of(model: SentenceTransformer, seed: int) -> list[dict[str, Any]]:
    trainer = recipe().trainer(model, seed=seed)
    return list(trainer.get_train_dataloader())


def test_queries_carry_the_instruction_documents_do_not_and_it_is_not_pooled(tiny_llm: Path) -> None:
    model = convert(str(tiny_llm))
    prompt = model.st_reasoning.instruction_template.replace("{instruction}", INSTRUCTION)
    ids = model.tokenizer(prompt)["input_ids"]
    batch = batches_of(model, 0)[0]
    assert batch["query_input_ids"][:, : len(ids)].tolist() == [ids] * 8
    assert batch["query_prompt_length"].tolist() == [len(ids)] * 8
    for column in ("positive", "negative_1"):
        assert not any(row[: len(ids)] == ids for row in batch[f"{column}_input_ids"].tolist())
        assert f"{column}_prompt_length" not in batch


def test_one_seed_shows_both_arms_the_same_in_the_same_order(tiny_llm: Path, tmp_path: Path) -> None:
    base = batches_of(convert(str(tiny_llm)), 3)
    reasoning = batches_of(convert(str(make_llama(tmp_path / "other", seed=1))), 3)
    other_seed = batches_of(convert(str(tiny_llm)), 4)
    order = [b["query_input_ids"].tolist() for b in base]
    assert order == [b["query_input_ids"].tolist() for b in reasoning]
    assert order != [b["query_input_ids"].tolist() for b in other_seed]


def test_the_loss_is_infonce_at_the_recipes_temperature(tiny_llm: Path) -> None:
    """Against the formula written out: -log softmax over positives and negatives of cosine / temperature."""
    model = convert(str(tiny_llm)).eval()
    trainer = recipe(temperature=0.05).trainer(model, seed=0)
    batch = next(iter(trainer.get_train_dataloader()))
    features, labels = trainer.collect_features(batch)
    with torch.inference_mode():
        loss = trainer.loss(features, labels)
        query, positive, negative = (model(dict(f))["sentence_embedding"].double() for f in features)
    logits = query @ torch.cat([positive, negative]).T / 0.05
    expected = -(logits.diagonal() - logits.logsumexp(1)).mean()
    # float32 cosines, rounded at 6e-8, times 1 / temperature = 20, summed over 16 terms.
    assert float(loss) == pytest.approx(float(expected), abs=1e-4)


def test_training_learns_is_recorded_and_leaves_a_plain_folder(tiny_llm: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    facts = train(recipe(epochs=8.0), str(tiny_llm), out, seed=5)
    assert np.mean(facts["losses"][-3:]) < np.mean(facts["losses"][:3])
    assert facts["steps"] == 24
    assert read_record(out)["training"]["data"] == facts["data"]
    trained, untrained = SentenceTransformer(str(out)), convert(str(tiny_llm))
    assert trained.prompts["query"].startswith(f"Instruction: {INSTRUCTION}")
    assert not np.allclose(trained.encode(["three apples"]), untrained.encode(["three apples"]), atol=1e-3)
    again = train(recipe(epochs=8.0), str(tiny_llm), tmp_path / "again", seed=5)
    assert again["losses"] == facts["losses"]


def test_the_training_part_of_a_study_recipe_is_a_training_recipe() -> None:
    shipped = TrainingRecipe.read(Path("recipes/smollm2.yaml"))
    assert shipped.data[0].generated is not None
    assert shipped.temperature == 0.02
