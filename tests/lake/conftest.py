"""A lake in a temporary folder."""

from __future__ import annotations

import pytest

from include.lake.tables import Lake


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(str(tmp_path / "lake"))
