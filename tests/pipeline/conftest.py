"""The probe stage, and an installation for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from include.config.settings import Settings
from include.records.records import Records
from tests.builders.shop import YAML
from tests.pipeline.probe import Probe


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Probe:
    probe = Probe()
    monkeypatch.setitem(sys.modules, "include.validation.validate_data", probe)
    return probe


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    (tmp_path / "usecases").mkdir()
    (tmp_path / "usecases" / "shop.yaml").write_text(YAML)
    made = Settings(home=tmp_path, usecases=str(tmp_path / "usecases"))
    Records.open(made.records_address).migrate()
    return made
