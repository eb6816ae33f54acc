"""What tests of validation share: a shop that is not ingested yet, and a till that is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.intake import GOOD, HEAD, Intake
from tests.validation.till import Till, copy


@pytest.fixture(scope="module")
def till_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("till")
    Till(home).records.close()
    return home


@pytest.fixture
def till(till_home: Path, tmp_path: Path) -> Till:
    return copy(till_home, tmp_path / "home")


@pytest.fixture
def made(tmp_path: Path) -> Intake:
    intake = Intake(tmp_path)
    intake.put(HEAD + GOOD)
    return intake
