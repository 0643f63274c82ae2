"""The answer in words: start from the reasoning model, or not? For each pair and overall, with its certainty."""

from __future__ import annotations

from typing import Any

from st_reasoning.results.compare import Comparison
from st_reasoning.results.decide import BETTER, EQUIVALENT, OPEN, WORSE, Measured, Row, Settings
from st_reasoning.results.words import more, sentence, signed
from st_reasoning.study.scores import EVERYTHING, Scores, seeds_alone

ADVICE = {
    BETTER: "Start from the reasoning model",
    WORSE: "Start from the base model",
    EQUIVALENT: "Start from either",
    OPEN: "Not decided which to start from",
}
Answer = dict[str, Any]


def pair_answer(found: Comparison | None, reason: str, tasks: list[dict[str, Any]]) -> Answer:
    """Return word, advice and sentences for one pair.

    Args:
        found: Its comparison, or None and
        reason: why there is none.
        tasks: Scores by task, trained and untrained.
    """
    if found is None:
        return _answer(OPEN, [f"There is nothing to decide on: {reason}."])
    row = found.headline
    said = [sentence(found)]
    alone = seeds_alone(row)
    if alone is not None and row.measured is not None and row.measured.kind != "seeds":
        what = "this task and these queries" if row.level == "task" else "these tasks as a fixed list"
        said.append(
            f"On {what}, over {alone.over} alone, it is {signed(alone.estimate.difference)} points, "
            f"{found.settings.level:.0%} interval {_ends(alone)}."
        )
    said += [_gain(tasks, arm) for arm in ("base", "reasoning")]
    return _answer(row.word, [each for each in said if each])


def study_answer(scores: Scores, answers: dict[str, Answer]) -> Answer:
    """Return word, advice and sentences over all pairs.

    Args:
        scores: What was compared.
        answers: Of each pair.
    """
    if scores.overall is None:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in scores.reasons.items())
        return _answer(OPEN, [f"No pair could be compared. {reasons}."])
    if len(answers) == 1:
        (answer,) = answers.values()
        more_pairs = "This is one pair: whether another one would answer the same is not known."
        return {**answer, "sentences": [answer["sentences"][0], more_pairs]}
    said = [_count(answers), _over_pairs(scores.overall, "all pairs", scores.settings)]
    if len(scores.methods) > 1:
        said += [_over_pairs(row, f"pairs of the method {row.name!r}", scores.settings) for row in scores.methods]
    return _answer(scores.overall.word, said)


def undecided(scores: Scores, pairs: list[dict[str, Any]], prediction: dict[str, Any]) -> list[dict[str, str]]:
    """Return what could not be decided, and for each what would decide it."""
    found: list[dict[str, str]] = []

    def add(of: str, what: str, decides: str) -> None:
        found.append({"of": of, "what": what, "decides": decides})

    for name, comparison in scores.comparisons.items():
        headline, columns = comparison.headline, scores.columns.get(name, {})
        benchmarks = [row for row in comparison.rows[1:] if row.level == "benchmark"]
        # One benchmark that all tasks are of is asked for once, by its name.
        rows = benchmarks if [row.tasks for row in benchmarks] == [headline.tasks] else [headline, *benchmarks]
        for row in rows:
            if row.word == OPEN:
                alone = columns.get(row.name if row.level == "benchmark" else EVERYTHING)
                add(name, f"better, worse or equivalent on {row.name}", _decides(row, alone))
    for name, reason in scores.reasons.items():
        add(name, "everything about its scores", f"what is missing: {reason}")
    if scores.overall is not None and len(pairs) > 1 and scores.overall.word == OPEN:
        add("all pairs", "whether the difference would be there in other pairs", _decides(scores.overall))
    for (level, word), said in _open_levels(pairs).items():
        names, (first, sentence_of_first) = ", ".join(said), next(iter(said.items()))
        why = sentence_of_first if len(said) == 1 else f"{first}: {sentence_of_first} The others likewise."
        need = "" if word == "not measured" else "An interval on one side of its limit: more texts. "
        add(names, f"the {level} of the backbones ({word})", f"{need}{why}")
    found_p = [row["spearman_p_holm"] for row in prediction["values"] if row["spearman_p_holm"] is not None]
    if not any(p < prediction["alpha"] for p in found_p):
        add("all pairs", "whether drift predicts score", prediction["sentence"])
    return found


def _open_levels(pairs: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, str]]:
    """Return, by level and word, the sentence of every pair whose backbones got no word that says anything."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for pair in pairs:
        backbones = pair["mechanism"]["backbones"]
        for level in [] if backbones is None else backbones["levels"]:
            if level["word"] in ("undecided", "not measured"):
                found.setdefault((level["level"], level["word"]), {})[pair["name"]] = level["sentence"]
    return found


def _answer(word: str, sentences: list[str]) -> Answer:
    return {"word": word, "advice": ADVICE[word], "sentences": sentences}


def _decides(row: Row, alone: Row | None = None) -> str:
    """Say what would decide a row; where its interval is over more than seeds, also what would on these tasks alone.

    Args:
        row: Not decided.
        alone: The same with an interval over seeds alone.
    """
    if row.measured is None:
        return "more than one seed, predictions by example, or more tasks" if row.level != "overall" else "more pairs"
    if alone is None or alone.measured is None or row.measured.kind == "seeds":
        return more(row)
    fixed = more(alone) if alone.word == OPEN else f"decided, {alone.word}"
    return f"Over {row.measured.over}: {more(row)}. For these tasks as a fixed list, over seeds alone: {fixed}."


def _count(answers: dict[str, Answer]) -> str:
    words = [answer["word"] for answer in answers.values()]
    decided = [f"{word} in {words.count(word)}" for word in (BETTER, WORSE, EQUIVALENT) if word in words]
    if not decided:
        return f"In none of {len(words)} pairs is it decided whether the embedder from the reasoning model is better."
    said = f"Of {len(words)} pairs, the embedder from the reasoning model is {', '.join(decided)}"
    return f"{said}; {words.count(OPEN)} not decided." if OPEN in words else f"{said}."


def _over_pairs(row: Row, name: str, settings: Settings) -> str:
    seen = f"Over {name} the reasoning embedder scores {signed(row.difference)} points against the base one"
    if row.measured is None:
        return f"{seen}: one pair, from which nothing follows for others."
    seen += f", {settings.level:.0%} interval {_ends(row.measured)} over {row.measured.over}"
    if row.word == OPEN:
        return f"{seen}: not decided; {more(row)}."
    if row.word == EQUIVALENT:
        return f"{seen}: equivalent within {settings.margin:g} points."
    return f"{seen}: {row.word}."


def _ends(found: Measured) -> str:
    return f"{signed(found.estimate.low)} to {signed(found.estimate.high)}"


def _gain(tasks: list[dict[str, Any]], arm: str) -> str:
    """Say what contrastive training gave an arm, over the tasks that have both scores."""
    both = [
        (task["untrained"][arm], task["trained"][arm])
        for task in tasks
        if None not in (task["untrained"][arm], task["trained"][arm])
    ]
    if not both:
        return ""
    before, after = (sum(values) / len(both) for values in zip(*both, strict=True))
    verb = "gained" if after >= before else "lost"
    return (
        f"Contrastive training {verb} the {arm} embedder {abs(after - before):.2f} points over the same model "
        f"converted and not trained ({before:.2f} to {after:.2f})."
    )
