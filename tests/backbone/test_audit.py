"""The audit: each difference is made on purpose, on tiny models, and only that one may be reported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer

from st_reasoning import audit
from st_reasoning.backbone import Audit, convert, refuse_unequal, save_embedder
from st_reasoning.backbone.audit import NAMES
from st_reasoning.backbone.inputs import TEXTS, stored_dtype
from st_reasoning.errors import InputError
from tests.models import SMOLLM2, make_llama, make_tokenizer


def edit(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def set_in(file: str, **values: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / file, lambda content: content.update(values))


def in_tokenizer(**attributes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for name, value in attributes.items():
            setattr(tokenizer, name, value)
        tokenizer.save_pretrained(folder)

    return change


def give(template: str) -> Callable[[Path], None]:
    """Change what is put around a plain text."""

    def change(folder: Path) -> None:
        from tokenizers import Tokenizer
        from tokenizers.processors import TemplateProcessing

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=[("<s>", 1), ("</s>", 2)])
        tokenizer.save(str(folder / "tokenizer.json"))

    return change


def rope(**parameters: Any) -> Callable[[Path], None]:
    return set_in("config.json", rope_parameters=parameters)


def swap(first: str, second: str) -> Callable[[Path], None]:
    def change(content: dict[str, Any]) -> None:
        vocabulary = content["model"]["vocab"]
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]

    return lambda folder: edit(folder / "tokenizer.json", change)


def forget_a_merge(folder: Path) -> None:
    edit(folder / "tokenizer.json", lambda content: content["model"]["merges"].pop())


# What is done to the reasoning model -> what the audit must say, and how it shows the two.
CHANGES: dict[str, tuple[Callable[[Path], None], dict[str, tuple[str, str]]]] = {
    "another chat template": (
        in_tokenizer(chat_template="{{ messages }}"),
        {"chat_template": ("152 characters", "14 characters")},
    ),
    "no chat template": (
        lambda folder: (folder / "chat_template.jinja").unlink(),
        {"chat_template": ("152 characters", "none")},
    ),
    "another BOS": (in_tokenizer(bos_token="</s>"), {"special_tokens": ("bos <s>=1", "bos </s>=2")}),
    "another pad": (in_tokenizer(pad_token="<unk>"), {"pad_token": ("</s>=2", "<unk>=0")}),
    "EOS appended": (
        give("$A </s>"),
        {"added_tokens": ("nothing before, nothing after", "nothing before, </s> after")},
    ),
    "BOS added": (give("<s> $A"), {"added_tokens": ("nothing before, nothing after", "<s> before, nothing after")}),
    "padded left": (set_in("tokenizer_config.json", padding_side="left"), {"padding_side": ("right", "left")}),
    "two letters swapped that no text has": (swap("Q", "V"), {"vocabulary": ("Q is", "Q is")}),
    "two letters swapped": (
        swap("m", "z"),
        {"vocabulary": ("m is", "m is"), "token_ids": (TEXTS[2], " of ")},
    ),
    "a merge forgotten": (forget_a_merge, {"token_ids": (" at ", " at ")}),
    "stored in bfloat16": (set_in("config.json", dtype="bfloat16"), {"dtype": ("float32", "bfloat16")}),
    "quantised": (
        set_in("config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        {"dtype": ("float32", "float32, bitsandbytes")},
    ),
    "bidirectional": (
        set_in("config.json", is_causal=False),
        {"attention": ("causal", "bidirectional")},
    ),
    "no class named": (set_in("config.json", architectures=None), {}),  # as in GGUF: the same class is loaded
    "another class": (
        set_in("config.json", architectures=["LlamaModel"]),
        {"attention": ("LlamaForCausalLM", "LlamaModel")},
    ),
    "windowed": (set_in("config.json", sliding_window=64), {"attention": ("none", "window 64")}),
    "some layers windowed": (
        set_in("config.json", layer_types=["sliding_attention", "full_attention", "full_attention"]),
        {"attention": ("none", "1 sliding, 2 full")},
    ),
    "another RoPE base": (rope(rope_type="default", rope_theta=5e5), {"rope": ("theta 10000", "theta 500000")}),
    "RoPE scaled": (
        rope(rope_type="linear", rope_theta=1e4, factor=4.0),
        {"rope": ("type default", "type linear, factor 4")},
    ),
    # As transformers 4 wrote it: the same angles under another name.
    "RoPE base in its old place": (
        lambda folder: edit(
            folder / "config.json", lambda c: c.update(rope_theta=c.pop("rope_parameters")["rope_theta"])
        ),
        {},
    ),
    "some layers without RoPE": (
        set_in("config.json", no_rope_layers=[1, 1, 0]),
        {"rope": ("none", "no_rope_layers [1, 1, 0]")},
    ),
    "wider": (lambda folder: remake(folder, hidden_size=64), {"depth_and_width": ("3 layers x 32", "3 layers x 64")}),
    "deeper": (lambda folder: remake(folder, layers=4), {"depth_and_width": ("3 layers x 32", "4 layers x 32")}),
    "fewer positions": (
        set_in("config.json", max_position_embeddings=256),
        {"max_length": ("positions 512", "positions 256")},
    ),
    "shorter texts": (in_tokenizer(model_max_length=128), {"max_length": ("tokenizer 512", "tokenizer 128")}),
    "cut on the left": (
        set_in("tokenizer_config.json", truncation_side="left"),
        {"max_length": ("cut right", "cut left")},
    ),
}


def remake(folder: Path, **size: int) -> None:
    shutil.rmtree(folder)
    make_llama(folder, **size)


@pytest.fixture
def other(tiny_llm: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_llm, tmp_path / "other")


def test_equal_arms_are_equal_in_every_point(tiny_llm: Path, tmp_path: Path) -> None:
    found = audit(str(tiny_llm), str(make_llama(tmp_path / "other", seed=1)))  # other weights, same inputs
    assert found.differences == ()
    assert tuple(f.name for f in found.findings) == NAMES
    assert all(f.base == f.reasoning and f.why for f in found.findings)
    assert found.to_mapping()["equal"] is True
    assert found.describe().endswith("All 13 are equal.")
    refuse_unequal(found)


@pytest.mark.parametrize("name", CHANGES)
def test_each_difference_is_found_and_nothing_else(name: str, tiny_llm: Path, other: Path) -> None:
    change, expected = CHANGES[name]
    change(other)
    found = audit(str(tiny_llm), str(other))
    assert {f.name for f in found.differences} == set(expected)
    assert found.to_mapping()["equal"] is not bool(expected)
    for finding in found.differences:
        base, reasoning = expected[finding.name]
        assert base in finding.base
        assert reasoning in finding.reasoning
        assert finding.base != finding.reasoning


def test_every_name_can_be_provoked() -> None:
    """A check that never fails checks nothing; the boundary has a test of its own below."""
    assert {name for _, expected in CHANGES.values() for name in expected} | {"prompt_boundary"} == set(NAMES)


def test_a_prompt_that_must_end_otherwise_is_a_difference(tiny_llm: Path, other: Path) -> None:
    """Split as digits only, the same vocabulary does not join a space to the next word: the wish is exact as it is."""
    edit(
        other / "tokenizer.json",
        lambda content: content.update(
            pre_tokenizer={
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated", "invert": False},
                    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
                ],
            }
        ),
    )
    found = {f.name: f for f in audit(str(tiny_llm), str(other)).differences}
    assert set(found) == {"prompt_boundary", "token_ids"}
    assert found["prompt_boundary"].base.endswith("Query:'")
    assert found["prompt_boundary"].reasoning.endswith("Query: '")
    same = audit(str(tiny_llm), str(other), instruction_template="{instruction}\n")
    assert [f.name for f in same.differences] == ["token_ids"]


def test_ids_are_shown_where_they_part(tiny_llm: Path, other: Path) -> None:
    swap("m", "z")(other)
    finding = next(f for f in audit(str(tiny_llm), str(other)).differences if f.name == "token_ids")
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (tiny_llm, other)]
    text = next(t for t in TEXTS if tokenizers[0](t)["input_ids"] != tokenizers[1](t)["input_ids"])
    ids, others = (t(text)["input_ids"] for t in tokenizers)
    start = next(k for k in range(len(ids)) if ids[k] != others[k])
    assert finding.base == f"{text}: {ids[start : start + 3]} at {start} of {len(ids)}"
    assert finding.reasoning == f"{others[start : start + 3]} at {start} of {len(others)}"


def test_pad_is_the_one_that_the_conversion_would_choose(tiny_llm: Path, other: Path) -> None:
    """A fine-tuning writes EOS as pad token where the base has none; the conversion chooses the same."""
    in_tokenizer(pad_token="</s>")(other)
    found = audit(str(tiny_llm), str(other))
    assert found.differences == ()
    settled = convert(str(tiny_llm)).st_reasoning.special_tokens["pad"]
    assert next(f for f in found.findings if f.name == "pad_token").base == f"{settled}=2"


def test_each_kind_of_layer_has_its_rope(tmp_path: Path) -> None:
    config = AutoConfig.for_model("gemma3_text", vocab_size=600, hidden_size=32, num_hidden_layers=2)
    for theta in (1e4, 2e4):
        config.rope_parameters["sliding_attention"]["rope_theta"] = theta
        config.save_pretrained(tmp_path / str(theta))
        make_tokenizer(tmp_path / str(theta))
    (finding,) = audit(*(str(tmp_path / str(theta)) for theta in (1e4, 2e4))).differences
    assert finding.name == "rope"
    assert finding.base == "sliding_attention.rope_theta 10000"
    assert finding.reasoning == "sliding_attention.rope_theta 20000"


def test_no_weights_are_read(tiny_llm: Path, other: Path) -> None:
    (other / "model.safetensors").unlink()
    assert audit(str(tiny_llm), str(other)).differences == ()


def test_an_embedder_is_seen_as_it_attends_and_cuts(tiny_llm: Path, tmp_path: Path) -> None:
    save_embedder(convert(str(tiny_llm), max_seq_length=64), tmp_path / "embedder")
    found = {f.name: f for f in audit(str(tiny_llm), str(tmp_path / "embedder")).differences}
    assert set(found) == {"attention", "max_length"}
    assert "bidirectional" in found["attention"].reasoning
    assert "embedder 64" in found["max_length"].reasoning


def test_an_adapter_is_seen_as_its_base(tiny_llm: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tiny_llm)}))
    assert audit(str(tiny_llm), str(adapter)).differences == ()
    AutoTokenizer.from_pretrained(tiny_llm).save_pretrained(adapter)
    (adapter / "chat_template.jinja").unlink()  # a tokenizer of its own wins
    assert [f.name for f in audit(str(tiny_llm), str(adapter)).differences] == ["chat_template"]
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="does not name its base model"):
        audit(str(tiny_llm), str(adapter))


def test_the_table_marks_and_explains_what_differs(tiny_llm: Path, other: Path) -> None:
    set_in("tokenizer_config.json", padding_side="left")(other)
    (other / "chat_template.jinja").unlink()
    found = audit(str(tiny_llm), str(other))
    lines = found.describe().splitlines()
    marked = [line.split()[1] for line in lines[: len(NAMES) + 1] if line.startswith("!")]
    assert marked == ["chat_template", "padding_side"]
    assert "2 of 13 differ:" in lines
    assert all(f"! {f.name}: {f.why}" in lines for f in found.differences)
    assert max(map(len, lines[: len(NAMES) + 1])) < 130


def test_what_a_tokenizer_says_cannot_drive_the_terminal(tiny_llm: Path, other: Path) -> None:
    in_tokenizer(bos_token="\x1b[2J\n")(other)
    (finding,) = (f for f in audit(str(tiny_llm), str(other)).differences if f.name == "special_tokens")
    assert finding.reasoning.isprintable()
    assert "\\x1b" in finding.reasoning


# refusal


def unequal(tiny_llm: Path, other: Path) -> Audit:
    set_in("tokenizer_config.json", padding_side="left")(other)
    (other / "chat_template.jinja").unlink()
    return audit(str(tiny_llm), str(other))


def test_what_differs_is_refused_by_name_unless_waived(tiny_llm: Path, other: Path) -> None:
    found = unequal(tiny_llm, other)
    with pytest.raises(InputError) as refused:
        refuse_unequal(found)
    for part in (
        str(tiny_llm),
        str(other),
        "padding_side (right against left)",
        "waive: [chat_template, padding_side]",
    ):
        assert part in str(refused.value)
    with pytest.raises(InputError) as refused:
        refuse_unequal(found, waive=["padding_side"])
    assert "padding_side (" not in str(refused.value)
    assert "waive: [chat_template, padding_side]" in str(refused.value)  # to copy, so it keeps what is waived already
    refuse_unequal(found, waive=["chat_template", "padding_side"])
    refuse_unequal(found, waive=NAMES)


def test_an_unknown_waiver_is_answered_with_what_it_may_have_meant(tiny_llm: Path, other: Path) -> None:
    with pytest.raises(InputError, match="unknown finding 'chat_tempalte' in waive: did you mean 'chat_template'"):
        refuse_unequal(unequal(tiny_llm, other), waive=["chat_tempalte"])


def test_what_cannot_be_loaded_is_named(tiny_llm: Path, other: Path) -> None:
    with pytest.raises(InputError, match="no such backbone"):
        audit(str(tiny_llm), "./nowhere")
    with pytest.raises(InputError, match=r"other.*: the instruction template 'Do it' has no"):
        audit(str(other), str(tiny_llm), instruction_template="Do it")
    (other / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot load the backbone"):
        audit(str(tiny_llm), str(other))


@pytest.mark.real_model
def test_gguf_says_how_it_is_quantised() -> None:
    assert sorted(stored_dtype(SMOLLM2).removeprefix("GGUF ").split(", ")) == ["F32", "Q4_1", "Q8_0"]
