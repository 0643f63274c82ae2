"""Panels of tiny models that drifted, measured once for all tests of reports."""

from __future__ import annotations

from typing import Any

import pytest

from tests.study.made import make_panels


@pytest.fixture(scope="session")
def panels(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return make_panels(tmp_path_factory.mktemp("panels"))
