"""An installation with the rows of sixty days, ready to be trained and judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.judging import Bench, new_bench


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    made = new_bench(tmp_path_factory.mktemp("base") / "home")
    made.write(recorded=60)
    return made


@pytest.fixture
def bench(base: Bench, tmp_path: Path) -> Bench:
    return base.copy(tmp_path / "home")
