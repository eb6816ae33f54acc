"""The home that the tests of the collection share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.retention.place import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)
