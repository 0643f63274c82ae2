"""Mining and filtering against brute force in float64, kills, and embeddings of another model or prompt."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from click.testing import CliRunner, Result
from sentence_transformers import SentenceTransformer

from st_reasoning.backbone import convert, save_embedder
from st_reasoning.cli import main
from st_reasoning.files import file_hash, read_json, read_jsonl
from st_reasoning.training import DataSet, TrainingRecipe, load_data
from st_reasoning.training.mine import Mining, mine
from tests.models import make_llama

DEFAULT = "Given a sum, retrieve its result"
OTHER = "Given a sum, retrieve who asked for it"
NAMES = ("apples", "pears", "the books that he read", "ships", "numbers")

Rows = list[dict[str, Any]]


def sums(n: int = 60, seed: int = 0) -> Rows:
    draw = random.Random(seed)
    rows = []
    for k in range(n):
        a, b, name = draw.randrange(90), draw.randrange(90), NAMES[k % 5]
        rows.append({"query": f"How many {name} are {a} and {b}?", "positive": f"{a} + {b} = {a + b} of {name}"})
    # One query with two positives, one row twice, a document that repeats a query, and one that repeats a positive.
    rows += [
        {"query": rows[0]["query"], "positive": "As many as there are."},
        rows[1],
        {"query": "Who?", "positive": rows[2]["query"]},
        {"query": "What?", "positive": "  " + rows[3]["positive"].upper()},
    ]
    return rows


@pytest.fixture(scope="session")
def embedders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two of one architecture and tokenizer, with other weights."""
    home = tmp_path_factory.mktemp("embedders")
    for seed in (0, 1):
        model = convert(str(make_llama(home / f"llm-{seed}", seed=seed)), instruction=DEFAULT)
        save_embedder(model, home / f"embedder-{seed}")
    return [home / "embedder-0", home / "embedder-1"]


def write(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def same(text: str) -> str:
    return " ".join(text.lower().split())


class BruteForce:
    """All scores in float64, and the definition of a hard negative written out."""

    def __init__(self, folder: Path, *, prompt: str | None = None) -> None:
        self.model = SentenceTransformer(str(folder), local_files_only=True)
        self.prompt = prompt

    def scores(self, queries: list[str], documents: list[str]) -> np.ndarray:
        q = self.model.encode_query(queries, prompt=self.prompt).astype(np.float64)
        d = self.model.encode_document(documents).astype(np.float64)
        q, d = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, d))
        return q @ d.T

    def candidates(self, rows: Rows, further: tuple[str, ...] = (), **limits: Any) -> list[tuple[str, str, list[str]]]:
        """All negatives of each distinct row within the limits, the closest first."""
        options = Mining(**limits)
        queries = list(dict.fromkeys(row["query"] for row in rows))
        documents = list(dict.fromkeys([*(row["positive"] for row in rows), *further]))
        scores = dict(zip(queries, self.scores(queries, documents), strict=True))
        positives: dict[str, list[str]] = {}
        for row in rows:
            positives.setdefault(row["query"], []).append(row["positive"])
        most = max(len(set(own)) for own in positives.values())
        found = []
        for query, positive in dict.fromkeys((row["query"], row["positive"]) for row in rows):
            of = dict(zip(documents, scores[query], strict=True))
            never = {same(query), *map(same, positives[query])}
            # Documentation of mine_hard_negatives: the margin is to the lowest positive of a query.
            lowest = min(of[p] for p in positives[query])
            pool = sorted((d for d in documents if same(d) not in never), key=lambda d: -of[d])
            looked_at = options.range_max or options.range_min + 10 * options.negatives + most
            kept = []
            for document in pool[: looked_at + most]:
                score = of[document]
                if options.relative_margin is not None and score > lowest - abs(lowest) * options.relative_margin:
                    continue
                if options.absolute_margin is not None and score > lowest - options.absolute_margin:
                    continue
                if options.max_score is not None and score > options.max_score:
                    continue
                if options.min_score is not None and score < options.min_score:
                    continue
                kept.append(document)
            found.append((query, positive, kept[:looked_at][options.range_min :]))
        return found

    def top(self, rows: Rows, further: tuple[str, ...] = (), **limits: Any) -> set[tuple[str, ...]]:
        n = Mining(**limits).negatives
        return {(q, p, *c[:n]) for q, p, c in self.candidates(rows, further, **limits) if len(c) >= n}


def texts_of(rows: Rows, negatives: int = 3) -> set[tuple[str, ...]]:
    columns = ("query", "positive", *(f"negative_{k}" for k in range(1, negatives + 1)))
    return {tuple(row[column] for column in columns) for row in rows}


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"negatives": 1, "relative_margin": 0.2},
        {"relative_margin": None, "absolute_margin": 0.2},
        {"relative_margin": 0.0, "range_min": 2, "range_max": 9},
        {"relative_margin": None, "max_score": 0.3, "min_score": -0.2, "negatives": 2},
    ],
)
def test_mined_negatives_are_those_of_brute_force(
    limits: dict[str, Any], embedders: list[Path], tmp_path: Path
) -> None:
    rows, output = sums(), tmp_path / "mined.jsonl"
    record = mine(write(tmp_path / "x.jsonl", rows), str(embedders[0]), output, Mining(**limits), chunk=7)
    expected = BruteForce(embedders[0]).top(rows, **limits)
    mined = read_jsonl(output)
    assert texts_of(mined, Mining(**limits).negatives) == expected
    assert 0 < len(expected) < len(rows) - 1
    assert record["rows"] == {
        "in": 64, "bad": 0, "bad_names": [], "repeated": 1, "too_few_negatives": 63 - len(expected), "kept": len(mined),
    }  # fmt: skip
    assert {row["instruction"] for row in mined} == {None}  # none was named: the model's own prompt
    assert read_json(tmp_path / "mined.jsonl.record.json") == record
    assert record["output_hash"] == file_hash(output)
    assert sorted(p.name for p in tmp_path.glob("*mined*")) == ["mined.jsonl", "mined.jsonl.record.json"]
    if "max_score" not in limits:  # then it is the positive that limits
        assert record["mean_score"]["negatives"] < record["mean_score"]["positive"]


def test_query_and_positive_are_never_negatives_whatever_their_white_space(
    embedders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("st_reasoning.training.mine.SIMILARITIES", 500)  # a few queries at a time
    rows = sums()
    data = write(tmp_path / "x.jsonl", rows)
    further = [rows[4]["query"].upper(), rows[5]["positive"].replace(" ", "\n"), "Nothing at all."]
    corpus = write(tmp_path / "corpus.jsonl", [{"text": text, "id": 1} for text in further])
    # No limit: every other document is a negative.
    options = Mining(relative_margin=None, negatives=50, range_max=100, corpus=str(corpus))
    mine(data, str(embedders[0]), tmp_path / "mined.jsonl", options)
    mined = {(row["query"], row["positive"]): row for row in read_jsonl(tmp_path / "mined.jsonl")}
    assert len(mined) == 63
    for (query, positive), row in mined.items():
        negatives = [same(row[f"negative_{k}"]) for k in range(1, 51)]
        assert same(query) not in negatives
        assert same(positive) not in negatives
    everything = {text for row in mined.values() for key, text in row.items() if key.startswith("negative_")}
    assert "Nothing at all." in everything
    # Both of them are close to others, so they are there where they repeat nothing.
    assert set(further) <= everything
    assert rows[2]["query"] in everything
    expected = BruteForce(embedders[0]).top(rows, tuple(further), relative_margin=None, negatives=50, range_max=100)
    assert texts_of(list(mined.values()), 50) == expected


def test_random_draws_among_all_candidates_and_by_its_seed(embedders: list[Path], tmp_path: Path) -> None:
    rows = sums()
    data = write(tmp_path / "x.jsonl", rows)
    candidates = {(q, p): c for q, p, c in BruteForce(embedders[0]).candidates(rows, negatives=2)}
    drawn = []
    before = random.getstate()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        options = Mining(negatives=2, sampling="random", seed=seed)
        mine(data, str(embedders[0]), tmp_path / f"{name}.parquet", options, cache=tmp_path / "cache")
        drawn.append(datasets.Dataset.from_parquet(str(tmp_path / f"{name}.parquet")).to_list())
    assert random.getstate() == before
    assert drawn[0] == drawn[1] != drawn[2]
    for row in drawn[0]:
        negatives = [row["negative_1"], row["negative_2"]]
        assert len(set(negatives) & set(candidates[row["query"], row["positive"]])) == 2
    assert texts_of(drawn[0], 2) != BruteForce(embedders[0]).top(rows, negatives=2)


def prompts(folder: Path) -> dict[str, str]:
    template = read_json(folder / "st_reasoning.json")["instruction_template"]
    return {text: template.replace("{instruction}", text) for text in (DEFAULT, OTHER)}


def test_instructions_go_before_queries_by_option_by_row_or_by_the_model(embedders: list[Path], tmp_path: Path) -> None:
    rows, folder = sums(), embedders[0]
    data = write(tmp_path / "x.jsonl", rows)
    of = {name: BruteForce(folder, prompt=p).top(rows) for name, p in {**prompts(folder), "": "", "own": None}.items()}
    assert of["own"] == of[DEFAULT]  # the model was made with it
    assert len({frozenset(found) for found in of.values()}) == 3
    for name in (OTHER, ""):
        output = tmp_path / f"under-{name}.jsonl"
        record = mine(data, str(folder), output, Mining(instruction=name))
        mined = read_jsonl(output)
        assert texts_of(mined) == of[name]
        assert {row["instruction"] for row in mined} == {name or None}
        assert record["query_prompts"] == [prompts(folder)[OTHER] if name else ""]
    # Per row: each group is searched in all documents, with its own prompt.
    mixed = [{**row, "instruction": OTHER if k % 2 else None} for k, row in enumerate(rows[:60])]
    mine(write(tmp_path / "mixed.jsonl", mixed), str(folder), tmp_path / "of-rows.jsonl")
    found = read_jsonl(tmp_path / "of-rows.jsonl")
    for instruction, prompt in ((OTHER, prompts(folder)[OTHER]), (None, None)):
        group = [row for row in mixed if row["instruction"] == instruction]
        further = tuple(row["positive"] for row in mixed)
        expected = BruteForce(folder, prompt=prompt).top(group, further)
        assert texts_of([row for row in found if row["instruction"] == instruction]) == expected


def test_the_output_is_a_recipes_data(embedders: list[Path], tmp_path: Path) -> None:
    data = write(tmp_path / "x.jsonl", sums())
    hashes = []
    for suffix in ("jsonl", "parquet"):
        output = tmp_path / suffix / f"mined.{suffix}"
        record = mine(data, str(embedders[0]), output, Mining(instruction=OTHER))
        for path in (output, output.parent):  # the folder too: the record in it is no data
            read = load_data(TrainingRecipe(data=(DataSet("mined", "unused", path=str(path)),)))
            assert read.examples == record["rows"]["kept"]
            assert set(read.datasets["mined"]["instruction"]) == {OTHER}
            hashes.append(read.hash)
    assert len(set(hashes)) == 1


def test_embeddings_never_answer_for_another_model_prompt_or_text(embedders: list[Path], tmp_path: Path) -> None:
    """One cache for all, and the second model at the very path of the first."""
    rows, cache, place = sums(), tmp_path / "cache", tmp_path / "model"
    data = write(tmp_path / "x.jsonl", rows)
    found = []
    for k, (source, options, prompt) in enumerate(
        [
            (embedders[0], Mining(), None),
            (embedders[1], Mining(), None),
            (embedders[1], Mining(instruction=OTHER), prompts(embedders[1])[OTHER]),
            (embedders[0], Mining(), None),
        ]
    ):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(source, place)
        mine(data, str(place), tmp_path / f"{k}.jsonl", options, cache=cache)
        mined = texts_of(read_jsonl(tmp_path / f"{k}.jsonl"))
        assert mined == BruteForce(source, prompt=prompt).top(rows)
        found.append(mined)
    assert found[0] == found[3]
    assert len({frozenset(mined) for mined in found}) == 3
    files = sorted(cache.iterdir())
    assert len(files) == 2 + 2 + 1  # documents and queries of both, and queries once more under another prompt
    # A query that is also a document is embedded as both.
    both = [{"query": text, "positive": f"{k} of them"} for k, text in enumerate(["One?", "Two?", "Three?"])]
    queries = [{"query": f"{k} of them", "positive": text} for k, text in enumerate(["One?", "Two?", "Three?"])]
    options = Mining(negatives=1, relative_margin=None)
    for name, turned in (("there", both), ("back", queries)):
        mine(
            write(tmp_path / f"{name}-in.jsonl", turned),
            str(embedders[0]),
            tmp_path / f"{name}.jsonl",
            options,
            cache=cache,
        )
        expected = BruteForce(embedders[0]).top(turned, negatives=1, relative_margin=None)
        assert texts_of(read_jsonl(tmp_path / f"{name}.jsonl"), 1) == expected


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "st_reasoning.cli", *(str(a) for a in arguments)]


def test_a_killed_run_is_continued_where_it_was(embedders: list[Path], tmp_path: Path) -> None:
    data = write(tmp_path / "x.jsonl", sums(240))
    output, work = tmp_path / "mined.jsonl", tmp_path / ".mined.jsonl.embeddings"
    arguments = ("mine", data, "--model", embedders[0], "--output", output, "--chunk", 2)
    with subprocess.Popen(command(*arguments), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 240
        while len(list(work.glob("*.npy"))) < 5 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in work.glob("*.npy")}
    assert 5 <= len(kept) < 235  # of more than 240
    assert not output.exists()
    # Another run of the same, elsewhere, was never killed.
    whole = tmp_path / "whole"
    mine(data, str(embedders[0]), whole / "mined.jsonl", chunk=2, cache=whole / "cache")
    options = ("--cache", work)  # so that the files can be looked at when all is done
    done = call(*arguments, *options)
    assert done.exit_code == 0, done.output
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert {p.name for p in work.glob("*.npy")} == {p.name for p in (whole / "cache").iterdir()}
    assert output.read_bytes() == (whole / "mined.jsonl").read_bytes()


def test_filtering_keeps_the_negatives_that_score_below_the_limit(embedders: list[Path], tmp_path: Path) -> None:
    rows = sums(40)[:40]
    draw = random.Random(1)
    for row in rows:
        row["instruction"] = OTHER
        others = [r["positive"] for r in draw.sample(rows, 12) if r is not row]
        # Two that are none: the query, and the positive in other letters.
        row.update(
            {f"negative_{k}": text for k, text in enumerate([row["query"], row["positive"].upper(), *others], 1)}
        )
    data = write(tmp_path / "x.jsonl", rows)
    witness = BruteForce(embedders[0], prompt=prompts(embedders[0])[OTHER])
    expected, below, above = set(), 0, 0
    for row in rows:
        negatives = [row[key] for key in row if key.startswith("negative_")]
        positive, *scores = witness.scores([row["query"]], [row["positive"], *negatives])[0]
        limit = positive - 0.05 * abs(positive)
        never = {same(row["query"]), same(row["positive"])}
        kept = [text for text, s in zip(negatives, scores, strict=True) if s <= limit and same(text) not in never]
        below, above = below + len(kept), above + len(negatives) - len(kept)
        if len(kept) >= 3:
            expected.add((row["query"], row["positive"], *kept[:3]))
    assert min(below, above) > 50  # the two sides of the limit cannot be taken for one another
    assert 0 < len(expected) < len(rows)
    record = mine(data, str(embedders[0]), tmp_path / "kept.jsonl", Mining(filter_only=True))
    assert texts_of(read_jsonl(tmp_path / "kept.jsonl")) == expected
    assert record["rows"]["kept"] == len(expected) == 40 - record["rows"]["too_few_negatives"]
    for limits in ({"absolute_margin": 0.3}, {"max_score": 0.1}, {"min_score": 0.2}):
        options = Mining(filter_only=True, negatives=1, relative_margin=None, **limits)
        output = tmp_path / f"{next(iter(limits))}.jsonl"
        mine(data, str(embedders[0]), output, options)
        for row in read_jsonl(output):
            positive, negative = witness.scores([row["query"]], [row["positive"], row["negative_1"]])[0]
            assert negative <= limits.get("max_score", 1)
            assert negative >= limits.get("min_score", -1)
            assert negative <= positive - limits.get("absolute_margin", -2)


def test_what_was_mined_passes_the_filter(embedders: list[Path], tmp_path: Path) -> None:
    mine(write(tmp_path / "x.jsonl", sums()), str(embedders[0]), tmp_path / "mined.jsonl")
    mine(tmp_path / "mined.jsonl", str(embedders[0]), tmp_path / "kept.jsonl", Mining(filter_only=True))
    assert (tmp_path / "kept.jsonl").read_bytes() == (tmp_path / "mined.jsonl").read_bytes()


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_the_command_says_what_became_of_the_rows(embedders: list[Path], tmp_path: Path) -> None:
    rows = sums()
    data = write(tmp_path / "x.jsonl", [*rows, {"query": "", "positive": "p"}])
    arguments = ["mine", data, "--model", embedders[0], "--max-bad-rows", 1, "--relative-margin", 0.1, "--output"]
    done = call(*arguments, tmp_path / "mined.jsonl")
    assert done.exit_code == 0, done.output
    kept = len(BruteForce(embedders[0]).top(rows, relative_margin=0.1))
    assert f"{kept} of 64 rows with 3 negatives each ({63 - kept} had too few, 1 were repeated, 1 bad)" in done.stdout
    assert done.stdout.count("\n") == 1
    assert "Embedding query texts" in done.stderr  # progress
    assert (
        "x.jsonl, line 65: expected a text in 'query'"
        in read_json(tmp_path / "mined.jsonl.record.json")["rows"]["bad_names"][0]
    )
    as_json = call(*arguments, tmp_path / "again.jsonl", "--json")
    assert json.loads(as_json.stdout) == read_json(tmp_path / "again.jsonl.record.json")
    again = call(*arguments, tmp_path / "mined.jsonl")
    assert (again.exit_code, "is there already" in again.stderr) == (2, True)
    replaced = call(*arguments, tmp_path / "mined.jsonl", "--overwrite", "--negatives", 1)
    assert replaced.exit_code == 0, replaced.output
    assert "negative_2" not in read_jsonl(tmp_path / "mined.jsonl")[0]


def wrong_inputs(embedder: Path, llm: Path, folder: Path) -> dict[str, tuple[list[object], str]]:
    """Name -> the arguments, and what the one line must say."""
    data = write(folder / "x.jsonl", sums())
    bad = write(folder / "bad.jsonl", [{"query": "q", "positive": ""}])
    corpus = write(folder / "corpus.jsonl", [{"text": "t"}, {"title": "t"}])
    out = folder / "out.jsonl"
    fine = ["mine", data, "--model", embedder, "--output", out]
    return {
        "missing data": (["mine", folder / "no.jsonl", *fine[2:]], "no such file"),
        "bad row": (["mine", bad, *fine[2:]], "bad.jsonl, line 1: expected a text in 'positive', got ''"),
        "no embedder": (["mine", data, "--model", llm, "--output", out], "has no modules.json; expected"),
        "missing model": (["mine", data, "--model", "./nowhere", "--output", out], "no such model: ./nowhere"),
        "unknown hub model": (["mine", data, "--model", "no-org/none", "--output", out], "cannot load the model"),
        "unknown device": ([*fine, "--device", "gpu"], "cannot load the model"),
        "a folder as output": (["mine", data, "--model", embedder, "--output", folder], "ends in .jsonl or .parquet"),
        "corpus without text": (
            [*fine, "--corpus", corpus],
            "corpus.jsonl, line 2: expected a text in the column 'text'",
        ),
        "no room": ([*fine, "--range-min", 5, "--range-max", 7], "range_max must be at least range_min + negatives, 8"),
        "negative margin": ([*fine, "--relative-margin", -0.1], "relative_margin must not be negative, got -0.1"),
        "a template without place": ([*fine, "--instruction-template", "Query: "], "has no {instruction} in it"),
        "filter by rank": (
            [*fine, "--filter-only", "--range-max", 9],
            "have no meaning where negatives are only filtered",
        ),
        "nothing left": ([*fine, "--max-score", -0.999], "has 3 negatives within the limits"),
        "nothing to filter": ([*fine, "--filter-only"], "has 3 negatives within the limits"),
    }


def test_wrong_input_is_one_line_and_leaves_no_output(
    embedders: list[Path], tiny_llm: Path, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for name, (arguments, said) in wrong_inputs(embedders[0], tiny_llm, tmp_path).items():
        with subtests.test(name):
            found = call(*arguments)
            assert found.exit_code == 2, found.output
            line = found.stderr.strip().splitlines()[-1]
            # What needs embeddings to be found out comes after their progress.
            assert line.startswith("Error: ")
            assert said.startswith("has 3") or found.stderr.count("\n") == 1
            assert said in line
            assert not list(tmp_path.glob("out*"))


HUB = """
import sys
from pathlib import Path
from st_reasoning.training.mine import Mining, mine

data, reference, cache, *outputs = map(Path, sys.argv[1:])
for output in outputs:
    reference.write_text(output.stem)
    mine(data, "org/embedder", output, Mining(negatives=1), cache=cache)
"""


def test_a_hub_model_is_known_by_its_files(embedders: list[Path], tmp_path: Path) -> None:
    """In the hub's own cache, as if it had been downloaded: a new commit under the same name is another model."""
    repository = tmp_path / "hf" / "hub" / "models--org--embedder"
    commits = ["a" * 40, "b" * 40]
    for commit, source in zip(commits, embedders, strict=True):
        shutil.copytree(source, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    outputs = [tmp_path / f"{commit}.jsonl" for commit in commits]
    paths = write(tmp_path / "x.jsonl", sums(12)), repository / "refs" / "main", tmp_path / "cache", *outputs
    subprocess.run(
        [sys.executable, "-c", HUB, *map(str, paths)], check=True, timeout=300, capture_output=True,
        env={**os.environ, "HF_HOME": str(tmp_path / "hf")},
    )  # fmt: skip
    for output, source in zip(outputs, embedders, strict=True):
        assert texts_of(read_jsonl(output), 1) == BruteForce(source).top(sums(12), negatives=1)
    first, second = (read_json(output.with_name(output.name + ".record.json")) for output in outputs)
    assert first["model"]["name"] == second["model"]["name"] == "org/embedder"
    assert first["model"]["hash"] != second["model"]["hash"]
