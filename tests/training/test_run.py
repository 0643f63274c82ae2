"""The doors of a recipe: what each shows the model, and what a training leaves behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM

from st_reasoning.attention import probe_attention
from st_reasoning.backbone import convert, read_record
from st_reasoning.errors import InputError
from st_reasoning.files import write_jsonl
from st_reasoning.training import DataSet, HeldOut, LoRA, TrainingRecipe, load_data, merge_lora, train
from st_reasoning.training.batches import plan_epoch


@pytest.fixture
def two_sets(tmp_path: Path) -> tuple[DataSet, ...]:
    """Two data sets of 9 and 6 examples; in the second, rows say their own instruction."""
    for name, count in (("first", 9), ("second", 6)):
        write_jsonl(
            tmp_path / f"{name}.jsonl",
            [
                {"query": f"{name} query {i}", "positive": f"{name} answer {i}", "negative_1": f"{name} wrong {i}"}
                | ({"instruction": f"Find number {i % 2}"} if name == "second" else {})
                for i in range(count)
            ],
        )
    return tuple(DataSet(name, "Find it", path=str(tmp_path / f"{name}.jsonl")) for name in ("first", "second"))


def recipe(data: tuple[DataSet, ...], **changes: Any) -> TrainingRecipe:
    defaults: dict[str, Any] = {
        "data": data, "hard_negatives": 1, "batch_size": 4, "max_seq_length": 64, "learning_rate": 1e-3, "warmup": 0,
    }  # fmt: skip
    return TrainingRecipe(**{**defaults, **changes})


def test_each_query_carries_its_own_instruction_and_pools_without_it(
    tiny_llm: Path, two_sets: tuple[DataSet, ...]
) -> None:
    """In mixed batches too; against one text at a time through encode()."""
    model = convert(str(tiny_llm)).eval()
    settings = recipe(two_sets)
    trainer = settings.trainer(model, seed=0)
    examples = [row for dataset in load_data(settings).datasets.values() for row in dataset]
    plan = plan_epoch([9, 6], batch_size=4, devices=1, seed=0, epoch=0)
    template = model.st_reasoning.instruction_template
    lengths = set()
    for step, batch in zip(plan, trainer.get_train_dataloader(), strict=True):
        rows = [examples[i] for i in step.ravel()]
        prompts = [template.replace("{instruction}", row["instruction"]) for row in rows]
        features, _ = trainer.collect_features(batch)
        assert model.tokenizer.batch_decode(features[0]["input_ids"], skip_special_tokens=True) == [
            prompt + row["query"] for prompt, row in zip(prompts, rows, strict=True)
        ]
        assert features[0]["prompt_length"].tolist() == [len(model.tokenizer(p)["input_ids"]) for p in prompts]
        lengths.add(len({*prompts}))
        with torch.inference_mode():
            loss = trainer.loss([dict(f) for f in features], None)
        one = [torch.tensor(model.encode([r["query"]], prompt=p)[0]) for r, p in zip(rows, prompts, strict=True)]
        documents = torch.tensor(model.encode([r[c] for c in ("positive", "negative_1") for r in rows]))
        logits = torch.stack(one) @ documents.T / 0.02
        # float32 cosines times 1 / temperature = 50
        assert float(loss) == pytest.approx(float(logits.logsumexp(1).mean() - logits.diagonal().mean()), abs=2e-4)
    assert max(lengths) > 1, "no batch mixed instructions"


def test_the_order_is_the_one_that_was_hashed(tiny_llm: Path, two_sets: tuple[DataSet, ...]) -> None:
    """Over two epochs, as the loss sees the batches; the hash is made of the same plan."""
    model = convert(str(tiny_llm))
    settings = recipe(two_sets, epochs=2.0)
    trainer = settings.trainer(model, seed=7)
    seen: list[list[str]] = []
    forward = trainer.loss.forward

    def watched(features: Any, labels: Any = None) -> torch.Tensor:
        features = list(features)
        seen.append(model.tokenizer.batch_decode(features[1]["input_ids"], skip_special_tokens=True))
        return forward(features, labels)

    trainer.loss.forward = watched
    trainer.train()
    positives = [row["positive"] for dataset in load_data(settings).datasets.values() for row in dataset]
    planned = [
        [positives[i] for i in step.ravel()]
        for epoch in range(2)
        for step in plan_epoch([9, 6], batch_size=4, devices=1, seed=7, epoch=epoch)
    ]
    assert seen == planned


def test_both_arms_record_the_same_order_and_another_seed_another(
    tiny_llm: Path, two_sets: tuple[DataSet, ...], tmp_path: Path
) -> None:
    from tests.models import make_llama

    other = make_llama(tmp_path / "other", seed=1)
    orders = [
        train(recipe(two_sets, max_steps=1), str(backbone), tmp_path / f"out{i}", seed=seed)["data"]["order"]
        for i, (backbone, seed) in enumerate([(tiny_llm, 0), (other, 0), (tiny_llm, 1)])
    ]
    assert orders[0] == orders[1] != orders[2]


def test_held_out_examples_are_searched_and_never_trained_on(
    tiny_llm: Path, two_sets: tuple[DataSet, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = recipe(two_sets, held_out=HeldOut(2, every=1))
    facts = train(settings, str(tiny_llm), tmp_path / "out")
    assert facts["steps"] == 3
    assert [entry["step"] for entry in facts["scores"]] == [0, 1, 2, 3]
    assert all(0 <= entry["first_cosine_ndcg@10"] <= 1 for entry in facts["scores"])
    shown = capsys.readouterr().err
    for said in ("step 2: ", "second_cosine_ndcg@10", "examples/s"):
        assert said in shown
    with pytest.raises(InputError, match="'second' has 6 examples, of which 6 were to be held out"):
        train(recipe(two_sets, held_out=HeldOut(6, every=1)), str(tiny_llm), tmp_path / "none")


def test_lora_trains_little_and_is_merged_into_a_plain_bidirectional_folder(
    tiny_llm: Path, two_sets: tuple[DataSet, ...], tmp_path: Path
) -> None:
    settings = recipe(two_sets, lora=LoRA(rank=4, alpha=8, dropout=0.0), epochs=3.0, learning_rate=1e-2)
    model = convert(str(tiny_llm))
    trainer = settings.trainer(model, seed=0)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert 0 < trained < 0.5 * sum(p.numel() for p in model.parameters())
    trainer.train()
    before = model.encode(["three apples"])
    merge_lora(model)
    np.testing.assert_allclose(model.encode(["three apples"]), before, atol=1e-5)

    facts = train(settings, str(tiny_llm), tmp_path / "out")
    assert facts["losses"][-1] < facts["losses"][0]
    copy = SentenceTransformer(str(tmp_path / "out"))
    assert probe_attention(copy).attention == "bidirectional"
    assert not list((tmp_path / "out").glob("adapter*"))
    # The same recipe and seed through either door.
    np.testing.assert_allclose(copy.encode(["three apples"]), before, atol=1e-5)


def test_matryoshka_trains_the_first_dimensions(tiny_llm: Path, two_sets: tuple[DataSet, ...], tmp_path: Path) -> None:
    facts = train(recipe(two_sets, matryoshka=(8, 16), max_steps=2), str(tiny_llm), tmp_path / "out")
    plain = train(recipe(two_sets, max_steps=2), str(tiny_llm), tmp_path / "plain")
    # A sum over three dimensions is larger than one of its terms.
    assert facts["losses"][0] > plain["losses"][0]
    with pytest.raises(InputError, match="expected dimensions between 1 and 31, got 32"):
        train(recipe(two_sets, matryoshka=(32,)), str(tiny_llm), tmp_path / "none")


def test_evaluation_may_read_longer_texts_than_training(
    tiny_llm: Path, two_sets: tuple[DataSet, ...], tmp_path: Path
) -> None:
    settings = recipe(two_sets, max_seq_length=3, evaluation_max_seq_length=128, max_steps=1)
    batch = next(iter(settings.trainer(convert(str(tiny_llm)), seed=0).get_train_dataloader()))
    assert batch["positive_input_ids"].shape[1] == 3
    train(settings, str(tiny_llm), tmp_path / "out")
    assert SentenceTransformer(str(tmp_path / "out")).max_seq_length == 128
    assert read_record(tmp_path / "out")["training"]["recipe"]["max_seq_length"] == 3


def test_fit_trains_by_the_recipe_too(
    tiny_llm: Path, two_sets: tuple[DataSet, ...], monkeypatch: Any, tmp_path: Path
) -> None:
    """The older door: same loss, with the prompt left out of pooling although fit knows no prompts."""
    monkeypatch.chdir(tmp_path)  # fit makes a folder "checkpoints" where it stands
    settings = recipe(two_sets[:1], epochs=6.0)
    model = convert(str(tiny_llm))
    arguments = settings.fit_arguments(model)
    loss = arguments["train_objectives"][0][1]
    losses, lengths = [], []
    forward, pack = loss.forward, loss.calculate_loss

    def watched(features: Any, labels: Any = None) -> torch.Tensor:
        found = forward(features, labels)
        losses.append(float(found.detach()))
        return found

    def pooled(reps: Any, packed: Any = None, **options: Any) -> torch.Tensor:
        lengths.extend(
            int(torch.as_tensor(f["prompt_length"]).flatten()[0]) for f in packed.mini_batches if "prompt_length" in f
        )
        return pack(reps, packed, **options)

    loss.forward, loss.calculate_loss = watched, pooled
    model.fit(**arguments, show_progress_bar=False)
    assert len(losses) == 18
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    prompt = model.st_reasoning.instruction_template.replace("{instruction}", "Find it")
    assert set(lengths) - {0} == {len(model.tokenizer(prompt)["input_ids"])}
    with pytest.raises(InputError, match=r"fit cannot do 'lora'; use recipe\.trainer"):
        recipe(two_sets, lora=LoRA()).fit_arguments(model)


def test_trackers_are_asked_for_before_anything_is_loaded(
    tiny_llm: Path, two_sets: tuple[DataSet, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(two_sets, max_steps=1)
    with pytest.raises(InputError, match="unknown tracker 'tensorbord' in report_to: did you mean 'tensorboard'"):
        train(settings, "./nowhere", tmp_path / "out", report_to=["tensorbord"])
    monkeypatch.setattr("transformers.integrations.integration_utils.get_available_reporting_integrations", list)
    with pytest.raises(InputError, match="reporting to tensorboard needs its package: pip install tensorboard"):
        train(settings, "./nowhere", tmp_path / "out", report_to=["tensorboard"])


@pytest.mark.parametrize("lora", [None, LoRA(rank=4, alpha=8, dropout=0.0)], ids=["full", "lora"])
def test_a_hybrid_objective_is_one_key_of_the_recipe(
    tiny_llm: Path, two_sets: tuple[DataSet, ...], tmp_path: Path, lora: LoRA | None
) -> None:
    """The head is the backbone's own here: the embedder has lost it, and the recipe finds it again."""
    settings = recipe(two_sets, next_token_weight=0.5, epochs=4.0, learning_rate=1e-2 if lora else 2e-3, lora=lora)
    facts = train(settings, str(tiny_llm), tmp_path / "out")
    contrastive, next_token = facts["parts"]["contrastive"], facts["parts"]["next_token"]
    assert len(contrastive) == len(next_token) == facts["steps"]
    np.testing.assert_allclose(facts["losses"], np.add(contrastive, next_token), atol=2e-3)  # logs are rounded
    assert np.mean(next_token[-4:]) < np.mean(next_token[:4])
    assert probe_attention(SentenceTransformer(str(tmp_path / "out"))).attention == "bidirectional"


def test_only_a_mixture_of_experts_looks_for_weights_without_a_gradient(
    tiny_llm: Path, two_sets: tuple[DataSet, ...], tmp_path: Path
) -> None:
    from tests.backbone.architectures import tiny_config
    from tests.models import make_tokenizer

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny_config("mixtral")).save_pretrained(tmp_path / "mixtral")
    make_tokenizer(tmp_path / "mixtral")
    for backbone, expected in ((tiny_llm, False), (tmp_path / "mixtral", True)):
        trainer = recipe(two_sets).trainer(convert(str(backbone)), seed=0)
        assert trainer.args.ddp_find_unused_parameters is expected


def test_tensorboard_logs_beside_the_output(tiny_llm: Path, two_sets: tuple[DataSet, ...], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs `pip install tensorboard`")
    train(recipe(two_sets, max_steps=1), str(tiny_llm), tmp_path / "out", report_to=["tensorboard"])
    assert list((tmp_path / "out.logs").glob("events*"))
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ
