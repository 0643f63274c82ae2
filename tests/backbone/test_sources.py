"""What a backbone may be: with tied or untied embeddings, inside a model that reads images, or none at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from st_reasoning.attention import probe_attention
from st_reasoning.backbone import audit, convert, load_causal_lm, resolve, save_causal_lm, save_embedder
from st_reasoning.backbone.composite import language_part
from st_reasoning.errors import ConversionError, InputError
from st_reasoning.study.steps import convert_backbone
from tests.models import make_llama, make_tokenizer

TEXTS = ["How many apples does she have?", "7", "First add the apples to the pears: 3 + 4 = 7."]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
VISION = {**SMALL, "image_size": 16, "patch_size": 8}
TEXT = {
    "vocab_size": 600, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 256, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


def by_hand(model: PreTrainedModel, text: str) -> np.ndarray:
    """The embedding of a text by the definition: the mean of a causal LLM's final states with its mask taken away."""
    model.config.get_text_config().is_causal = False
    ids = AutoTokenizer.from_pretrained(model.name_or_path)(text, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        mean = model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0].mean(0)
    return (mean / mean.norm()).numpy()


def names_on_disk(folder: Path) -> set[str]:
    (file,) = folder.glob("*.safetensors")
    with safe_open(file, "pt") as weights:
        return set(weights.keys())


@pytest.mark.parametrize("tied", [True, False])
def test_tied_or_untied_the_embedder_is_the_same_model_without_its_head(tied: bool, tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "llm", tie_word_embeddings=tied)
    assert ("lm_head.weight" in names_on_disk(folder)) is not tied
    save_embedder(convert(str(folder)), tmp_path / "out")
    assert not any("head" in name for name in names_on_disk(tmp_path / "out"))
    whole = AutoModelForCausalLM.from_pretrained(folder).eval()
    for text, embedding in zip(TEXTS, SentenceTransformer(str(tmp_path / "out")).encode(TEXTS), strict=True):
        np.testing.assert_allclose(embedding, by_hand(whole, text), atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_a_backbone_written_anew_keeps_its_head(tied: bool, tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "llm", tie_word_embeddings=tied)
    save_causal_lm(*load_causal_lm(str(folder)), tmp_path / "copy")
    assert names_on_disk(tmp_path / "copy") == names_on_disk(folder)
    before, after = (AutoModelForCausalLM.from_pretrained(f).eval() for f in (folder, tmp_path / "copy"))
    assert (after.lm_head.weight is after.model.embed_tokens.weight) is tied
    ids = torch.arange(100, 120)[None]
    with torch.inference_mode():
        assert torch.equal(before(input_ids=ids).logits, after(input_ids=ids).logits)


# Models that read images as well


def gemma3() -> PreTrainedModel:
    images = {"image_token_index": 590, "boi_token_index": 591, "eoi_token_index": 592, "mm_tokens_per_image": 4}
    text = {**TEXT, "head_dim": 16, "sliding_window": 16}
    config = transformers.Gemma3Config(text_config=text, vision_config=VISION, **images)
    return transformers.Gemma3ForConditionalGeneration(config)


def qwen3_5() -> PreTrainedModel:
    linear = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_value_heads": 4}
    layers = {"layer_types": ["linear_attention", "full_attention"] * 2, "linear_num_key_heads": 2, "head_dim": 16}
    vision = {"hidden_size": 16, "depth": 1, "num_heads": 2, "intermediate_size": 16, "patch_size": 8}
    ids = {"image_token_id": 590, "video_token_id": 591, "vision_start_token_id": 592, "vision_end_token_id": 593}
    config = transformers.Qwen3_5Config(
        text_config={**TEXT, **linear, **layers},
        vision_config={**vision, "out_hidden_size": 32, "num_position_embeddings": 16},
        **ids,
    )
    return transformers.Qwen3_5ForConditionalGeneration(config)


def mllama() -> PreTrainedModel:
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_global_layers": 1, "attention_heads": 2, "image_size": 16}
    shape = {"intermediate_size": 16, "patch_size": 8, "vision_output_dim": 16, "intermediate_layers_indices": [0]}
    config = transformers.MllamaConfig(
        text_config={**TEXT, "cross_attention_layers": [1]},
        vision_config={**vision, **shape, "supported_aspect_ratios": [[1, 1]]},
    )
    return transformers.MllamaForConditionalGeneration(config)


def vit() -> PreTrainedModel:
    return transformers.ViTModel(transformers.ViTConfig(**VISION))


def clip() -> PreTrainedModel:
    text = {**SMALL, "vocab_size": 600, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16))


def bert() -> PreTrainedModel:
    return transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=600, **SMALL))


def write(make: Callable[[], PreTrainedModel], folder: Path) -> Path:
    torch.manual_seed(0)
    make().save_pretrained(folder)
    make_tokenizer(folder)
    return folder


@pytest.mark.parametrize(("make", "seen"), [(gemma3, "bidirectional"), (qwen3_5, "mixed")])
def test_of_a_model_that_reads_images_the_language_part_is_taken(
    make: Callable[[], PreTrainedModel], seen: str, tmp_path: Path
) -> None:
    """No image processor is at hand here, and none is needed; qwen3_5 is a hybrid, so it is accepted in part."""
    folder = write(make, tmp_path / "whole")
    if seen == "mixed":
        with pytest.raises(ConversionError, match="pass partial=True"):
            convert(str(folder))
    save_embedder(convert(str(folder), partial=True), tmp_path / "out")
    assert not any("vis" in name for name in names_on_disk(tmp_path / "out"))
    copy = SentenceTransformer(str(tmp_path / "out"))
    assert probe_attention(copy).attention == seen
    whole = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    for text, embedding in zip(TEXTS, copy.encode(TEXTS), strict=True):
        np.testing.assert_allclose(embedding, by_hand(whole, text), atol=1e-5)


@pytest.mark.parametrize("make", [gemma3, qwen3_5])
def test_the_language_part_says_what_the_whole_says(make: Callable[[], PreTrainedModel], tmp_path: Path) -> None:
    folder = write(make, tmp_path / "whole")
    save_causal_lm(*load_causal_lm(str(folder)), tmp_path / "part")
    whole = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    part = AutoModelForCausalLM.from_pretrained(tmp_path / "part").eval()
    assert part.num_parameters() < whole.num_parameters()
    ids = torch.arange(100, 140)[None]
    with torch.inference_mode():
        torch.testing.assert_close(part(input_ids=ids).logits, whole(input_ids=ids).logits)
    assert audit(str(folder), str(tmp_path / "part")).differences == ()


def test_a_language_part_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    whole = AutoModelForCausalLM.from_pretrained(write(gemma3, tmp_path)).eval()
    assert type(language_part(whole, "gemma")).__name__ == "Gemma3ForCausalLM"
    # As if the outer model did something to text before the inner one sees it.
    whole.model.register_forward_pre_hook(
        lambda module, given, named: (given, {**named, "input_ids": named["input_ids"] - 1}), with_kwargs=True
    )
    with pytest.raises(ConversionError, match="the language part of gemma alone changes final states by"):
        language_part(whole, "gemma")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (vit, "is a vit model; expected a causal language model"),
        (clip, "is a clip model; expected a causal language model"),
        (bert, "is a bert model; expected a causal language model"),
        (mllama, "is a mllama_text_model model whose language part transformers cannot load alone"),
    ],
)
def test_what_is_no_causal_language_model_is_refused_and_nothing_is_written(
    make: Callable[[], PreTrainedModel], said: str, tmp_path: Path
) -> None:
    folder = write(make, tmp_path / "model")
    for work in (convert, load_causal_lm, lambda name: convert_backbone(name, tmp_path / "out")):
        with pytest.raises(InputError, match=said) as caught:
            work(str(folder))
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


# A folder inside an installed package


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that is installed, raises when it is imported, and holds an LLM."""
    folder = tmp_path / "llm_in_a_package"
    make_llama(folder / "models" / "tiny")
    (folder / "__init__.py").write_text("raise ImportError('it needs what is not there')")
    (folder / "notes.txt").write_text("no model")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_a_folder_inside_a_package_is_the_same_backbone(package: Path, tmp_path: Path) -> None:
    name = "package:llm_in_a_package/models/tiny"
    found = resolve(name)
    assert (found.kind, found.label, found.location) == ("folder", "tiny", str(package / "models" / "tiny"))
    save_embedder(convert(name), tmp_path / "inside")
    save_embedder(convert(found.location), tmp_path / "by_path")
    first, second = (SentenceTransformer(str(tmp_path / copy)).encode(TEXTS) for copy in ("inside", "by_path"))
    np.testing.assert_array_equal(first, second)
    assert audit(name, found.location).differences == ()


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ("models/small", r"the package llm_in_a_package has no models/small; it holds models/tiny"),
        (
            "models",
            r"the folder package:llm_in_a_package/models has no config\.json; expected a folder of a causal LLM",
        ),
        ("notes.txt", r"is a file that does not end in \.gguf"),
        ("../elsewhere", r"leads out of the package llm_in_a_package"),
        ("", r"expected package:PACKAGE/FILE\.gguf or package:PACKAGE/FOLDER"),
    ],
)
def test_what_is_no_backbone_inside_a_package_is_refused(package: Path, inside: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        resolve(f"package:llm_in_a_package/{inside}")
