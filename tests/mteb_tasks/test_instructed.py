"""Queries get the task's instruction, documents nothing: seen where texts reach the tokenizer."""

import json

import mteb
import pytest
from mteb.types import PromptType

import mteb_tasks  # noqa: F401
from mteb_tasks.benchmarks import _with_prompt
from st_reasoning.errors import InputError

TEMPLATE = "Instruct: {instruction}\nQuery:"
PROMPT = "Instruct: Given a math word problem, retrieve its worked solution.\nQuery:"


@pytest.fixture
def instructed(embedder):
    """An embedder with a template, whose default prompt would reach texts that are given no prompt."""
    folder = embedder("instructed", include_prompt=False, default_prompt="WRONG ")
    (folder / "st_reasoning.json").write_text(json.dumps({"instruction_template": TEMPLATE, "other": 1}))
    return folder


@pytest.fixture
def tokenized(monkeypatch):
    """Collect every text that a fast tokenizer is asked to encode."""
    from transformers import PreTrainedTokenizerFast

    texts = []
    encode = PreTrainedTokenizerFast._encode_plus

    def collect(self, text, *args, **kwargs):
        texts.extend([text] if isinstance(text, str) else text)
        return encode(self, text, *args, **kwargs)

    monkeypatch.setattr(PreTrainedTokenizerFast, "_encode_plus", collect)
    return texts


def evaluate(model, task, cache=None):
    mteb.evaluate(model, task, cache=cache, co2_tracker=False, show_progress_bar=False)


def test_only_queries_reach_the_tokenizer_with_the_instruction(instructed, tokenized, task_name):
    task = mteb.get_task(task_name)
    evaluate(mteb.get_model(str(instructed)), task)
    content = task.draw()
    # The prompt alone is tokenized too, to learn its length.
    assert set(tokenized) - {PROMPT} == {PROMPT + row["question"] for row in content} | {
        row["solution"] for row in content
    }


def test_pooling_learns_the_length_of_the_prompt(instructed, monkeypatch, task_name):
    model = mteb.get_model(str(instructed))
    pool, lengths = model.model[1].forward, []
    monkeypatch.setattr(
        model.model[1],
        "forward",
        lambda features, **kw: lengths.append(features.get("prompt_length")) or pool(features, **kw),
    )
    evaluate(model, mteb.get_task(task_name))
    # One token per character; three batches of queries, three of documents.
    assert sorted(lengths, key=str) == [len(PROMPT)] * 3 + [None] * 3


def test_a_folder_without_a_template_gets_no_instruction(embedder, tokenized, task_name):
    task = mteb.get_task(task_name)
    evaluate(mteb.get_model(str(embedder("plain"))), task)
    assert set(tokenized) == {text for row in task.draw() for text in row.values()}


@pytest.mark.parametrize("as_meta", [False, True])
def test_the_prompt_used_is_written_beside_the_scores(instructed, task_name, tmp_path, as_meta):
    model = mteb.get_model_meta(str(instructed)) if as_meta else mteb.get_model(str(instructed))
    evaluate(model, mteb.get_task(task_name), mteb.ResultCache(tmp_path / "out"))
    (settings,) = (tmp_path / "out" / "results").glob("*/*/run_settings.jsonl")
    (row,) = map(json.loads, settings.read_text().splitlines())
    assert row["encode_kwargs"]["prompt"] == {"query": PROMPT, "document": ""}
    meta = json.loads(settings.with_name("model_meta.json").read_text())
    assert meta["loader_kwargs"]["instruction_template"] == TEMPLATE


def test_a_changed_template_is_another_model(instructed):
    before = mteb.get_model_meta(str(instructed))
    assert before.use_instructions is True
    (instructed / "st_reasoning.json").write_text(json.dumps({"instruction_template": "{instruction}: "}))
    assert mteb.get_model_meta(str(instructed)).revision != before.revision


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("In one {word}.", "In one {word}."),
        ({"query": "Find it.", "document": "WRONG"}, "Find it."),
        ({"document": "WRONG"}, "Retrieve text based on user query."),
        (None, "Retrieve text based on user query."),
    ],
)
def test_the_instruction_is_the_tasks_or_that_of_its_mteb_class(instructed, prompt, expected):
    metadata = mteb.get_task("GSMSymbolicSolutionRetrieval").metadata.model_copy(update={"prompt": prompt})
    assert mteb.get_model(str(instructed)).query_prompt(metadata) == TEMPLATE.replace("{instruction}", expected)


@pytest.mark.parametrize(("side", "prompted"), [(PromptType.query, True), (None, True), (PromptType.document, False)])
def test_texts_of_tasks_without_sides_count_as_queries(instructed, tokenized, side, prompted):
    model = mteb.get_model(str(instructed))
    task = mteb.get_task("GSMSymbolicSolutionRetrieval")
    model.encode(
        [{"text": ["ab", "c"]}],
        task_metadata=task.metadata,
        hf_split="test",
        hf_subset="default",
        prompt_type=side,
    )
    assert set(tokenized) - {PROMPT} == ({PROMPT + "ab", PROMPT + "c"} if prompted else {"ab", "c"})


@pytest.mark.parametrize("template", ["Query: ", 3, ["{instruction}"]])
def test_a_template_without_a_place_for_the_instruction_is_refused(instructed, template):
    (instructed / "st_reasoning.json").write_text(json.dumps({"instruction_template": template}))
    with pytest.raises(
        InputError, match=r"st_reasoning\.json, instruction_template: expected a text with \{instruction\}"
    ):
        mteb.get_model_meta(str(instructed))


def test_no_template_may_be_said_with_null(instructed):
    (instructed / "st_reasoning.json").write_text(json.dumps({"instruction_template": None}))
    assert mteb.get_model_meta(str(instructed)).use_instructions is False


def test_scores_under_another_instruction_are_not_taken_for_these(instructed, task_name, tmp_path):
    model, cache = mteb.get_model_meta(str(instructed)), mteb.ResultCache(tmp_path / "out")
    evaluate(model, mteb.get_task(task_name), cache)
    evaluate(model, mteb.get_task(task_name), cache)  # the same: taken
    other = _with_prompt(mteb.get_task(task_name), "Find it.")
    with pytest.raises(InputError, match=r"asked with 'Instruct: Given .*, not with 'Instruct: Find it\."):
        evaluate(model, other, cache)
    mteb.evaluate(model, other, cache=cache, co2_tracker=False, overwrite_strategy="always")
    evaluate(model, other, cache)
