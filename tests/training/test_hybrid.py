"""The hybrid objective: its causal half against the language model itself, its gradient against the sum of both."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
from torch import Tensor, nn

from st_reasoning.attention import probe_attention
from st_reasoning.backbone import convert, load_causal_lm
from st_reasoning.errors import ConversionError, InputError
from st_reasoning.training.hybrid import HybridLoss, causally
from st_reasoning.training.loss import PackedInfoNCE
from tests.models import make_tokenizer
from tests.training.test_loss import PROMPT, texts

QUESTIONS, SOLUTIONS = texts(6, 0), texts(6, 1)


@pytest.fixture(scope="module")
def tied_llm(tiny_llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny llama with one matrix for input and output, as small models have."""
    from transformers import AutoConfig, LlamaForCausalLM

    config = AutoConfig.from_pretrained(tiny_llm)
    config.tie_word_embeddings = True
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("llm") / "tied"
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def columns(model: SentenceTransformer) -> list[dict[str, Any]]:
    return [dict(model.preprocess(QUESTIONS, prompt=PROMPT)), dict(model.preprocess(SOLUTIONS))]


def language_model(folder: Path) -> tuple[float, dict[str, Tensor], nn.Module]:
    """Loss and gradients of the causal LM on the same texts, one padded batch, labels on the solutions."""
    lm, tokenizer = load_causal_lm(str(folder))
    rows, labels = [], []
    for question, solution in zip(QUESTIONS, SOLUTIONS, strict=True):
        context, target = tokenizer(PROMPT + question + "\n")["input_ids"], tokenizer(solution)["input_ids"]
        rows.append(torch.tensor(context + target))
        labels.append(torch.tensor([-100] * len(context) + target))
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    wanted = nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
    loss = lm(input_ids=ids, attention_mask=mask, labels=wanted).loss
    loss.backward()
    return float(loss.detach()), {n: p.grad for n, p in lm.model.named_parameters() if p.grad is not None}, lm


def gradients(model: SentenceTransformer) -> dict[str, Tensor]:
    return {n: p.grad for n, p in model[0].model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_it_is_the_language_models_loss_and_gradient_beside_the_contrastive(
    kind: str, checkpointing: bool, tiny_llm: Path, tied_llm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tied_llm if kind == "tied" else tiny_llm
    expected, causal, lm = language_model(folder)
    head = None if kind == "tied" else lm.get_output_embeddings().weight  # type: ignore[operator]
    model = convert(str(folder)).train()
    plain = copy.deepcopy(model)
    contrastive = MultipleNegativesRankingLoss(plain, scale=20.0)(columns(plain), None)
    contrastive.backward()
    alone = gradients(plain)
    if checkpointing:
        model[0].model.activation_checkpointing_enable()
        assert model[0].model.is_activation_checkpointing
    # A few rows of logits at a time; 60 tokens: one or two texts.
    monkeypatch.setattr("st_reasoning.training.hybrid.LOGITS", 600 * 7)
    for budget in (60, None):
        model.zero_grad()
        inner = PackedInfoNCE(model, temperature=0.05, mini_batch_tokens=budget)
        parts = HybridLoss(model, inner, weight=0.3, head=head, mini_batch_tokens=budget)(columns(model))
        assert float(parts["contrastive"].detach()) == pytest.approx(float(contrastive.detach()), rel=1e-5)
        assert float(parts["next_token"]) == pytest.approx(0.3 * expected, rel=1e-5)
        # Gradient accumulation divides the sum.
        (sum(parts.values()) / 4).backward()
        found = gradients(model)
        assert found.keys() == alone.keys() == causal.keys()
        for name, gradient in found.items():
            both = (alone[name] + 0.3 * causal[name]) / 4
            assert float((gradient - both).norm() / both.norm()) < 2e-5, name
    # The embedder is what it was.
    assert probe_attention(model).attention == "bidirectional"


def test_without_gradients_only_the_values_are_computed(tied_llm: Path) -> None:
    model = convert(str(tied_llm))
    loss = HybridLoss(model, PackedInfoNCE(model))
    with torch.no_grad():
        parts = loss(columns(model))
    assert float(parts["next_token"]) == pytest.approx(language_model(tied_llm)[0], rel=1e-5)
    assert all(p.grad is None for p in model.parameters())


def test_the_mixed_precision_of_a_run_reaches_the_causal_half(tied_llm: Path) -> None:
    """accelerate wraps the forward of the whole model, which this half does not go through."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    model = convert(str(tied_llm))
    loss = HybridLoss(model, PackedInfoNCE(model))
    # Left behind by a trainer of another test.
    AcceleratorState._reset_state(reset_partial_state=True)
    exact = float(loss.next_token(columns(model))[0])
    try:
        Accelerator(mixed_precision="bf16", cpu=True)
        value, gradients = loss.next_token(columns(model))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    # bfloat16 has 8 bits: about 0.4 percent per product, averaged over tokens.
    assert 1e-5 < abs(float(value) / exact - 1) < 0.02
    assert {gradient.dtype for _, gradient in gradients} == {torch.float32}


def test_frozen_weights_get_no_gradient(tied_llm: Path) -> None:
    """As with LoRA: the head is the frozen embedding matrix, gradients go to a few parameters only."""
    model = convert(str(tied_llm))
    model.requires_grad_(False)
    trained = model[0].model.layers[1].mlp.up_proj.weight.requires_grad_(True)
    parts = HybridLoss(model, PackedInfoNCE(model), weight=1.0)(columns(model))
    sum(parts.values()).backward()
    contrastive = copy.deepcopy(model)
    contrastive.zero_grad()
    PackedInfoNCE(contrastive)(columns(contrastive)).backward()
    alone = contrastive[0].model.layers[1].mlp.up_proj.weight.grad
    expected = alone + language_model(tied_llm)[1]["layers.1.mlp.up_proj.weight"]
    assert float((trained.grad - expected).norm() / expected.norm()) < 2e-5
    assert sum(p.grad is not None for p in model.parameters()) == 1


def test_special_tokens_do_not_stand_in_the_middle(tied_llm: Path) -> None:
    model = convert(str(tied_llm))
    loss = HybridLoss(model, PackedInfoNCE(model))
    bos, eos = 1, 2
    query = {"input_ids": torch.tensor([[bos, 10, 11, eos]]), "attention_mask": torch.ones(1, 4)}
    positive = {"input_ids": torch.tensor([[bos, 20, eos]]), "attention_mask": torch.ones(1, 3)}
    newline = model.tokenizer("\n")["input_ids"]
    joined, starts = loss._texts([query, positive], limit=None)
    assert joined[0].tolist() == [bos, 10, 11, *newline, 20, eos]
    assert starts == [3 + len(newline)]
    joined, starts = loss._texts([query, positive], limit=3)
    assert (joined[0].tolist(), starts) == ([bos, 10, 11], [3])


def test_a_trainer_adds_and_logs_both(tied_llm: Path, tmp_path: Path) -> None:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

    model = convert(str(tied_llm))
    inner = MatryoshkaLoss(model, PackedInfoNCE(model, mini_batch_tokens=60), [32, 16])
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path), max_steps=12, per_device_train_batch_size=6, learning_rate=3e-3, logging_steps=1,
        report_to="none", save_strategy="no", gradient_accumulation_steps=1, use_cpu=True,
        activation_checkpointing=True, prompts={"query": PROMPT}, disable_tqdm=True,
    )  # fmt: skip
    data = Dataset.from_dict({"query": QUESTIONS, "positive": SOLUTIONS})
    trainer = SentenceTransformerTrainer(model, arguments, train_dataset=data, loss=HybridLoss(model, inner))
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "next_token" in entry]
    assert logged[-1]["next_token"] < 0.9 * logged[0]["next_token"]
    assert logged[-1]["loss"] < 0.9 * logged[0]["loss"]
    assert logged[0]["loss"] == pytest.approx(logged[0]["next_token"] + logged[0]["contrastive"], rel=1e-3)


def test_causally_is_undone_after_an_error(tied_llm: Path) -> None:
    transformer: Any = convert(str(tied_llm))[0].model

    def fail() -> None:
        with causally(transformer):
            assert transformer.config.is_causal is True
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert transformer.config.is_causal is False


def test_what_cannot_be_right_is_refused(tiny_llm: Path, tied_llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untied, tied = convert(str(tiny_llm)), convert(str(tied_llm))
    with pytest.raises(InputError, match=r"pass head=load_causal_lm\(BACKBONE\)"):
        HybridLoss(untied, PackedInfoNCE(untied))
    with pytest.raises(InputError, match=r"head must be \[vocabulary, 32\], got \[600, 8\]"):
        HybridLoss(untied, PackedInfoNCE(untied), head=torch.zeros(600, 8))
    with pytest.raises(InputError, match="weight must not be negative"):
        HybridLoss(tied, PackedInfoNCE(tied), weight=-1.0)
    with pytest.raises(InputError, match="put MatryoshkaLoss inside HybridLoss"):
        MatryoshkaLoss(tied, HybridLoss(tied, PackedInfoNCE(tied)), [32])
    tied[0].model.config.final_logit_softcapping = 30.0
    with pytest.raises(InputError, match="final_logit_softcapping of llama"):
        HybridLoss(tied, PackedInfoNCE(tied))
    del tied[0].model.config.final_logit_softcapping

    class Deaf(type(tied[0].model)):  # type: ignore[misc]
        """A transformer that keeps its own mask whatever the config says, as some architectures do."""

        def forward(self, *arguments: Any, **options: Any) -> Any:
            self.config.is_causal = False
            return super().forward(*arguments, **options)

    tied[0].model.__class__ = Deaf
    with pytest.raises(
        ConversionError, match="the next-token loss needs causal attention, but Deaf under sdpa is bidir"
    ):
        HybridLoss(tied, PackedInfoNCE(tied))
