"""Chunks of two models against one plain forward pass per text and model."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import CLIPTextConfig, CLIPTextModel

from st_reasoning.errors import InputError
from st_reasoning.hrsa.activations import forward
from st_reasoning.hrsa.align import align
from st_reasoning.hrsa.forward import Arm, lockstep, shares
from tests.hrsa.tokenizers import TEXTS, bpe, reader, wordpiece


def alone(model: SentenceTransformer, ids: list[int]) -> torch.Tensor:
    """All hidden states of one text, [L + 1, n, d]."""
    with torch.no_grad():
        output = model[0].model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    return torch.cat(list(output.hidden_states))


@pytest.fixture(scope="module")
def pair(make_model):
    """Two models of another depth and width."""
    return make_model(0, layers=3, width=32), make_model(1, layers=2, width=16, causal=False)


@pytest.fixture(scope="module")
def differing(tmp_path_factory):
    """Two models of another tokenizer, depth and width; the second has more tokens, and special ones."""
    return (
        reader(tmp_path_factory.mktemp("a"), bpe(600), layers=2),
        reader(tmp_path_factory.mktemp("b"), wordpiece(), layers=3, width=16, seed=1, causal=False),
    )


@pytest.mark.parametrize("batch_tokens", [1, 40, 4096])
def test_chunks_hold_the_states_of_one_text_at_a_time(pair, texts, batch_tokens):
    met = []
    for chunk in lockstep(*pair, texts, batch_tokens=batch_tokens, progress=False):
        numbers = chunk.texts.tolist()
        assert numbers == sorted(numbers)
        met += numbers
        assert chunk.sentences.unique_consecutive().tolist() == numbers
        assert {t.dtype for t in (chunk.a, chunk.b, chunk.pooled_a, chunk.pooled_b)} == {torch.float32}
        assert {t.dtype for t in (chunk.sentences, chunk.types, chunk.texts)} == {torch.int64}
        assert chunk.a.is_contiguous()
        for row, number in enumerate(numbers):
            ids = pair[0].tokenizer.convert_tokens_to_ids(texts[number].split())
            rows = chunk.sentences == number
            assert chunk.types[rows].tolist() == ids
            for model, states, pooled in zip(pair, (chunk.a, chunk.b), (chunk.pooled_a, chunk.pooled_b), strict=True):
                expected = alone(model, ids)
                # Padded and unpadded kernels round differently; measured below 1e-6.
                torch.testing.assert_close(states[:, rows], expected, rtol=0, atol=1e-5)
                torch.testing.assert_close(pooled[:, row], expected.mean(dim=1), rtol=0, atol=1e-5)
    assert sorted(met) == list(range(len(texts)))
    lengths = [len(texts[number].split()) for number in met]
    if batch_tokens == 1:
        assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("batch_tokens", [16, 64, 4096])
def test_tokens_of_another_tokenizer_are_brought_together(differing, batch_tokens):
    found = align(*differing, TEXTS)
    compared = 0
    for chunk in lockstep(*differing, TEXTS, batch_tokens=batch_tokens, progress=False):
        assert chunk.a.shape[1] == chunk.b.shape[1] == len(chunk.sentences) == len(chunk.types)
        for row, number in enumerate(chunk.texts.tolist()):
            rows = chunk.sentences == number
            expected_a, expected_b = alone(differing[0], found.ids_a[number]), alone(differing[1], found.ids_b[number])
            positions_a, positions_b = found.positions_a[number], found.positions_b[number]
            torch.testing.assert_close(chunk.a[:, rows], expected_a[:, positions_a], rtol=0, atol=1e-5)
            torch.testing.assert_close(chunk.b[:, rows], expected_b[:, positions_b], rtol=0, atol=1e-5)
            assert chunk.types[rows].tolist() == torch.tensor(found.ids_a[number])[positions_a].tolist()
            # Every token is pooled, those without a counterpart too.
            torch.testing.assert_close(chunk.pooled_b[:, row], expected_b.mean(dim=1), rtol=0, atol=1e-5)
            compared += len(positions_a)
    assert compared == found.tokens < sum(map(len, found.ids_b))


def test_alignment_made_before_is_taken(differing):
    found = align(*differing, TEXTS[:2])
    chunks = list(lockstep(*differing, TEXTS[:2], alignment=found, progress=False))
    assert sum(chunk.a.shape[1] for chunk in chunks) == found.tokens


@pytest.mark.parametrize("pooling", ["mean", "lasttoken", "cls", "max", "weightedmean", ("mean", "max")])
def test_last_layer_is_pooled_as_the_embedder_does(tmp_path, pooling):
    model = reader(tmp_path, bpe(300), pooling=pooling)
    expected = model.encode(TEXTS, convert_to_tensor=True)
    for batch_tokens in (100, 4096):
        for chunk in lockstep(model, model, TEXTS, batch_tokens=batch_tokens, progress=False):
            torch.testing.assert_close(chunk.pooled_a[-1], expected[chunk.texts], rtol=0, atol=1e-5)
            assert torch.equal(chunk.pooled_a, chunk.pooled_b)


def test_no_prompt_is_put_before_a_text(tmp_path):
    model = reader(tmp_path, bpe(300))
    before = next(lockstep(model, model, ["three apples"], progress=False))
    prompted = copy.deepcopy(model)
    prompted.prompts, prompted.default_prompt_name = {"query": "Instruct: count\nQuery: "}, "query"
    after = next(lockstep(prompted, prompted, ["three apples"], progress=False))
    assert torch.equal(before.a, after.a)
    assert torch.equal(before.pooled_a, after.pooled_a)


def test_without_pooling_texts_are_averaged_or_left_alone(tmp_path):
    model = reader(tmp_path, bpe(300), pooling=None)
    chunk = next(lockstep(model, model, TEXTS, progress=False))
    for row, number in enumerate(chunk.texts):
        rows = chunk.sentences == number
        torch.testing.assert_close(chunk.pooled_a[:, row], chunk.a[:, rows].mean(dim=1), rtol=0, atol=1e-5)
    chunk = next(lockstep(model, model, TEXTS, pooled=False, progress=False))
    assert chunk.pooled_a is None
    assert chunk.pooled_b is None


def test_bfloat16_is_widened_and_the_mode_is_restored(make_model, texts):
    model = make_model().to(torch.bfloat16)
    model.train()
    for chunk in lockstep(model, make_model(), texts, batch_tokens=64, progress=False):
        assert chunk.a.dtype == chunk.pooled_a.dtype == torch.float32
        # Every float32 state is a bfloat16 one: it was the forward pass that ran in bfloat16.
        assert torch.equal(chunk.a, chunk.a.bfloat16().float())
        assert not torch.equal(chunk.b, chunk.b.bfloat16().float())
        # Between batches too: whoever takes the chunks may be training the model.
        assert model[0].model.training
        chunk.a.sub_(1)  # an inference tensor would refuse


def test_every_pass_keeps_its_budget(differing):
    shapes = []
    handles = [
        model[0].model.register_forward_pre_hook(
            lambda module, args, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True
        )
        for model in differing
    ]
    list(lockstep(*differing, TEXTS, batch_tokens=120, progress=False))
    for handle in handles:
        handle.remove()
    assert all(rows * length <= 120 for rows, length in shapes)
    assert sum(rows for rows, _ in shapes) == 2 * len(TEXTS) > len(shapes)


def test_a_chunk_is_forgotten_when_its_taker_drops_it(pair, texts):
    chunks = lockstep(*pair, texts, batch_tokens=64, progress=False)
    for _ in range(3):
        chunk = next(chunks)
        known = [weakref.ref(chunk.a), weakref.ref(chunk.pooled_b)]
        del chunk
        assert [ref() for ref in known] == [None, None]


def test_last_state_comes_after_the_final_norm():
    """CLIP's text model keeps what comes before it among its hidden states."""
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = CLIPTextModel(config).eval()
    torch.nn.init.normal_(
        model.get_submodule(
            "final_layer_norm" if hasattr(model, "final_layer_norm") else "text_model.final_layer_norm"
        ).weight
    )
    ids = [[5, 6, 7, 2]]
    with torch.no_grad():
        plain = model(input_ids=torch.tensor(ids), output_hidden_states=True)
        states = forward(model, ids)
    assert not torch.allclose(plain.hidden_states[-1], plain.last_hidden_state, atol=0.1)
    assert torch.equal(states[-1], plain.last_hidden_state)
    assert torch.equal(states[-2], plain.hidden_states[-2])
    assert len(states) == 3


def test_shares_are_the_same_batches_dealt_out():
    lengths = [3, 9, 1, 4, 4, 7, 2, 2, 2, 1]
    (whole,) = shares(lengths, 12, 1)
    assert sorted(number for batch in whole for number in batch) == list(range(10))
    for world in (2, 3):
        dealt = shares(lengths, 12, world)
        assert sorted(batch for share in dealt for batch in share) == sorted(whole)
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    assert len({len(share) for share in shares(lengths, 12, 3)}) == 2, "the shares should be uneven here"
    # One batch, and more ranks than texts.
    dealt = shares([2, 2, 2], 100, 5)
    assert sorted(number for share in dealt for batch in share for number in batch) == [0, 1, 2]
    assert [len(share) for share in dealt] == [1, 1, 1, 0, 0]


WORKER = """
import json, sys
import torch
from sentence_transformers import SentenceTransformer
from st_reasoning.hrsa.forward import lockstep

folder, rank = sys.argv[5], int(sys.argv[6])
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
models = [SentenceTransformer(folder, device="cpu") for folder in sys.argv[1:3]]
texts = json.loads(sys.argv[3])
rows = [
    (chunk.texts.tolist(), chunk.a.double().sum().item(), chunk.b.double().sum().item())
    for chunk in lockstep(*models, texts, batch_tokens=int(sys.argv[4]), progress=False)
]
open(f"{folder}/{rank}.json", "w").write(json.dumps(rows))
torch.distributed.destroy_process_group()
"""


def test_two_processes_run_each_text_once(pair, texts, tmp_path):
    texts = texts[:15]
    for model, name in zip(pair, "ab", strict=True):
        model.save(str(tmp_path / name))
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    folders = [str(tmp_path / name) for name in "ab"]
    arguments = [str(script), *folders, json.dumps(texts), "64", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    ranks = [
        subprocess.Popen([sys.executable, *arguments, str(rank)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=300)
        assert rank.returncode == 0, errors[-3000:]
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert all(found)
    assert sorted(number for rows in found for numbers, _, _ in rows for number in numbers) == list(range(15))
    assert len(found[0]) != len(found[1]), "the shares should be uneven here"
    whole = list(lockstep(*pair, texts, batch_tokens=64, progress=False))
    for place, of in ((1, "a"), (2, "b")):
        total = sum(getattr(chunk, of).double().sum().item() for chunk in whole)
        assert sum(row[place] for rows in found for row in rows) == pytest.approx(total, abs=1e-2)


def test_wrong_input_is_refused_before_anything_runs(pair, differing):
    with pytest.raises(InputError, match="batch_tokens: expected at least 1, got 0"):
        lockstep(*pair, ["one"], batch_tokens=0)
    with pytest.raises(InputError, match="texts: expected a non-empty sequence"):
        lockstep(*pair, [])
    with pytest.raises(InputError, match=r"texts\[1\]: expected at least one token"):
        lockstep(*differing, ["one", ""])


def test_states_of_several_passes_stand_in_the_order_of_the_texts(tmp_path):
    arm = Arm.of(reader(tmp_path, bpe(300)), batch_tokens=8, pooled=True)
    ids = [[5, 6], [7, 8, 9, 10, 11], [12], [5, 7, 9]]
    found = arm.states(ids)
    for number, row in enumerate(ids):
        start = sum(map(len, ids[:number]))
        single = arm.states([row])
        torch.testing.assert_close(found.tokens[:, start : start + len(row)], single.tokens, rtol=0, atol=1e-5)
        torch.testing.assert_close(found.pooled[:, number], single.pooled[:, 0], rtol=0, atol=1e-5)
