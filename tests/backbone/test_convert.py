"""Conversion: what a backbone becomes, and the traps in which others become something else without a word."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from st_reasoning.attention import probe_attention, verify_attention
from st_reasoning.backbone import convert, open_model, read_record, save_embedder
from st_reasoning.errors import ConversionError, InputError
from tests.models import SMOLLM2, make_llama, make_tokenizer

TEXTS = ["How many apples does she have?", "7", "First add the apples to the pears: 3 + 4 = 7."]
INSTRUCTION = "Given a math word problem, retrieve its worked solution"


def states(model: SentenceTransformer, text: str) -> torch.Tensor:
    """Final token states of one text, straight from the transformer, [tokens, width]."""
    ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        return model[0].model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]


def test_bidirectional_means_that_the_first_token_sees_the_last(tiny_llm: Path) -> None:
    """Second witness of the probe, without its code."""
    first, other = "She has three apples", "She has three pears"
    for attention, sees in (("bidirectional", True), ("causal", False)):
        model = convert(str(tiny_llm), attention=attention)
        a, b = states(model, first), states(model, other)
        assert bool((a[0] - b[0]).abs().max() > 1e-3) is sees


def test_the_probe_tells_the_two_apart(tiny_llm: Path) -> None:
    model = convert(str(tiny_llm))
    assert model.st_reasoning.attention.attention == "bidirectional"
    assert [p.batch for p in model.st_reasoning.attention.probes] == ["unpadded", "padded"]
    assert model.st_reasoning.attention.layers == ("bidirectional",) * len(model[0].model.layers)
    model[0].model.config.is_causal = True
    with pytest.raises(ConversionError, match="asked for bidirectional attention, but LlamaModel under sdpa is causal"):
        verify_attention(model, "bidirectional")
    assert probe_attention(model).attention == "causal"


def test_trap_is_causal_as_config_argument_is_dropped(tiny_llm: Path) -> None:
    """The way that looks right leaves the model causal; if this ever fails, the library has mended it."""
    transformer = Transformer(str(tiny_llm), config_kwargs={"is_causal": False})
    naive = SentenceTransformer(modules=[transformer, Pooling(32), Normalize()])
    assert probe_attention(naive).attention == "causal"


def test_the_folder_needs_no_st_reasoning_and_stays_bidirectional(tiny_llm: Path, tmp_path: Path) -> None:
    model = convert(str(tiny_llm), instruction=INSTRUCTION)
    save_embedder(model, tmp_path / "out")
    code = """
import sys, json
sys.modules["st_reasoning"] = None  # importing it would raise
from sentence_transformers import SentenceTransformer
import torch
model = SentenceTransformer(sys.argv[1])
texts = json.loads(sys.argv[2])
ids = model.tokenizer(["She has three apples", "She has three pears"], return_tensors="pt", padding=True)
with torch.inference_mode():
    first = model[0].model(**ids).last_hidden_state[:, 0]
print(json.dumps({
    "moved": float((first[0] - first[1]).abs().max()),
    "query": model.encode_query(texts).tolist(),
    "document": model.encode_document(texts).tolist(),
}))
"""
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out"), json.dumps(TEXTS)],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    found = json.loads(run.stdout)
    assert found["moved"] > 1e-3
    np.testing.assert_allclose(found["query"], model.encode_query(TEXTS), atol=1e-6)
    np.testing.assert_allclose(found["document"], model.encode_document(TEXTS), atol=1e-6)
    assert sorted(p.suffix for p in (tmp_path / "out").glob("model*")) == [".safetensors"]


def test_trap_plain_text_is_never_wrapped_into_a_chat(tiny_llm: Path, tmp_path: Path) -> None:
    """Left to itself, sentence-transformers wraps text where the tokenizer has a chat template."""
    model = convert(str(tiny_llm))
    save_embedder(model, tmp_path / "out")
    for embedder in (model, SentenceTransformer(str(tmp_path / "out"))):
        ids = embedder.preprocess(["three apples"])["input_ids"][0].tolist()
        assert ids == embedder.tokenizer("three apples")["input_ids"]
    naive = Transformer(str(tiny_llm))
    naive.tokenizer.pad_token = "</s>"
    assert naive.preprocess(["three apples"])["input_ids"].shape[1] > len(ids)


@pytest.mark.parametrize("side", ["right", "left"])
def test_pooling_is_the_mean_of_the_tokens_after_the_prompt(tiny_llm: Path, side: str) -> None:
    model = convert(str(tiny_llm), instruction=INSTRUCTION)
    model.tokenizer.padding_side = side
    embeddings = model.encode_query(TEXTS)
    prompt = model.prompts["query"]
    for text, embedding in zip(TEXTS, embeddings, strict=True):
        skip = len(model.tokenizer(prompt)["input_ids"])
        mean = states(model, prompt + text)[skip:].mean(0)
        # Padding changes the order of float32 sums only.
        np.testing.assert_allclose(embedding, (mean / mean.norm()).numpy(), atol=1e-5)


def test_trap_a_prompt_that_ends_in_a_space_loses_no_word(tiny_llm: Path) -> None:
    """A one-word query under such a prompt was the zero vector."""
    model = convert(str(tiny_llm), instruction=INSTRUCTION, instruction_template="Instruct: {instruction}\nQuery: ")
    assert not model.prompts["query"].endswith(" ")
    norms = np.linalg.norm(model.encode_query(["a", "7", "apples"]), axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-5)
    naive = convert(str(tiny_llm))
    assert np.linalg.norm(naive.encode(["add"], prompt="Query: ")) == pytest.approx(0, abs=1e-6)


def test_padding_is_settled_and_recorded(tiny_llm: Path, tmp_path: Path) -> None:
    model = convert(str(tiny_llm))
    assert model.tokenizer.pad_token == "</s>"
    alone = [model.encode([text])[0] for text in TEXTS]
    np.testing.assert_allclose(model.encode(TEXTS), alone, atol=1e-5)
    save_embedder(model, tmp_path / "out")
    record = read_record(tmp_path / "out")
    assert record["special_tokens"] == {"pad": "</s>", "before": [], "after": [], "padding_side": "right"}
    assert record["attention"]["attention"] == "bidirectional"
    assert record["versions"]["torch"] == torch.__version__


def test_truncation_is_what_was_asked_for(tiny_llm: Path) -> None:
    model = convert(str(tiny_llm), max_seq_length=16)
    assert model.preprocess(["apple " * 100])["input_ids"].shape[1] == 16
    assert convert(str(tiny_llm), max_seq_length=10_000).max_seq_length == 512


def test_a_backbone_opened_for_comparison_is_a_causal_one(tiny_llm: Path, tmp_path: Path) -> None:
    assert probe_attention(open_model(str(tiny_llm))).attention == "causal"
    save_embedder(convert(str(tiny_llm)), tmp_path / "out")
    assert probe_attention(open_model(str(tmp_path / "out"))).attention == "bidirectional"


def test_a_copy_that_differs_is_not_published(tiny_llm: Path, tmp_path: Path) -> None:
    model = convert(str(tiny_llm))
    model[0].model.config.is_causal = True  # what is saved is no longer what was proven
    with pytest.raises(ConversionError, match="saved as bidirectional under sdpa, but the saved copy is not"):
        save_embedder(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_matryoshka_dimension_is_kept_by_the_folder(tiny_llm: Path, tmp_path: Path) -> None:
    whole, first = convert(str(tiny_llm)), convert(str(tiny_llm), dimension=8)
    save_embedder(first, tmp_path / "out")
    expected = whole.encode(TEXTS)[:, :8]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(first.encode(TEXTS), expected, atol=1e-6)
    np.testing.assert_allclose(SentenceTransformer(str(tmp_path / "out")).encode(TEXTS), expected, atol=1e-6)
    assert read_record(tmp_path / "out")["dimension"] == 8


@pytest.mark.parametrize("pooling", ["mean", "last", "weighted_mean", "cls", "max", "mean_sqrt_len_tokens"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_every_pooling_is_right_on_either_side_of_the_padding(tiny_llm: Path, pooling: str, side: str) -> None:
    """Against the definition of each, on the states of the text alone."""
    model = convert(str(tiny_llm), pooling=pooling, instruction=INSTRUCTION)
    model.tokenizer.padding_side = side
    prompt = model.prompts["query"]
    skip = len(model.tokenizer(prompt)["input_ids"])
    for text, embedding in zip(TEXTS, model.encode_query(TEXTS), strict=True):
        all_tokens = states(model, prompt + text)
        tokens = all_tokens[skip:]
        # Weights count from the first token of the input, prompt included (sentence-transformers, Pooling).
        weights = torch.arange(skip + 1, len(all_tokens) + 1, dtype=torch.float32)[:, None]
        expected = {
            "mean": lambda t=tokens: t.mean(0),
            "last": lambda t=tokens: t[-1],
            "weighted_mean": lambda t=tokens, w=weights: (t * w).sum(0) / w.sum(),
            "cls": lambda t=tokens: t[0],
            "max": lambda t=tokens: t.max(0).values,
            "mean_sqrt_len_tokens": lambda t=tokens: t.sum(0) / len(t) ** 0.5,
        }[pooling]()
        np.testing.assert_allclose(embedding, (expected / expected.norm()).numpy(), atol=1e-5)


def test_bfloat16_is_kept(tiny_llm: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    save_embedder(convert(str(tiny_llm), dtype="bfloat16"), tmp_path / "out")
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as weights:
        assert {str(weights.get_tensor(key).dtype) for key in weights.keys()} == {"torch.bfloat16"}  # noqa: SIM118


def test_sharded_weights_are_read(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    whole = make_llama(tmp_path / "whole")
    sharded = make_llama(tmp_path / "sharded")
    (sharded / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(whole).save_pretrained(sharded, max_shard_size="50KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    np.testing.assert_array_equal(convert(str(whole)).encode(TEXTS), convert(str(sharded)).encode(TEXTS))


def test_sentence_transformers_5_reads_the_folder_too(tiny_llm: Path, tmp_path: Path) -> None:
    """Its layout: nothing that version 5.2 does not know. (Run against 5.2.0 itself: see the closing note.)"""
    save_embedder(convert(str(tiny_llm), dimension=8), tmp_path / "out")
    modules = json.loads((tmp_path / "out" / "modules.json").read_text())
    assert [m["type"].rsplit(".", 1) for m in modules] == [
        ["sentence_transformers.models", name] for name in ("Transformer", "Pooling", "Dense", "Normalize")
    ]
    transformer = json.loads((tmp_path / "out" / "sentence_bert_config.json").read_text())
    assert transformer == {"max_seq_length": 512, "do_lower_case": False}
    pooling = json.loads((tmp_path / "out" / "1_Pooling" / "config.json").read_text())
    assert [key for key, on in pooling.items() if on is True] == ["pooling_mode_mean_tokens"]


def test_the_card_says_what_it_is_and_nothing_of_this_disk(tiny_llm: Path, tmp_path: Path) -> None:
    save_embedder(convert(str(tiny_llm), instruction=INSTRUCTION), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    for said in ("tiny-llama", "LlamaModel", "bidirectional, under sdpa", "mean", INSTRUCTION, torch.__version__):
        assert said in card
    assert str(tiny_llm.parent) not in card


def test_a_copy_whose_prompt_is_lost_is_not_published(
    tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = convert(str(tiny_llm), instruction=INSTRUCTION)
    written = model.prompts["query"]
    save = SentenceTransformer.save

    def forgetful(self: SentenceTransformer, folder: str, **options: bool) -> None:
        self.prompts["query"] = ""
        save(self, folder, **options)
        self.prompts["query"] = written

    monkeypatch.setattr(SentenceTransformer, "save", forgetful)
    with pytest.raises(ConversionError, match="differs from the one in memory: token ids of queries are not the same"):
        save_embedder(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_copy_with_another_weight_in_its_last_layer_is_not_published(
    tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The states that are compared are those of the first layers; weights are compared in all."""
    model = convert(str(tiny_llm))
    save = SentenceTransformer.save

    def careless(self: SentenceTransformer, folder: str, **options: bool) -> None:
        weight = self[0].model.layers[-1].mlp.up_proj.weight.data
        weight.mul_(2)
        save(self, folder, **options)
        weight.div_(2)

    monkeypatch.setattr(SentenceTransformer, "save", careless)
    with pytest.raises(ConversionError, match=r"1 weights are not the same, .*up_proj\.weight among them"):
        save_embedder(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_in_half_precision_a_copy_that_embeds_otherwise_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In wide embeddings each element is small: by the largest difference of elements these would be the same."""
    model = convert(str(make_llama(tmp_path / "llm", hidden_size=512)), dtype="bfloat16")
    module = sys.modules["st_reasoning.backbone.saving"]
    embeddings = module._first_embeddings

    def shifted(embedder: SentenceTransformer) -> dict[str, torch.Tensor]:
        found = embeddings(embedder)
        if embedder is not model:
            noise = torch.randn(2, 512, generator=torch.Generator().manual_seed(0))
            found["embeddings of documents"] = found["embeddings of documents"] + 0.007 * noise.clamp(-3, 3)
        return found

    monkeypatch.setattr(module, "_first_embeddings", shifted)
    with pytest.raises(ConversionError, match="embeddings of documents are not the same"):
        save_embedder(model, tmp_path / "out")


def test_the_proven_copy_takes_no_memory_for_its_weights(tmp_path: Path) -> None:
    """They are mapped from the files; a change of the library that copies them would need twice the model."""

    def anonymous() -> int:
        return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) * 1024

    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc")
    backbone = make_llama(tmp_path / "llm", hidden_size=1024)
    model = convert(str(backbone))
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    before, peak = anonymous(), 0
    module = sys.modules["st_reasoning.backbone.saving"]
    compare = module._compare_weights

    def watched(*models: SentenceTransformer) -> None:
        nonlocal peak
        compare(*models)
        peak = anonymous()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_compare_weights", watched)
        save_embedder(model, tmp_path / "out")
    assert peak - before < weights / 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pooling": "meen"}, "unknown pooling 'meen': did you mean 'mean'"),
        ({"attention": "both"}, "unknown attention 'both'"),
        ({"max_seq_length": 0}, "max_seq_length must be at least 1, got 0"),
        ({"dimension": -3}, "dimension must be at least 1, got -3"),
        ({"dimension": 33}, "dimension must be at most the width of .*, 32, got 33"),
        ({"dtype": "float8"}, "unknown dtype 'float8'"),
        ({"instruction_template": "Query: "}, "has no {instruction} in it"),
    ],
)
def test_wrong_options_are_named(tiny_llm: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        convert(str(tiny_llm), **options)


def test_what_is_no_backbone_is_refused(tmp_path: Path, tiny_llm: Path) -> None:
    with pytest.raises(InputError, match="no such backbone"):
        convert("./nowhere")
    with pytest.raises(InputError, match=r"has no config\.json"):
        convert(str(tmp_path))
    with pytest.raises(InputError, match=r"does not end in \.gguf"):
        convert(str(tiny_llm / "config.json"))
    with pytest.raises(InputError, match=r"the package 'no_such_package' .* is not installed"):
        convert("package:no_such_package/model.gguf")
    with pytest.raises(InputError, match="expected package:PACKAGE/FILE"):
        convert("package:no_such_package")
    with pytest.raises(InputError, match="name is empty"):
        convert("  ")
    with pytest.raises(InputError, match="cannot load the backbone 'no-org/no-model' on the hub"):
        convert("no-org/no-model")


def test_damaged_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    truncated = make_llama(tmp_path / "truncated")
    weights = truncated / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    no_tokenizer = make_llama(tmp_path / "no-tokenizer")
    for file in no_tokenizer.glob("tokenizer*"):
        file.unlink()
    said = {truncated: "its weights are damaged or incomplete", no_tokenizer: "it has no tokenizer, expected tokenizer"}
    for folder, reason in said.items():
        with pytest.raises(InputError, match=f"cannot load the backbone .*{folder.name}: {reason}") as caught:
            convert(str(folder))
        assert "\n" not in str(caught.value)


def test_an_encoder_is_refused(tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=600, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    make_tokenizer(tmp_path)
    with pytest.raises(InputError, match="is a t5 model; expected a causal language model"):
        convert(str(tmp_path))


@pytest.mark.real_model
def test_smollm2_from_inside_its_package(tmp_path: Path) -> None:
    """GGUF in a package nobody imports; saved although transformers refuses to save what it read from GGUF."""
    model = convert(SMOLLM2, instruction=INSTRUCTION)
    assert model.st_reasoning.attention.attention == "bidirectional"
    save_embedder(model, tmp_path / "out")
    copy = SentenceTransformer(str(tmp_path / "out"))
    np.testing.assert_allclose(copy.encode_query(TEXTS), model.encode_query(TEXTS), atol=1e-5)
    # Its BPE joins a space to the next word, and ":" to "(": only a line break is a boundary before any text.
    assert model.prompts["query"].endswith("\nQuery:\n")
    np.testing.assert_allclose(np.linalg.norm(model.encode_query(["a", "7", "(x)"]), axis=1), 1, atol=1e-5)
