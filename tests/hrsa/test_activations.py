"""Hidden states against one plain forward pass per text."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers import SentenceTransformer

from st_reasoning.errors import InputError
from st_reasoning.hrsa import hidden_states
from st_reasoning.hrsa.activations import tokenise, transformer


@pytest.mark.parametrize("batch_tokens", [1, 40, 4096])
@pytest.mark.parametrize("causal", [True, False])
def test_states_equal_one_text_at_a_time(make_model, texts, batch_tokens, causal):
    model = make_model(causal=causal)
    found = hidden_states(model, texts, batch_tokens=batch_tokens, progress=False)
    assert len(found.states) == 4
    start = 0
    for number, text in enumerate(texts):
        ids = torch.tensor([model.tokenizer.convert_tokens_to_ids(text.split())])
        with torch.no_grad():
            expected = model[0].model(input_ids=ids, output_hidden_states=True).hidden_states
        rows = slice(start, start + ids.shape[1])
        assert torch.equal(found.token_ids[rows], ids[0])
        assert found.sentence[rows].unique().tolist() == [number]
        for layer, states in enumerate(expected):
            # Padded and unpadded kernels round differently; measured below 1e-6.
            torch.testing.assert_close(found.states[layer][rows], states[0], rtol=0, atol=1e-5)
            torch.testing.assert_close(found.features[layer][number], states[0].mean(0), rtol=0, atol=1e-5)
        start = rows.stop
    assert start == len(found.token_ids) == len(found.sentence) == len(found.states[0])


def test_bidirectional_states_differ_from_causal_ones(make_model, texts):
    # Otherwise the test above could not tell them apart.
    causal, both = (hidden_states(make_model(causal=c), texts, progress=False) for c in (True, False))
    assert torch.equal(causal.states[0], both.states[0])
    assert not torch.allclose(causal.states[1], both.states[1], atol=0.01)


def test_last_layer_is_what_the_embedder_pools(tiny, texts):
    expected = tiny.encode(texts, convert_to_tensor=True)
    torch.testing.assert_close(
        hidden_states(tiny, texts, progress=False).features[-1], expected.cpu(), atol=1e-5, rtol=0
    )


def test_bfloat16_model_is_stored_in_float32_and_mode_is_restored(make_model, texts):
    model = make_model().to(torch.bfloat16)
    model.train()
    found = hidden_states(model, texts, progress=False)
    assert {states.dtype for states in (*found.states, *found.features)} == {torch.float32}
    assert model[0].model.training
    # Every float32 state is a bfloat16 one: it was the forward pass that ran in bfloat16.
    assert torch.equal(found.states[2], found.states[2].bfloat16().float())


def test_no_batch_exceeds_its_budget(tiny, texts):
    shapes = []
    handle = tiny[0].model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    hidden_states(tiny, texts, batch_tokens=32, progress=False)
    handle.remove()
    assert all(rows * length <= 32 for rows, length in shapes)
    assert sum(rows for rows, _ in shapes) == len(texts) > len(shapes)


def test_texts_that_cannot_be_used_are_named(tiny: SentenceTransformer):
    for texts, message in (
        ([], "texts: expected a non-empty sequence"),
        ("one two", "texts: expected a non-empty sequence"),
        (["one", "  "], r"texts\[1\]: expected at least one token, got none from '  '"),
        (["one", None], r"texts\[1\]: expected a text, got NoneType"),
    ):
        with pytest.raises(InputError, match=message):
            hidden_states(tiny, texts, progress=False)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="batch_tokens: expected at least 1"):
        hidden_states(tiny, ["one"], batch_tokens=0)
    with pytest.raises(InputError, match="expected a transformers model in its first module, got Linear"):
        transformer([torch.nn.Linear(2, 2)])  # type: ignore[arg-type]


def test_long_texts_are_cut_and_a_chat_template_is_ignored(make_model):
    model = make_model()
    model.tokenizer.chat_template = "{% for message in messages %}nine{{ message.content }}{% endfor %}"
    assert tokenise(model, ["one two three", "four"]) == [[2, 3, 4], [5]]
    assert tokenise(model, ["one two three", "four"], max_tokens=2) == [[2, 3], [5]]
    model.max_seq_length = 1
    assert tokenise(model, ["one two three"]) == [[2]]
