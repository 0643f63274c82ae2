"""The documented keys of study.json are those of a record."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import st_reasoning.study
from st_reasoning.study.summary import summarise
from tests.schemas import documented, keys_of
from tests.study.made import failed, made

DOCUMENT = Path(st_reasoning.study.__file__).with_name("SCHEMA.md")
ROW = (
    "level|name|tasks|a|b|difference|word|p_difference_holm|p_equivalence_holm|needed(\\..*)?|interval(\\..*)?|"
    "other_intervals(\\[\\]\\..*)?"
)


def matches(key: str, pattern: str) -> bool:
    regex = re.escape(pattern).replace(r"R\.\*", f"({ROW})").replace(r"\*", ".*")
    regex = regex.replace("WORD", "[a-z ]+").replace("STEP", ".+").replace("PAIR", ".+").replace("UNIT", ".+")
    return re.fullmatch(regex, key) is not None


def test_every_key_is_documented_and_every_documented_key_is_there(panels: list[dict[str, Any]], tmp_path: Path):
    recipe, out, outcomes = made(tmp_path, {"a": [1.0, 1.1], "b": [0.5, 0.7], "c": [0.0, 0.2]}, panels)
    outcomes["train/base/seed-0"] = outcomes["audit/a"].__class__(
        "train/base/seed-0", "done", 1.0, {"losses": [1.0], "held_out_loss": {"before": 2.0}, "data": {"hash": "0"}}
    )
    record = summarise(recipe, out, failed(outcomes, "audit/c"))
    keys, patterns = set(keys_of(record)), documented(DOCUMENT)
    assert {key for key in keys if not any(matches(key, pattern) for pattern in patterns)} == set()
    assert {pattern for pattern in patterns if not any(matches(key, pattern) for key in keys)} == set()
