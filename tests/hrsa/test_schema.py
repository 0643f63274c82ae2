"""The documented keys of hrsa.json are those of a record."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import st_reasoning.hrsa
from st_reasoning.hrsa import panel
from st_reasoning.hrsa.addresses import Values
from st_reasoning.hrsa.gate import parse
from tests.schemas import documented, keys_of

DOCUMENT = Path(st_reasoning.hrsa.__file__).with_name("SCHEMA.md")


def matches(key: str, pattern: str) -> bool:
    regex = re.escape(pattern).replace(r"\*", ".*").replace("NAME", "(first|second)").replace("K", r"\d+")
    return re.fullmatch(regex, key) is not None


@pytest.fixture(scope="module")
def record(tiny, texts) -> dict[str, Any]:
    labels = ["odd", "even"] * (len(texts) // 2)
    return panel(tiny, tiny, texts, labels=labels, k=[2], names=("first", "second"), progress=False)


def test_every_key_is_documented_and_every_documented_key_is_there(record):
    record["omitted"]["nothing"] = "here"  # a record without an omission does not show the key
    keys = set(keys_of(record))
    patterns = documented(DOCUMENT)
    assert {key for key in keys if not any(matches(key, pattern) for pattern in patterns)} == set()
    assert {pattern for pattern in patterns if not any(matches(key, pattern) for key in keys)} == set()


def test_every_value_with_an_interval_can_be_a_condition(record):
    addresses = list(Values(record))
    assert "sensitivity.linear_probe_standardised.transferred" in addresses
    assert [parse(f"{address}.final<0", [2]).address for address in addresses] == addresses
