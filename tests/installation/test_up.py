"""What a start says before it starts anything; tests/e2e runs all of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.config.settings import Settings, settings
from include.errors import Busy, ConfigError
from include.installation import preflight
from include.installation.lock import InstallationLock
from include.installation.up import describe_outdated, run_main
from include.records.records import Records
from tests.builders.command_line import YAML

NOW = datetime(2025, 3, 10, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let this process be an installation of its own, with the use case `visits`."""
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("EVERGREEN_USECASES", str(tmp_path))
    (tmp_path / "visits.yaml").write_text(YAML)
    settings.cache_clear()
    yield tmp_path / "var"
    settings.cache_clear()


def test_a_use_case_that_cannot_be_read_or_has_no_partition_is_passed_over(tmp_path: Path) -> None:
    installed = Settings(home=tmp_path, usecases=str(tmp_path))
    Records.open(installed.records_address).migrate()
    (tmp_path / "visits.yaml").write_text(YAML)
    (tmp_path / "wrong.yaml").write_text("name: wrong\n")
    later = YAML.replace("{first: 2025-03-01, last: 2025-03-08}", "{first: 2999-01-01}")
    (tmp_path / "later.yaml").write_text(later.replace("name: visits", "name: later"))
    assert describe_outdated(installed, NOW) == []


def test_an_unknown_use_case_is_refused_before_anything_is_started(home: Path) -> None:
    with pytest.raises(ConfigError, match="no use case 'nobody'"):
        run_main("nobody")
    assert not (home / "run").exists()


def test_a_home_of_another_layout_is_refused_before_anything_is_started(home: Path) -> None:
    home.mkdir()
    (home / "VERSION").write_text(f'{{"layout": {preflight.LAYOUT + 1}, "airflow": "3.0.0"}}')
    with pytest.raises(ConfigError, match=f"layout {preflight.LAYOUT + 1} of Evergreen"):
        run_main("visits")


@pytest.mark.usefixtures("home")
def test_a_second_start_is_refused() -> None:
    with InstallationLock(settings()), pytest.raises(Busy, match="this installation runs already"):
        run_main("visits")
