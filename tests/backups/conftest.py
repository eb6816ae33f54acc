"""A copy of an installation for each test, which commands in this process find."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.config.settings import settings
from tests.builders.judging import Bench


@pytest.fixture
def bench(made: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A copy of the module's own installation, `made`, as this process's."""
    shutil.copytree(made.home, tmp_path / "home")
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    yield Bench(tmp_path / "home")
    settings.cache_clear()
