"""Training data: every form and storage to the same examples, and rows that are none."""

from __future__ import annotations

import gzip
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from st_reasoning.config import parse
from st_reasoning.errors import InputError
from st_reasoning.training import DataSet, Generated, Hub, TrainingData, TrainingRecipe, load_data
from st_reasoning.training.data import BadRows, examples_hash, read_examples

INSTRUCTION = "Given a question, retrieve its answer"
N = 2

# More than one batch of the hash, texts of several scripts, and one that JSON has to escape.
ROWS = [
    {
        "query": f"question {i} - 数学",
        "positive": f'the "answer"\n{i}',
        **{f"negative_{k}": f"no {i} {k}\u2028é" for k in (1, 2)},
    }
    for i in range(1203)
]
EXPECTED = [{"instruction": INSTRUCTION, **row} for row in ROWS]


def authors(row: dict[str, Any]) -> dict[str, Any]:
    negatives = [row[f"negative_{k}"] for k in range(1, N + 1)]
    return {"query": [INSTRUCTION, row["query"]], "pos": [row["positive"]], "neg": [*negatives, "one more"]}


def gritlm(row: dict[str, Any]) -> dict[str, Any]:
    found = authors(row)
    return {**found, **{column: [["", text] for text in found[column]] for column in ("pos", "neg")}}


def write_lines(path: Path, rows: list[Any], *, ascii_only: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
    with gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb") as stream:
        stream.write(text.encode())
    return path


def write_parquet(path: Path, rows: list[Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows).to_parquet(path, **options)
    return path


def folder(path: Path) -> Path:
    write_lines(path / "a.jsonl", ROWS[:500])
    write_lines(path / "b.json.gz", ROWS[500:900])
    write_parquet(path / "sub" / "c.parquet", ROWS[900:])
    # Neither is data: what else lies about, and what is half written.
    (path / "README.md").write_text("# about")
    write_lines(path / "a.jsonl.record.json", [{"rows": 3}])
    write_lines(path / ".cache" / "x.jsonl", ROWS[:1])
    return path


def recipe(*data: DataSet, **changes: Any) -> TrainingRecipe:
    return TrainingRecipe(**{"data": data, "hard_negatives": N, **changes})


def read(path: Path, *, instruction: str = INSTRUCTION, **changes: Any) -> TrainingData:
    return load_data(recipe(DataSet("mine", instruction, path=str(path)), **changes))


STORED = {
    "jsonl": lambda f: write_lines(f / "x.jsonl", ROWS),
    "jsonl, escaped": lambda f: write_lines(f / "x.jsonl", ROWS, ascii_only=True),
    "jsonl.gz": lambda f: write_lines(f / "x.jsonl.gz", ROWS),
    "parquet": lambda f: write_parquet(f / "x.parquet", ROWS),
    "parquet, small row groups": lambda f: write_parquet(f / "x.parquet", ROWS, batch_size=7),
    "authors, jsonl": lambda f: write_lines(f / "x.jsonl", [authors(r) for r in ROWS]),
    "authors, parquet": lambda f: write_parquet(f / "x.parquet", [authors(r) for r in ROWS]),
    "gritlm, jsonl": lambda f: write_lines(f / "x.jsonl", [gritlm(r) for r in ROWS]),
    "gritlm, parquet": lambda f: write_parquet(f / "x.parquet", [gritlm(r) for r in ROWS]),
    "folder": lambda f: folder(f / "folder"),
}


@pytest.fixture
def expected_hash() -> str:
    """Of the same examples, held in memory."""
    return examples_hash({"mine": datasets.Dataset.from_list(EXPECTED)})


@pytest.mark.parametrize("name", STORED)
def test_every_form_and_storage_gives_the_same_examples_and_hash(name: str, tmp_path: Path, expected_hash: str) -> None:
    # Where rows carry their instruction, the data set's is another one.
    of_set = "unused" if name.startswith(("authors", "gritlm")) else INSTRUCTION
    data = read(STORED[name](tmp_path), instruction=of_set)
    assert data.datasets["mine"].column_names == ["instruction", "query", "positive", "negative_1", "negative_2"]
    assert {str(f.dtype) for f in data.datasets["mine"].features.values()} == {"string"}
    assert data.datasets["mine"].to_list() == EXPECTED
    assert (data.hash, data.examples, data.bad_rows, data.bad_row_names) == (expected_hash, len(ROWS), 0, ())


def test_the_hash_sees_every_change() -> None:
    def of(rows: list[dict[str, str]], name: str = "mine") -> str:
        return examples_hash({name: datasets.Dataset.from_list(rows)})

    rows = [{"instruction": "", "query": "ab", "positive": "c"}, {"instruction": "", "query": "d", "positive": "e"}]
    moved = [{"instruction": "", "query": "a", "positive": "bc"}, rows[1]]
    across = [{"instruction": "", "query": "abd", "positive": "c"}, {"instruction": "", "query": "", "positive": "e"}]
    renamed = [{"instruction": "", "query": r["query"], "negative": r["positive"]} for r in rows]
    changed = [of(rows[::-1]), of(moved), of(across), of(renamed), of(rows, "other"), of(rows[:1])]
    assert len({of(rows), *changed}) == 7
    # A view into a larger table is hashed as what it shows.
    assert examples_hash({"mine": datasets.Dataset.from_list([*moved, *rows]).select(range(2, 4))}) == of(rows)


def test_instructions_come_from_the_query_the_row_or_the_data_set(tmp_path: Path) -> None:
    plain = {"pos": ["p"], "neg": ["n", "n"]}
    rows = [
        {"query": ["of the query", "q"], **plain, "instruction": "of the row"},
        {"query": "q", **plain, "instruction": "of the row"},
        {"query": ["", "q"], **plain},
        {"query": "q", **plain, "instruction": None},
        {"query": "q", **plain},
        {"query": "q", **plain, "instruction": " "},
    ]
    found = read(write_lines(tmp_path / "x.jsonl", rows)).datasets["mine"]["instruction"]
    assert list(found) == ["of the query", "of the row", "", INSTRUCTION, INSTRUCTION, ""]
    columns = [{**ROWS[0], "instruction": "of the row"}, ROWS[1]]
    for path in (write_lines(tmp_path / "y.jsonl", columns), write_parquet(tmp_path / "y.parquet", columns)):
        assert list(read(path).datasets["mine"]["instruction"]) == ["of the row", INSTRUCTION]
        assert list(read(path, instruction="").datasets["mine"]["instruction"]) == ["of the row", ""]


GOOD, GOOD_LISTS = ROWS[0], authors(ROWS[0])

# Name -> the line, and what is said of it.
BAD_LINES: dict[str, tuple[bytes, str]] = {
    "broken JSON": (b'{"query": "q"', "not JSON (Expecting ',' delimiter"),
    "not UTF-8": (b'{"query": "\xff"}', "not UTF-8"),
    "a list": (b"[1]", "expected a JSON object, got list"),
    "nested too deeply": (b"[" * 100_000, "not JSON ("),
    "missing column": (
        json.dumps({k: v for k, v in GOOD.items() if k != "negative_2"}).encode(),
        "expected a text in 'negative_2', got nothing (form: query, positive, negative_1 ... negative_n)",
    ),
    "empty": (json.dumps({**GOOD, "positive": " \n"}).encode(), "expected a text in 'positive', got ' \\n'"),
    "a number": (json.dumps({**GOOD, "query": 7}).encode(), "expected a text in 'query', got 7"),
    "a list in columns": (json.dumps({**GOOD, "query": ["i", "q"]}).encode(), "in 'query', got ['i', 'q']"),
    "a numeric instruction": (json.dumps({**GOOD, "instruction": 1}).encode(), "as the instruction in 'instruction'"),
    "half a character": (json.dumps(GOOD).replace("question", "\\ud83d").encode(), "half a surrogate pair"),
}
BAD_LISTS: dict[str, tuple[dict[str, Any], str]] = {
    "too few negatives": (
        {**GOOD_LISTS, "neg": ["n"]},
        "expected at least 2 documents in 'neg', got 1 (form: query, pos",
    ),
    "no negatives": ({k: v for k, v in GOOD_LISTS.items() if k != "neg"}, "documents in 'neg', got 0"),
    "no positive": ({**GOOD_LISTS, "pos": []}, "at least one document in 'pos', got an empty list"),
    "text for a list": ({**GOOD_LISTS, "pos": "p"}, "expected a list of documents in 'pos', got 'p'"),
    "empty positive": ({**GOOD_LISTS, "pos": ["", "p"]}, "expected a text in 'pos', got ''"),
    "document with instruction": ({**GOOD_LISTS, "neg": [["find", "n"]] * 2}, "without an instruction in 'neg'"),
    "long pair": ({**GOOD_LISTS, "pos": [["", "p", "p"]]}, "texts or pairs ['', text] in 'pos'"),
    "long query": ({**GOOD_LISTS, "query": ["a", "b", "c"]}, "expected [instruction, text] or a text in 'query'"),
    "numeric instruction": ({**GOOD_LISTS, "query": [1, "b"]}, "expected a text as the instruction in 'query', got 1"),
    "null query": ({**GOOD_LISTS, "query": None}, "expected a text in 'query', got nothing"),
}


@pytest.mark.parametrize("name", [*BAD_LINES, *BAD_LISTS])
def test_a_bad_row_stops_the_run_or_is_dropped_and_named(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if name in BAD_LINES:
        line, said = BAD_LINES[name]
        good = json.dumps(GOOD).encode()
    else:
        row, said = BAD_LISTS[name]
        line, good = json.dumps(row).encode(), json.dumps(GOOD_LISTS).encode()
    path = tmp_path / "x.jsonl"
    path.write_bytes(good + b"\n \n" + line + b"\n" + good)
    with pytest.raises(InputError) as refused:
        read(path)
    assert str(refused.value).startswith(f"1 bad row: {path}, line 3: ")
    assert said in str(refused.value)
    assert str(refused.value).endswith("; max_bad_rows allows 0")
    # Dropped, and again when the examples come from the cache.
    for _ in range(2):
        caplog.clear()
        data = read(path, max_bad_rows=1)
        assert data.datasets["mine"].to_list() == EXPECTED[:1] * 2
        assert data.bad_rows == 1
        (named,) = data.bad_row_names
        assert named.startswith(f"{path}, line 3: ")
        assert said in named
        assert caplog.record_tuples == [("st_reasoning.training.data", logging.WARNING, f"dropped 1 bad row: {named}")]
    # What is cached is no way around the limit.
    with pytest.raises(InputError, match="max_bad_rows allows 0"):
        read(path)


def test_bad_rows_are_counted_over_all_data_sets_and_the_first_named(tmp_path: Path) -> None:
    bad = {**GOOD, "query": ""}
    first = write_parquet(tmp_path / "first.parquet", [GOOD, bad, bad, GOOD])
    second = write_lines(tmp_path / "second.jsonl", [bad] * 5 + [GOOD])
    sets = DataSet("a", path=str(first)), DataSet("b", path=str(second))
    data = load_data(recipe(*sets, max_bad_rows=7))
    assert (data.examples, data.bad_rows) == (3, 7)
    places = [f"{first}, row 2", f"{first}, row 3", *(f"{second}, line {k}" for k in (1, 2, 3))]
    assert [name.split(": ")[0] for name in data.bad_row_names] == places
    for _ in range(2):
        with pytest.raises(InputError, match=r"second\.jsonl, line 5.* \(and 2 in other data sets\); .* allows 6$"):
            load_data(recipe(*sets, max_bad_rows=6))
    assert BadRows(9, count=8, names=["x, line 1: bad"]).describe() == "8 bad rows: x, line 1: bad; and 7 more"


def test_the_cache_follows_the_content_and_nothing_is_written_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, examples_cache: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_lines(tmp_path / "data" / "x.jsonl", [GOOD])
    assert read(path).examples == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", examples_cache.name]
    assert [p.name for p in path.parent.iterdir()] == ["x.jsonl"]
    (arrow,) = examples_cache.rglob("*.arrow")
    before = arrow.stat().st_mtime_ns
    assert read(path).hash == read(path).hash
    assert arrow.stat().st_mtime_ns == before
    # The facts of the dropped rows are found out again where only they are gone.
    for facts in (examples_cache / "st_reasoning").iterdir():
        facts.unlink()
    assert read(path).bad_rows == 0
    size_kept = write_lines(path, [{**GOOD, "query": GOOD["query"].replace("0", "1")}])
    assert read(size_kept).datasets["mine"]["query"][0] == "question 1 - 数学"


def test_all_negatives_where_no_number_is_asked(tmp_path: Path) -> None:
    rows = [{**GOOD, "negative_10": "ten", "negative_3": None}, {"query": "q", "positive": "p"}]
    path = write_lines(tmp_path / "x.jsonl", rows)
    found = read_examples(DataSet("mine", path=str(path)), None, BadRows(0))
    assert [row["negatives"] for row in found] == [[GOOD["negative_1"], GOOD["negative_2"], "ten"], []]
    lists = write_lines(tmp_path / "y.jsonl", [GOOD_LISTS, {"query": "q", "pos": ["p"]}])
    found = read_examples(DataSet("mine", path=str(lists)), None, BadRows(0))
    assert [row["negatives"] for row in found] == [GOOD_LISTS["neg"], []]


def test_hub_data_sets_are_read_by_load_dataset(tmp_path: Path, expected_hash: str) -> None:
    """From a folder laid out as on the hub, with two configurations; load_dataset reads both in the same way."""
    home = tmp_path / "repository"
    write_parquet(home / "pairs" / "train-00000.parquet", ROWS)
    write_parquet(home / "pairs" / "test-00000.parquet", ROWS[:3])
    write_parquet(home / "lists" / "train.parquet", [{**authors(row), "id": 1} for row in ROWS])
    (home / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: pairs\n  data_files:\n"
        "  - {split: train, path: pairs/train*}\n  - {split: test, path: pairs/test*}\n"
        "- config_name: lists\n  data_files: lists/train.parquet\n---\n"
    )

    def load(**hub: Any) -> TrainingData:
        return load_data(recipe(DataSet("mine", INSTRUCTION, hub=Hub(str(home), **hub))))

    assert load(config="pairs").hash == load(config="lists").hash == expected_hash
    assert load(config="pairs", split="test").datasets["mine"].to_list() == EXPECTED[:3]
    for hub, said in (({"config": "pears"}, "'pears' not found"), ({"config": "pairs", "split": "dev"}, "dev")):
        with pytest.raises(InputError, match=rf"cannot load the data set .*repository.*{said}"):
            load(**hub)
    write_parquet(home / "pairs" / "train-00000.parquet", [{**GOOD, "positive": ""}])
    with pytest.raises(InputError, match=r"repository \(train\), row 1: expected a text in 'positive'"):
        load(config="pairs")


def test_a_hub_name_without_network_is_an_error_in_one_line() -> None:
    with pytest.raises(InputError, match="cannot load the data set 'nobody/nothing'") as refused:
        load_data(recipe(DataSet("mine", hub=Hub("nobody/nothing"))))
    assert "\n" not in str(refused.value)


def broken(path: Path) -> dict[str, tuple[Path, str]]:
    """Name -> a path, and what is said of it."""
    path.mkdir()
    (path / "none").mkdir()
    truncated = write_lines(path / "truncated.jsonl.gz", ROWS)
    truncated.write_bytes(truncated.read_bytes()[:-20])
    (path / "no.gz.jsonl.gz").write_text("{}")
    (path / "no.parquet").write_text("{}")
    (path / "x.csv").write_text("query,positive")
    (path / "blank.jsonl").write_text("\n\n")
    write_lines(path / "other.jsonl", [{"text": "t", "label": 1}])
    write_parquet(path / "other.parquet", [{"text": "t", "label": 1}])
    columns = "expected the columns query, positive, negative_1 ... negative_n or query, pos, neg, got 'label', 'text'"
    return {
        "missing": (path / "nowhere.jsonl", "no such file"),
        "another suffix": (path / "x.csv", "expected a file that ends in .jsonl, .jsonl.gz, .json.gz or .parquet"),
        "empty folder": (path / "none", "has no data in it"),
        "truncated": (path / "truncated.jsonl.gz", "cannot read"),
        "not compressed": (path / "no.gz.jsonl.gz", "cannot read"),
        "not parquet": (path / "no.parquet", "cannot read"),
        "no rows": (path / "blank.jsonl", "the data set 'mine' has no example in it"),
        "another form": (path / "other.jsonl", columns),
        "another form, parquet": (path / "other.parquet", columns),
    }


def test_what_cannot_be_read_is_named(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name, (path, said) in broken(tmp_path / "broken").items():
        with subtests.test(name):
            with pytest.raises(InputError) as refused:
                read(path)
            assert said in str(refused.value)
            assert path.name in str(refused.value) or name == "no rows"
            assert "\n" not in str(refused.value)
    # All rows bad is no data set either, however many may be.
    with pytest.raises(InputError, match="has no example in it"):
        read(tmp_path / "broken" / "other.jsonl", max_bad_rows=5)


def test_exactly_one_source() -> None:
    for sources in (
        {},
        {"path": "x.jsonl", "hub": Hub("a/b")},
        {"generated": Generated("gsm_symbolic", 1), "path": "x"},
    ):
        with pytest.raises(InputError, match="expected exactly one of 'generated', 'path' and 'hub'"):
            DataSet("mine", **sources)  # type: ignore[arg-type]
    written = {"name": "a", "hub": {"name": "org/data", "revision": "main"}}
    assert parse(DataSet, written, where="x.yaml") == DataSet("a", "", hub=Hub("org/data", revision="main"))
    with pytest.raises(InputError, match=r"unknown key 'splt'.*did you mean 'split'"):
        parse(DataSet, {"name": "a", "hub": {"name": "org/data", "splt": "test"}}, where="x.yaml")


def test_generated_examples_have_the_same_columns_and_cannot_be_told_from_read_ones(tmp_path: Path) -> None:
    drawn = load_data(recipe(DataSet("mine", INSTRUCTION, generated=Generated("gsm_symbolic", 30))))
    rows = drawn.datasets["mine"].to_list()
    assert list(rows[0]) == ["instruction", "query", "positive", "negative_1", "negative_2"]
    assert {row["instruction"] for row in rows} == {INSTRUCTION}
    assert read(write_lines(tmp_path / "x.jsonl", rows)).hash == drawn.hash


MEMORY = """
import sys
from st_reasoning.training import DataSet, TrainingRecipe, load_data
import datasets, pyarrow.parquet

def own_memory():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024

small, large = (TrainingRecipe(data=(DataSet("a", path=p),), hard_negatives=1) for p in sys.argv[1:])
load_data(small)  # what is loaded once, whatever the size
before = own_memory()
data = load_data(large)
print(data.examples, own_memory() - before)
"""


def test_memory_does_not_grow_with_the_examples(tmp_path: Path) -> None:
    """Anonymous memory: the examples themselves are mapped from disk, and given back when it is needed."""
    row = {"query": "q" * 300, "positive": "p" * 1500, "negative_1": "n" * 1500}
    small = write_lines(tmp_path / "small.jsonl", [row] * 1500)
    large = write_lines(tmp_path / "large.jsonl", [{**row, "query": f"{i} {row['query']}"} for i in range(20_000)])
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(small), str(large)], capture_output=True, text=True, check=True, timeout=300
    )
    examples, grown = done.stdout.split()
    assert int(examples) == 20_000
    assert large.stat().st_size > 66e6
    assert float(grown) < 30  # MB
