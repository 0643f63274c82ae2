"""Hard negatives, mined or filtered by how an embedder scores them.

The search is :func:`sentence_transformers.util.mine_hard_negatives`. Added here: embeddings that survive a kill and
never answer for another model or prompt, an instruction per row, documents that repeat the query or its positive in
other white space or case, and one output with a record of how it came about.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from st_reasoning.backbone import format_instruction
from st_reasoning.config import versions
from st_reasoning.errors import InputError
from st_reasoning.files import content_hash, file_hash, new_file, refuse_existing_file, write_json
from st_reasoning.training.data import BadRows, logger, read_examples
from st_reasoning.training.embeddings import Embedder, StoredEmbeddings, open_embedder
from st_reasoning.training.formats import BadRow
from st_reasoning.training.miner import Miner, repeats, text_key
from st_reasoning.training.recipe import DataSet
from st_reasoning.training.sources import Files, files_of

if TYPE_CHECKING:
    from datasets import Dataset

OUTPUTS = (".jsonl", ".parquet")
# Entries of a similarity matrix that are held at once: 256 MB of float32.
SIMILARITIES = 2**26


@dataclass(frozen=True)
class Mining:
    """What makes a document a hard negative; the defaults are the paper's (TopK-PercPos of arXiv 2407.15831).

    Attributes:
        negatives: How many each example gets; an example with fewer is dropped.
        relative_margin: A negative scores at most (1 - this) times what its positive scores; None for no such limit.
        absolute_margin: A negative scores at least this less than its positive.
        range_min: How many of the closest documents that are left by the limits are passed over.
        range_max: How many of the closest documents are looked at; by default 10 for each negative, and as many as the
            query has positives.
        max_score: A negative scores at most this.
        min_score: A negative scores at least this.
        sampling: The closest of those left (``top``), or any (``random``).
        seed: Of ``random``.
        instruction: Replaces those of the rows; ``""`` for none. Where neither says anything, queries get the model's
            own prompt.
        instruction_template: By default the one that the model was made with.
        corpus: Documents beside the positives: rows with a ``text``, in a file or folder like the data's.
        filter_only: Mine nothing; keep the first ``negatives`` of a row's own that keep the limits.
    """

    negatives: int = 3
    relative_margin: float | None = 0.05
    absolute_margin: float | None = None
    range_min: int = 0
    range_max: int | None = None
    max_score: float | None = None
    min_score: float | None = None
    sampling: Literal["top", "random"] = "top"
    seed: int = 0
    instruction: str | None = None
    instruction_template: str | None = None
    corpus: str | None = None
    filter_only: bool = False

    def __post_init__(self) -> None:
        if self.negatives < 1:
            raise InputError(f"negatives must be at least 1, got {self.negatives}")
        for name in ("relative_margin", "absolute_margin", "range_min"):
            if (getattr(self, name) or 0) < 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.range_max is not None and self.range_max - self.range_min < self.negatives:
            needed = self.range_min + self.negatives
            raise InputError(f"range_max must be at least range_min + negatives, {needed}; got {self.range_max}")
        if self.filter_only and (self.range_min, self.range_max, self.sampling, self.corpus) != (0, None, "top", None):
            raise InputError(
                "range_min, range_max, sampling and corpus have no meaning where negatives are only filtered"
            )
        if self.instruction_template is not None:
            format_instruction(self.instruction_template, "")


def mine(
    data: Path,
    model: str,
    output: Path,
    options: Mining | None = None,
    *,
    max_bad_rows: int = 0,
    cache: Path | None = None,
    chunk: int = 512,
    batch_size: int = 32,
    device: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Give every (query, positive) of ``data`` hard negatives, and write them to ``output``.

    Negatives that the data has are left aside, unless they are to be filtered. A killed run is continued by the same
    call.

    Args:
        data: A file or folder as for :class:`~st_reasoning.training.DataSet`.
        model: A sentence-transformers folder, or a hub name.
        output: A ``.jsonl`` or ``.parquet`` file: ``query``, ``positive``, ``negative_1`` ... ``negative_n``,
            ``instruction`` (null where neither row nor options have one).
        options: What makes a negative.
        max_bad_rows: How many rows that are no examples are dropped; one more stops the run.
        cache: Where embeddings are kept. By default they are beside the output, and removed when that is written; in a
            folder named here they stay, and other limits on the same texts cost no second embedding.
        chunk: Texts that are embedded between two saves.
        batch_size: Texts per forward pass.
        device: As for SentenceTransformer; by default what torch finds.
        overwrite: Whether to replace an output that is there.

    Returns:
        The record, as written beside the output: options, model, counts, mean scores, versions.

    Raises:
        InputError: for data or a model that cannot be read, or if no row gets its negatives; nothing is written.
    """
    options = options or Mining()
    if chunk < 1 or batch_size < 1:
        raise InputError(f"chunk and batch_size must be at least 1, got {chunk} and {batch_size}")
    check_output(output, overwrite=overwrite)
    start = time.perf_counter()
    bad = BadRows(max_bad_rows)
    rows = read_examples(DataSet("the data", path=str(data)), None if options.filter_only else 0, bad)
    if bad.count:
        logger.warning("dropped %s", bad.describe())
    further = _read_corpus(Path(options.corpus)) if options.corpus else []
    embedder = open_embedder(model, device=device)
    work = cache or output.with_name(f".{output.name}.embeddings")
    stored = StoredEmbeddings(embedder, work, chunk, batch_size)
    groups = _by_instruction(rows, embedder, options)
    found = _filtered(groups, stored, options) if options.filter_only else _mined(groups, further, stored, options)
    examined = len(rows) if options.filter_only else sum(len(set(group.pairs)) for group in groups)
    if not len(found):
        raise InputError(
            f"no row of {data} has {options.negatives} negatives within the limits; ask for fewer or a smaller margin"
        )
    default = embedder.model.prompts.get("query") or ""
    record: dict[str, Any] = {
        "data": {"path": str(data), "hash": _hash(data)},
        "corpus": {"path": options.corpus, "hash": _hash(Path(options.corpus))} if options.corpus else None,
        "model": {"name": model, "hash": embedder.hash},
        "query_prompts": [default if group.prompt is None else group.prompt for group in groups],
        "options": asdict(options),
        "rows": {
            "in": len(rows),
            "bad": bad.count,
            "bad_names": bad.names,
            "repeated": len(rows) - examined,
            "too_few_negatives": examined - len(found),
            "kept": len(found),
        },
        "mean_score": _mean_scores(found),
    }
    with new_file(output) as scratch:
        _write(found.remove_columns("scores"), scratch, output.suffix)
        seconds = round(time.perf_counter() - start, 1)
        record = {**record, "output_hash": file_hash(scratch), "seconds": seconds, "versions": versions()}
        # Before the output has its name: where that is, its record is.
        write_json(record_of(output), record)
    if cache is None:
        shutil.rmtree(work, ignore_errors=True)
    return record


def _hash(data: Path) -> str:
    """Return the SHA-256 of the contents of the data files, wherever they are."""
    return content_hash([file_hash(file) for file in files_of(data.expanduser())])


def record_of(output: Path) -> Path:
    """Return where the record of an output is."""
    return output.with_name(output.name + ".record.json")


def check_output(output: Path, *, overwrite: bool) -> None:
    """Refuse an output that cannot be written, before long work.

    Raises:
        InputError: if it ends otherwise than in :data:`OUTPUTS`, is a folder, or is there and not to be replaced.
    """
    if output.suffix not in OUTPUTS:
        raise InputError(f"cannot write {output}: expected a file that ends in {' or '.join(OUTPUTS)}")
    refuse_existing_file(output, overwrite=overwrite)


@dataclass(frozen=True)
class _Group:
    """The rows of one instruction: the prompt (None: the model's own), pairs of query and positive, their negatives."""

    instruction: str
    prompt: str | None
    pairs: list[tuple[str, str]]
    negatives: list[list[str]]


def _by_instruction(rows: Dataset, embedder: Embedder, options: Mining) -> list[_Group]:
    groups: dict[str, _Group] = {}
    for row in rows:
        instruction = row["instruction"] if options.instruction is None else options.instruction
        if instruction not in groups:
            said = instruction or options.instruction is not None
            prompt = embedder.query_prompt(instruction, options.instruction_template) if said else None
            groups[instruction] = _Group(instruction, prompt, [], [])
        groups[instruction].pairs.append((row["query"], row["positive"]))
        groups[instruction].negatives.append(row.get("negatives", []))
    return list(groups.values())


def _read_corpus(path: Path) -> list[str]:
    """Read the texts of a file or folder.

    Raises:
        InputError: for a row without one (named by file and line).
    """
    texts = []
    for place, number, row in Files(files_of(path.expanduser()), columns=("text",)).rows():
        text = None if isinstance(row, BadRow) else row.get("text")
        if not isinstance(text, str) or not text.strip():
            reason = row if isinstance(row, BadRow) else "expected a text in the column 'text'"
            raise InputError(f"{place} {number}: {reason}")
        texts.append(text)
    return texts


def _mined(groups: list[_Group], further: list[str], stored: StoredEmbeddings, options: Mining) -> Dataset:
    from datasets import Dataset, concatenate_datasets
    from sentence_transformers.util import mine_hard_negatives

    documents = list(dict.fromkeys([*(positive for group in groups for _, positive in group.pairs), *further]))
    miner: Any = Miner(stored)
    found = []
    for group in groups:
        miner.start(group.pairs)
        with _seeded(options.seed):
            part = mine_hard_negatives(
                Dataset.from_dict(
                    dict(zip(("query", "positive"), map(list, zip(*group.pairs, strict=True)), strict=True))
                ),
                miner,
                corpus=documents,
                range_min=options.range_min,
                range_max=options.range_max,
                max_score=options.max_score,
                min_score=options.min_score,
                absolute_margin=options.absolute_margin,
                relative_margin=options.relative_margin,
                num_negatives=options.negatives,
                sampling_strategy=options.sampling,
                query_prompt=group.prompt,
                output_format="n-tuple",
                output_scores=True,
                faiss_batch_size=max(1, min(16384, SIMILARITIES // len(documents))),
                verbose=False,
            )
        found.append(_typed(part.to_dict(), group.instruction, options.negatives))
    return concatenate_datasets(found)


def _typed(columns: dict[str, list[Any]], instruction: str, negatives: int) -> Dataset:
    """Return the columns in their order and with their types, which nothing shows where no row is left."""
    from datasets import Dataset, Features, List, Value

    names = ("query", "positive", *(f"negative_{k}" for k in range(1, negatives + 1)), "instruction")
    features = Features({**{name: Value("string") for name in names}, "scores": List(Value("float32"))})
    columns = {**columns, "instruction": [instruction or None] * len(columns["query"])}
    return Dataset.from_dict({name: columns[name] for name in features}, features=features)


def _filtered(groups: list[_Group], stored: StoredEmbeddings, options: Mining) -> Dataset:
    from datasets import concatenate_datasets

    found = []
    for group in groups:
        repeated = repeats(group.pairs)
        columns: dict[str, list[Any]] = {name: [] for name in ("query", "positive", "scores")}
        columns.update({f"negative_{k}": [] for k in range(1, options.negatives + 1)})
        for pair, negatives, scores in zip(group.pairs, group.negatives, _score(group, stored), strict=True):
            kept = _kept(negatives, scores, repeated[pair[0]], options)
            if len(kept) < options.negatives:
                continue
            columns["query"].append(pair[0])
            columns["positive"].append(pair[1])
            columns["scores"].append([scores[0], *(scores[k + 1] for k in kept)])
            for column, k in enumerate(kept, start=1):
                columns[f"negative_{column}"].append(negatives[k])
        found.append(_typed(columns, group.instruction, options.negatives))
    return concatenate_datasets(found)


def _score(group: _Group, stored: StoredEmbeddings) -> Iterator[list[float]]:
    """Yield, row by row, how its query scores its positive and each of its negatives."""
    queries = list(dict.fromkeys(query for query, _ in group.pairs))
    rows = [(query, [positive, *own]) for (query, positive), own in zip(group.pairs, group.negatives, strict=True)]
    documents = list(dict.fromkeys(text for _, texts in rows for text in texts))
    of_query, of_document = ({text: k for k, text in enumerate(texts)} for texts in (queries, documents))
    query_embeddings, document_embeddings = stored.queries(queries, group.prompt), stored.documents(documents)
    for query, texts in rows:
        embeddings = document_embeddings[[of_document[text] for text in texts]]
        yield stored.embedder.model.similarity(query_embeddings[[of_query[query]]], embeddings)[0].tolist()


def _kept(negatives: list[str], scores: list[float], repeated: set[str], options: Mining) -> list[int]:
    """Return which negatives of a row are kept: the first that score low enough and repeat nothing.

    Args:
        negatives: The texts.
        scores: Of the positive, then of each negative.
        repeated: Keys of the texts that are no negatives.
        options: The limits.
    """
    positive = scores[0]
    # A share of the magnitude, as in mine_hard_negatives: the limit lies below a negative score, too.
    highest = min(
        np.inf if options.max_score is None else options.max_score,
        np.inf if options.absolute_margin is None else positive - options.absolute_margin,
        np.inf if options.relative_margin is None else positive - abs(positive) * options.relative_margin,
    )
    lowest = -np.inf if options.min_score is None else options.min_score
    seen = set(repeated)
    kept = []
    for k, (text, score) in enumerate(zip(negatives, scores[1:], strict=True)):
        if lowest <= score <= highest and text_key(text) not in seen:
            seen.add(text_key(text))
            kept.append(k)
    return kept[: options.negatives]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed Python's generator, from which mine_hard_negatives draws, and leave it as it was."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def _mean_scores(found: Dataset) -> dict[str, float]:
    scores = np.asarray(found["scores"][:], dtype=np.float64)
    return {"positive": float(scores[:, 0].mean()), "negatives": float(scores[:, 1:].mean())}


def _write(found: Dataset, path: Path, suffix: str) -> None:
    with path.open("wb") as stream:
        if suffix == ".parquet":
            found.to_parquet(stream)
        else:
            found.to_json(stream, force_ascii=False)
