"""InfoNCE in packed mini-batches: against the library's losses and against the formula, text by text."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor

from st_reasoning.backbone import convert
from st_reasoning.errors import InputError
from st_reasoning.training.loss import PackedInfoNCE, infonce
from st_reasoning.training.packing import pack

SENTENCE = "three apples and seven pears cost nine coins while she sold four of them to her brother on monday"
PROMPT = "Instruct: Given a math word problem, retrieve its worked solution\nQuery:\n"
OTHER = "Instruct: Find the answer\nQuery:\n"


def texts(count: int, seed: int, longest: int = 30) -> list[str]:
    words = SENTENCE.split()
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest, (count,), generator=generator)
    picks = [torch.randint(len(words), (int(n),), generator=generator) for n in lengths]
    return [" ".join(words[i] for i in pick) for pick in picks]


def batch(
    model: SentenceTransformer, *, size: int = 9, negatives: int = 2, prompt: str = PROMPT
) -> list[dict[str, Any]]:
    """Queries with a prompt, positives and negatives; some negatives repeat each other and positives."""
    columns = [texts(size, seed) for seed in range(2 + negatives)]
    for column in columns[2:]:
        column[0], column[-1] = columns[1][1], columns[2][2]
    features = [dict(model.preprocess(column)) for column in columns]
    features[0] = dict(model.preprocess(columns[0], prompt=prompt))
    return features


def step(model: SentenceTransformer, make: Callable[[SentenceTransformer], Any], columns: Any) -> tuple[float, Tensor]:
    """Return loss and all gradients, [parameters], of a fresh copy of the model."""
    model = copy.deepcopy(model)
    loss = make(model)([dict(column) for column in columns], None)
    if isinstance(loss, dict):  # the trainer adds up what has names
        loss = sum(loss.values())
    # As gradient accumulation and loss scaling do.
    (loss / 4).backward()
    return float(loss.detach()), torch.cat([p.grad.flatten() for p in model.parameters()])


def same(ours: tuple[float, Tensor], theirs: tuple[float, Tensor], tolerance: float = 1e-5) -> None:
    assert ours[0] == pytest.approx(theirs[0], rel=tolerance)
    assert theirs[1].norm() > 1e-3
    assert float((ours[1] - theirs[1]).norm() / theirs[1].norm()) < tolerance


@pytest.fixture(scope="module")
def model(tiny_llm: Path) -> SentenceTransformer:
    return convert(str(tiny_llm))


@pytest.mark.parametrize("negatives", [0, 2])
@pytest.mark.parametrize("side", ["right", "left"])
def test_loss_and_gradients_are_the_librarys(model: SentenceTransformer, side: str, negatives: int) -> None:
    model = copy.deepcopy(model)
    model.tokenizer.padding_side = side
    columns = batch(model, negatives=negatives)
    library = step(model, lambda m: MultipleNegativesRankingLoss(m, scale=20.0), columns)
    cached = step(model, lambda m: CachedMultipleNegativesRankingLoss(m, scale=20.0, mini_batch_size=4), columns)
    # 1: a text at a time. 100: several. 10_000 and None: all at once, without a second forward pass.
    for budget in (1, 100, 10_000, None):
        ours = step(model, lambda m, b=budget: PackedInfoNCE(m, temperature=0.05, mini_batch_tokens=b), columns)
        same(ours, library)
        same(ours, cached)


def test_the_papers_temperature_is_the_default(model: SentenceTransformer) -> None:
    columns = batch(model)
    library = step(model, lambda m: MultipleNegativesRankingLoss(m, scale=50.0), columns)
    # At 50 times the cosine, 1e-7 of a cosine is 5e-6 of a score.
    same(step(model, lambda m: PackedInfoNCE(m, mini_batch_tokens=100), columns), library, 2e-5)


def test_gradient_checkpointing_changes_nothing(model: SentenceTransformer) -> None:
    columns = batch(model)
    plain = step(model, PackedInfoNCE, columns)
    for reentrant in (False, True):
        checkpointed = copy.deepcopy(model).train()
        checkpointed[0].model.activation_checkpointing_enable({"use_reentrant": reentrant})
        checkpointed[0].model.enable_input_require_grads()
        for budget in (100, None):
            make = lambda m, b=budget: PackedInfoNCE(m, mini_batch_tokens=b)  # noqa: E731
            same(step(checkpointed, make, columns), plain, 2e-5)


def in_float64(model: SentenceTransformer, columns: Sequence[Sequence[dict[str, Any]]]) -> Tensor:
    """Embed each text by itself, [columns, batch, d]; one forward pass of one text knows neither padding nor mixing."""
    rows = [torch.cat([model(dict(text))["sentence_embedding"] for text in column]) for column in columns]
    return torch.stack(rows).double()


def naive(embeddings: Tensor, temperature: float, margin: float | None = None, ids: Any = None) -> Tensor:
    """The formula in words of one syllable: no matrix, no chunk, no index arithmetic."""
    columns, size, _ = embeddings.shape
    losses = []
    for i in range(size):
        query, positive = embeddings[0, i], embeddings[1, i]
        own = torch.nn.functional.cosine_similarity(query, positive, dim=0)
        summed = torch.exp(own / temperature)
        for column in range(1, columns):
            for j in range(size):
                if (column, j) == (1, i):
                    continue
                cosine = torch.nn.functional.cosine_similarity(query, embeddings[column, j], dim=0)
                if margin is not None and (float(cosine) > float(own) + margin or ids[column][j] == ids[1][i]):
                    continue
                summed = summed + torch.exp(cosine / temperature)
        losses.append(torch.log(summed) - own / temperature)
    return torch.stack(losses).mean()


def test_each_query_is_pooled_without_its_own_prompt(model: SentenceTransformer) -> None:
    """A mixed batch: three prompts in one column, in an order that sorting must break up."""
    questions, solutions = texts(7, 0), texts(7, 1)
    prompts = [PROMPT, "", OTHER, PROMPT, OTHER, "", PROMPT]
    alone = [dict(model.preprocess([q], prompt=p or None)) for q, p in zip(questions, prompts, strict=True)]
    lengths = [int(f.get("prompt_length", 0)) for f in alone]
    assert len(set(lengths)) == 3
    mixed = dict(model.preprocess([p + q for p, q in zip(prompts, questions, strict=True)]))
    mixed["prompt_length"] = torch.tensor(lengths)
    documents = [dict(model.preprocess([s])) for s in solutions]

    def reference(m: SentenceTransformer) -> Callable[..., Tensor]:
        return lambda *_: naive(in_float64(m, [alone, documents]), 0.05)

    expected = step(model, reference, [])
    for budget in (60, None):
        make = lambda m, b=budget: PackedInfoNCE(m, temperature=0.05, mini_batch_tokens=b)  # noqa: E731
        same(step(model, make, [mixed, dict(model.preprocess(solutions))]), expected, 2e-5)
    # The old door: the collator knows no prompts, the loss does.
    del mixed["prompt_length"]
    for known in ((PROMPT, OTHER), (OTHER, PROMPT, "Instruct:\n", "Instruct: Find the")):
        make = lambda m, k=known: PackedInfoNCE(m, temperature=0.05, prompts=k)  # noqa: E731
        same(step(model, make, [mixed, dict(model.preprocess(solutions))]), expected, 2e-5)


@pytest.mark.parametrize("margin", [-0.1, 0.0, 0.1, 2.0])
def test_false_negatives_are_left_out(model: SentenceTransformer, margin: float) -> None:
    """Margin 2 masks by text alone: no cosine exceeds another by that much; -0.1 masks much of the batch."""
    columns = [texts(8, seed) for seed in range(4)]
    # Texts of positives as negatives: of the query's own, of another's.
    columns[2][0], columns[2][1], columns[3][5] = columns[1][0], columns[1][4], columns[1][4]
    columns[1][6] = columns[1][4]
    features = [dict(model.preprocess(column)) for column in columns]
    alone = [[dict(model.preprocess([text])) for text in column] for column in columns]

    def reference(m: SentenceTransformer) -> Callable[..., Tensor]:
        return lambda *_: naive(in_float64(m, alone), 0.5, margin, columns)

    expected = step(model, reference, [])
    options: dict[str, Any] = {"temperature": 0.5, "mini_batch_tokens": 60}
    masked = step(model, lambda m: PackedInfoNCE(m, false_negatives=margin, **options), features)
    same(masked, expected, 2e-5)
    unmasked = step(model, lambda m: PackedInfoNCE(m, **options), features)
    assert unmasked[0] > masked[0] + 1e-2


def test_matryoshka_adds_up_truncated_losses(model: SentenceTransformer) -> None:
    columns = batch(model)
    dims, weights = [32, 16, 8], [1.0, 0.5, 0.25]

    def reference(m: SentenceTransformer) -> Callable[..., Tensor]:
        def compute(features: Any, _: Any) -> Tensor:
            embeddings = torch.stack([m(dict(f))["sentence_embedding"] for f in features]).double()
            return sum(  # type: ignore[return-value]
                w * naive(embeddings[..., :d], 0.05) for d, w in zip(dims, weights, strict=True)
            )

        return compute

    expected = step(model, reference, columns)
    for budget in (100, None):

        def ours(m: SentenceTransformer, b: int | None = budget) -> MatryoshkaLoss:
            return MatryoshkaLoss(m, PackedInfoNCE(m, temperature=0.05, mini_batch_tokens=b), dims, weights)

        same(step(model, ours, columns), expected, 2e-5)
        with torch.no_grad():
            assert float(ours(model)(columns, None)) == pytest.approx(expected[0], rel=2e-5)


def test_scores_in_chunks_are_the_scores(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = batch(model)
    whole = step(model, PackedInfoNCE, columns)
    # Nine queries, 27 documents: two rows at a time, the last alone.
    monkeypatch.setattr("st_reasoning.training.loss.SCORES", 2 * 27)
    same(step(model, PackedInfoNCE, columns), whole)


def test_mini_batches_keep_the_budget_and_hold_each_text_once(model: SentenceTransformer) -> None:
    columns = batch(model)
    distinct = {tuple(row[row != 2].tolist()) for c in columns[1:] for row in c["input_ids"]}
    for merge, documents in ((True, len(distinct)), (False, 27)):
        packed = pack(columns, 128, merge=merge)
        shapes = [features["input_ids"].shape for features in packed.mini_batches]
        assert all(rows * width <= 128 or rows == 1 for rows, width in shapes)
        assert sum(rows for rows, _ in shapes) == 9 + documents
        assert packed.cells == sum(rows * width for rows, width in shapes)
    assert len(distinct) < 27
    # Sorted, the padding of a batch of lengths 1 to 30 words nearly disappears.
    real = sum(int(column["attention_mask"].sum()) for column in columns)
    assert packed.cells < 1.15 * real < sum(column["input_ids"].numel() for column in columns)


def test_dropout_is_drawn_for_each_text_and_replayed(tiny_llm: Path) -> None:
    model = convert(str(tiny_llm)).train()
    for layer in model[0].model.layers:
        layer.self_attn.attention_dropout = 0.3

    def loss_of(m: SentenceTransformer, columns: Any) -> float:
        torch.manual_seed(0)
        return float(PackedInfoNCE(m)(columns, None))

    # Embedded apart, repetitions differ by their dropout; embedded once, all scores would be equal.
    many = dict(model.preprocess(texts(1, 3) * 4))
    assert abs(loss_of(model, [many, many]) - float(torch.tensor(4.0).log())) > 1e-3
    assert loss_of(copy.deepcopy(model).eval(), [many, many]) == pytest.approx(float(torch.tensor(4.0).log()), abs=1e-4)
    # One mini-batch per column, without caching and with it: the second forward pass draws what the first drew.
    columns = [dict(model.preprocess(texts(8, seed))) for seed in range(2)]
    largest = max(column["input_ids"].numel() for column in columns)
    seeded = []
    for budget in (None, largest):
        torch.manual_seed(1)
        seeded.append(step(model, lambda m, b=budget: PackedInfoNCE(m, mini_batch_tokens=b), columns))
    same(seeded[1], seeded[0])
    assert step(model, PackedInfoNCE, columns)[0] != pytest.approx(seeded[0][0], rel=1e-3)


def test_bfloat16_embeddings_are_scored_in_float32() -> None:
    """Cosines 1 and 0.998 are one number in bfloat16, and at temperature 0.02 the loss between them is 0.64."""
    queries = torch.tensor([[1.0, 0.0]])
    documents = torch.tensor([[1.0, 0.0], [0.998, 0.0632]])
    loss = infonce(queries, documents, torch.tensor([0]), 0.02)
    assert float(loss[0]) == pytest.approx(0.6444, abs=1e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        packed = pack([{"input_ids": torch.ones(1, 1), "attention_mask": torch.ones(1, 1)}] * 2, None)
        reps = [[torch.cat([queries, documents])]]
        object.__setattr__(packed, "places", torch.tensor([[0], [1], [2]]))
        object.__setattr__(packed, "texts", torch.tensor([[0], [1], [2]]))
        loss = PackedInfoNCE.calculate_loss(PackedInfoNCE(torch.nn.Identity()), reps, packed)  # type: ignore[arg-type]
    assert float(loss) == pytest.approx(0.6444, abs=1e-3)


def test_wrong_input_is_named(model: SentenceTransformer) -> None:
    columns = batch(model)
    for options, said in (
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"mini_batch_tokens": 0}, "mini_batch_tokens must be at least 1, got 0"),
        ({"prompts": [""]}, "a prompt is empty"),
        ({"prompts": ["Query: "]}, "the prompt 'Query: ' does not end at a token boundary before 'a'"),
    ):
        with pytest.raises(InputError, match=said):
            PackedInfoNCE(model, **options)
    loss = PackedInfoNCE(model)
    with pytest.raises(InputError, match=r"at least the columns query and positive, got 1 column"):
        loss(columns[:1])
    with pytest.raises(InputError, match=r"unpad_inputs = False"):
        loss([{"input_ids": columns[0]["input_ids"], "cu_seq_lens_q": torch.tensor([0, 3])}] * 2)
    with pytest.raises(InputError, match=r"one prompt_length or one per text \(9\), got 2"):
        loss([{**columns[0], "prompt_length": torch.tensor([1, 2])}, columns[1]])
    with pytest.raises(InputError, match="columns of one size"):
        loss([{k: v[:3] if isinstance(v, Tensor) else v for k, v in columns[0].items()}, columns[1]])
