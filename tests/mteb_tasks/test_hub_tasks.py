"""The hub tasks, offline: on a few rows in the columns and files of the real data sets, through load_dataset itself."""

import hashlib

import mteb
import numpy as np
import pytest
from datasets import Dataset
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from sklearn.feature_extraction.text import HashingVectorizer

import mteb_tasks  # noqa: F401
from mteb_tasks.catalogue import HUB
from st_reasoning.errors import InputError

SUBJECTS = ("Algebra", "Counting & Probability", "Geometry", "Intermediate Algebra", "Number Theory", "Prealgebra",
            "Precalculus")  # fmt: skip
GSM8K = [
    {"question": "Ann sold 48 clips in April and half as many in May. How many in all? ",
     "answer": "In May: 48/2 = <<48/2=24>>24.\nAltogether: 48+24 = <<48+24=72>>72.\n#### 72"},
    {"question": "A pen costs $3. What do 4 pens cost?", "answer": "4 * 3 = <<4*3=12>>12\n#### 12"},
    {"question": "What do four pens cost at $3 each?", "answer": "4 * 3 = <<4*3=12>>12\n#### 12"},
    {"question": "Tom reads 7 pages on each of 5 days. How many pages?", "answer": "7 * 5 = <<7*5=35>>35\n#### 35"},
]  # fmt: skip
MATH500 = [
    {"problem": f"Problem {number} of {subject}: find $x_{{{number}}}$.", "solution": f"It is $\\boxed{{{number}}}$.",
     "answer": str(number), "subject": subject, "level": 1 + number % 5, "unique_id": f"test/{subject}/{number}.json"}
    for subject in SUBJECTS for number in range(20)
]  # fmt: skip
NUMINA = [
    {"source": source, "problem": f"Exercise {number} of {source}.", "solution": f"The answer to {number} of {source}.",
     "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]}
    for number in range(4) for source in ("cn_k12", "olympiads")
] + [{"source": "cn_k12", "problem": "Exercise 0 of cn_k12. ", "solution": "Again.", "messages": []}]  # fmt: skip


def mmlu_pro():
    rows = []
    for place, category in enumerate(("biology", "law", "computer science")):
        for number in range(40):
            options = [f"Option {number}.{letter} of {category}" for letter in "ABC"]
            rows.append(
                {"question_id": 100 * place + number, "question": f"Question {number} of {category}?",
                 "options": ["None of these", *options, "N/A"], "answer": "B", "answer_index": number % 2,
                 "cot_content": "", "category": category, "src": "stemez"}
            )  # fmt: skip
    rows.append({**rows[0], "question_id": 999})  # the card says that there are questions twice
    return rows


AG_NEWS = [
    {"text": f"News {number} of topic {topic}: shares of a company rose, and a team won.", "label": topic}
    for topic in range(4) for number in range(70)
]  # fmt: skip

# What the repository holds, by its path: the rows and the README that names the files of a configuration.
REPOSITORIES = {
    "openai/gsm8k": ("main/test-00000-of-00001.parquet", GSM8K, ("main", "test", "main/test-*")),
    "HuggingFaceH4/MATH-500": ("test.jsonl", MATH500, None),
    "AI-MO/NuminaMath-CoT": ("data/train-00000-of-00001.parquet", NUMINA, ("default", "train", "data/train-*")),
    "fancyzhx/ag_news": ("data/test-00000-of-00001.parquet", AG_NEWS, ("default", "test", "data/test-*")),
    "TIGER-Lab/MMLU-Pro": ("data/test-00000-of-00001.parquet", mmlu_pro(), ("default", "test", "data/test-*")),
}


@pytest.fixture
def local(tmp_path, monkeypatch):
    """Point a hub task to a local folder in the layout of its repository."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def make(name, change=lambda rows: rows):
        task = mteb.get_task(name)
        path = task.metadata.dataset["path"]
        file, rows, configuration = REPOSITORIES[path]
        target = tmp_path / path / file
        target.parent.mkdir(parents=True)
        data = Dataset.from_list(change(rows))
        (data.to_json if file.endswith("jsonl") else data.to_parquet)(target)
        if configuration:
            config, split, files = configuration
            (tmp_path / path / "README.md").write_text(
                f"---\nconfigs:\n- config_name: {config}\n  data_files:\n  - split: {split}\n    path: {files}\n---\n"
            )
        there = {**task.metadata.dataset, "path": str(tmp_path / path)}
        task.metadata = task.metadata.model_copy(update={"dataset": there})
        return task

    return make


class Words(AbsEncoder):
    """Texts as counts of their words."""

    mteb_model_meta = ModelMeta.create_empty()

    def encode(self, inputs, **_):
        texts = [text for batch in inputs for text in batch["text"]]
        return HashingVectorizer(n_features=512).transform(texts).toarray().astype(np.float32)


def retrieval(task):
    task.load_data()
    data = task.dataset["default"]["test"]
    texts = {side: dict(zip(data[side]["id"], data[side]["text"], strict=True)) for side in ("queries", "corpus")}
    found = {
        texts["queries"][query]: {texts["corpus"][document] for document in documents}
        for query, documents in data["relevant_docs"].items()
    }
    return found, list(texts["corpus"].values())


@pytest.mark.parametrize("task", HUB)
def test_metadata_are_complete_pinned_and_new(task):
    metadata = task.metadata
    assert metadata.is_filled()
    assert len(metadata.revision) == 40
    assert metadata.prompt
    theirs = {t.metadata.dataset["path"] for t in mteb.get_tasks() if not type(t).__module__.startswith("mteb_tasks")}
    assert metadata.dataset["path"] not in theirs


@pytest.mark.parametrize("task", HUB)
def test_every_task_runs_to_its_main_score(local, task):
    (result,) = mteb.evaluate(Words(), local(task.metadata.name), cache=None, show_progress_bar=False).task_results
    (scores,) = result.scores["test"]
    assert 0 < scores["main_score"] == scores[task.metadata.main_score] <= 1


def test_gsm8k_pairs_questions_with_readable_solutions(local):
    found, corpus = retrieval(local("GSM8KSolutionRetrieval"))
    assert found[GSM8K[0]["question"].strip()] == {"In May: 48/2 = 24.\nAltogether: 48+24 = 72.\n#### 72"}
    # Two questions share a solution: it is one document, and relevant to both.
    assert found[GSM8K[1]["question"]] == found[GSM8K[2]["question"]] == {"4 * 3 = 12\n#### 12"}
    assert len(corpus) == 3


def test_math500_solutions_that_are_equal_are_one_document(local):
    found, corpus = retrieval(local("MATH500SolutionRetrieval"))
    assert len(found) == 140
    assert sorted(corpus) == sorted({row["solution"] for row in MATH500})


def test_numinamath_keeps_its_source_and_each_exercise_once(local, monkeypatch):
    found, corpus = retrieval(local("NuminaMathK12SolutionRetrieval"))
    assert found == {row["problem"]: {row["solution"]} for row in NUMINA[:8] if row["source"] == "cn_k12"}
    assert len(corpus) == 4


def test_numinamath_draws_by_hash(local, monkeypatch):
    monkeypatch.setattr("mteb_tasks.retrieval.numinamath.PROBLEMS", 2)
    found, _ = retrieval(local("NuminaMathK12SolutionRetrieval", change=lambda rows: rows[::-1]))
    exercises = {row["problem"].strip() for row in NUMINA if row["source"] == "cn_k12"}
    assert list(found) == sorted(exercises, key=lambda text: hashlib.sha256(text.encode()).hexdigest())[:2]


def test_mmlu_pro_options_are_the_corpus(local):
    found, corpus = retrieval(local("MMLUProAnswerRetrieval"))
    assert len(found) == 120  # the question that occurs twice is one
    assert found["Question 3 of law?"] == {"Option 3.A of law"}
    assert found["Question 4 of law?"] == {"None of these"}  # shared by all questions: one document
    assert len(corpus) == len(set(corpus)) == 3 * 120 + 1
    assert "N/A" not in corpus


def test_mmlu_pro_answers_outside_the_options_are_refused(local):
    def change(rows):
        return [{**row, "answer_index": 7} if row["question_id"] == 5 else row for row in rows]

    with pytest.raises(InputError, match=r"answer_index 7 of 'Question 5 of biology\?'; expected one of its 5 options"):
        local("MMLUProAnswerRetrieval", change).load_data()


@pytest.mark.parametrize(("name", "per_label", "labels"), [
    ("MATH500SubjectClassification", 16, set(SUBJECTS)),
    ("MMLUProCategoryClassification", 32, {"biology", "law", "computer science"}),
])  # fmt: skip
def test_classification_splits_are_disjoint_and_independent_of_the_order(local, name, per_label, labels):
    task = local(name, change=lambda rows: rows[::-1])
    task.load_data()
    train, test = task.dataset["train"], task.dataset["test"]
    assert {label: train["label"].count(label) for label in labels} == dict.fromkeys(labels, per_label)
    assert not set(train["text"]) & set(test["text"])
    assert set(test["label"]) == labels
    assert len(set(train["text"])) + len(set(test["text"])) == len(train) + len(test) == {16: 140, 32: 120}[per_label]
    by_hash = sorted((*train["text"], *test["text"]), key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    first = [text for text in by_hash if "Geometry" in text or "law" in text][:per_label]
    assert set(first) <= set(train["text"])


def test_the_test_part_is_bounded(local, monkeypatch):
    monkeypatch.setattr("mteb_tasks.classification.mmlu_pro.TEST", 10)
    task = local("MMLUProCategoryClassification")
    task.load_data()
    assert len(task.dataset["test"]) == 10


def test_clustering_sees_each_problem_once_with_its_subject(local):
    task = local("MATH500SubjectClustering")
    task.load_data()
    assert dict(zip(task.dataset["test"]["sentences"], task.dataset["test"]["labels"], strict=True)) == {
        row["problem"]: row["subject"] for row in MATH500
    }


def test_other_columns_are_refused(local):
    task = local("MATH500SubjectClustering", lambda rows: [{"problem": r["problem"], "type": "x"} for r in rows])
    with pytest.raises(InputError, match="has no column subject; expected problem, subject, got problem, type"):
        task.load_data()


def test_the_analysis_of_news_takes_so_many_texts_of_each_topic(local):
    task = local("HRSAGeneral")
    task.load_data()
    rows = task.dataset["default"]["test"]
    labels = np.array(rows["label"])
    assert np.bincount(labels).tolist() == [64] * 4
    order = [hashlib.sha256(text.encode()).digest() for text in rows["text"]]
    assert order == sorted(order)
    assert task.metadata.is_filled()
    statistics = task._calculate_descriptive_statistics_from_split("test")
    assert statistics["num_samples"] == 256


def test_news_without_topics_are_refused(local):
    task = local("HRSAGeneral", lambda rows: [{"text": row["text"]} for row in rows])
    with pytest.raises(InputError, match="has no column label"):
        task.load_data()
