"""The evaluator in a real training, against the measures on states taken by themselves."""

from __future__ import annotations

import copy
import json

import datasets
import pytest
import torch

from st_reasoning import HRSAEvaluator
from st_reasoning.backbone import convert
from st_reasoning.errors import InputError
from st_reasoning.files import read_jsonl, write_jsonl
from st_reasoning.hrsa import measures
from st_reasoning.hrsa.forward import lockstep
from st_reasoning.training import DataSet, TrainingRecipe
from tests.hrsa.tokenizers import TEXTS, bpe, reader, wordpiece

NAMES = ("linear_cka", "knn_overlap", "dimension_correlation", "inverse_row_entropy")


def final(a, b, texts):
    chunks = sorted(lockstep(a, b, texts, batch_tokens=1, progress=False), key=lambda chunk: int(chunk.texts[0]))
    return tuple(torch.cat(parts) for parts in zip(*((c.a[-1], c.b[-1], c.sentences) for c in chunks), strict=True))


def test_the_curve_of_a_training_is_one_argument_away(tiny_llm, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-datasets")
    rows = [{"query": f"query {i}", "positive": f"answer {i}", "negative_1": f"wrong {i}"} for i in range(12)]
    write_jsonl(tmp_path / "data.jsonl", rows)
    recipe = TrainingRecipe(
        data=(DataSet("one", "Find it", path=str(tmp_path / "data.jsonl")),),
        hard_negatives=1, batch_size=4, max_seq_length=64, learning_rate=1e-2, warmup=0,
    )  # fmt: skip
    model = convert(str(tiny_llm))
    before = copy.deepcopy(model)
    evaluator = HRSAEvaluator(model, TEXTS)
    assert evaluator.primary_metric == "hrsa_linear_cka"
    assert evaluator(model) == pytest.approx({f"hrsa_{name}": 1 for name in NAMES}, abs=1e-6)
    trainer = recipe.trainer(
        model, seed=0, evaluator=evaluator, eval_strategy="steps", eval_steps=1, output_dir=str(tmp_path / "out")
    )
    trainer.train()
    lines = read_jsonl(next((tmp_path / "out").rglob("hrsa_results.jsonl")))
    assert [line["steps"] for line in lines] == [0, 1, 2, 3]
    assert [lines[0]["epoch"], lines[-1]["epoch"]] == [0, 1]
    assert [lines[0][name] for name in NAMES] == pytest.approx([1] * 4, abs=1e-6)
    # The reference stayed what it was: the curve goes down, and ends where two models compared afresh do.
    assert 0.999 > lines[1]["linear_cka"] > lines[-1]["linear_cka"]
    x, y, sentences = final(before, model, TEXTS)
    fitted = measures.procrustes(x, y, groups=sentences)
    assert fitted.determined
    expected = {
        "linear_cka": measures.linear_cka(x, y, estimator="debiased"),
        "knn_overlap": measures.knn_overlap(x, y, k=10)[10],
        "dimension_correlation": measures.dimension_correlation(x, y),
        "inverse_row_entropy": fitted.inverse_row_entropy,
    }
    # One text at a time rounds otherwise than batches; a neighbour may change places.
    assert {name: lines[-1][name] for name in NAMES} == pytest.approx(expected, abs=2e-3)
    assert lines[-1]["tokens"] == len(x)
    assert lines[-1]["knn_overlap_chance"] == measures.knn_overlap_chance(len(x), 10)
    logged = [entry["eval_hrsa_linear_cka"] for entry in trainer.state.log_history if "eval_hrsa_linear_cka" in entry]
    assert logged == [line["linear_cka"] for line in lines]


def test_sample_is_bounded_and_the_model_is_left_as_it_was(tmp_path):
    model = reader(tmp_path, bpe(600))
    counts = [len(ids) for ids in model.tokenizer(TEXTS)["input_ids"]]
    limit = counts[0] + counts[1] + counts[2] - 1
    evaluator = HRSAEvaluator(model, TEXTS, sample_tokens=limit, k=3, name="")
    assert evaluator.texts == TEXTS[:2]
    assert evaluator.tokens == counts[0] + counts[1]
    assert sum(state.untyped_storage().nbytes() for state in evaluator._states) == evaluator.tokens * 32 * 4
    model.train()
    found = evaluator(model, str(tmp_path / "out"), epoch=0.5, steps=7)
    assert model[0].model.training
    assert found["linear_cka"] == pytest.approx(1, abs=1e-6)
    assert evaluator.primary_metric == "linear_cka"
    evaluator(model, str(tmp_path / "out"))
    lines = [json.loads(line) for line in (tmp_path / "out" / "hrsa_results.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["steps"]) for line in lines] == [(0.5, 7), (-1, -1)]


def test_models_of_another_tokenizer_width_and_limit(tmp_path):
    reference = reader(tmp_path / "a", bpe(600))
    other = reader(tmp_path / "b", wordpiece(), width=16, layers=3)
    evaluator = HRSAEvaluator(reference, TEXTS, k=3)
    found = evaluator(other, tmp_path)
    assert found.keys() == {"hrsa_linear_cka", "hrsa_knn_overlap"}
    x, y, _ = final(reference, other, TEXTS)
    assert found["hrsa_linear_cka"] == pytest.approx(measures.linear_cka(x, y, estimator="debiased"), abs=1e-4)
    assert found["hrsa_linear_cka"] < 0.9
    # Of a model that reads less, the texts that it reads as a whole are compared.
    short = copy.deepcopy(reference)
    short.max_seq_length = 20
    counts = [len(ids) for ids in reference.tokenizer(TEXTS)["input_ids"]]
    evaluator(short, tmp_path)
    line = read_jsonl(tmp_path / "hrsa_results.jsonl")[-1]
    assert line["tokens"] == sum(count for count in counts if count <= 20) < sum(counts)
    short.max_seq_length = 1
    with pytest.raises(InputError, match="model: expected more than 4 tokens in common with the reference"):
        evaluator(short)


def test_the_cache_serves_the_reference(tmp_path):
    reference = reader(tmp_path / "a", bpe(300))
    passes = []
    reference[0].model.register_forward_pre_hook(lambda *_: passes.append(1))
    first = HRSAEvaluator(reference, TEXTS, cache=tmp_path / "cache")
    assert len(passes) == 1
    second = HRSAEvaluator(reference, TEXTS, cache=tmp_path / "cache")
    assert len(passes) == 1
    assert all(torch.equal(one, other) for one, other in zip(first._states, second._states, strict=True))


def test_wrong_input_is_refused(tmp_path):
    model = reader(tmp_path, bpe(300))
    with pytest.raises(InputError, match="k: expected at least 1, got 0"):
        HRSAEvaluator(model, TEXTS, k=0)
    with pytest.raises(
        InputError, match=r"texts: expected first texts of more than 50 tokens, .* got 1 texts of 1 tok"
    ):
        HRSAEvaluator(model, ["x"], k=50)
