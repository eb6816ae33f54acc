"""What tests of ingestion share: a shop whose orders are delivered and not ingested yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.intake import GOOD, HEAD, Intake


@pytest.fixture
def made(tmp_path: Path) -> Intake:
    intake = Intake(tmp_path)
    intake.put(HEAD + GOOD)
    return intake
