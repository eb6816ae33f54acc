"""Run `evergreen` in this process, and a use case to run it on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from include.cli.app import main
from include.config.settings import settings
from tests.builders.command_line import DAYS, YAML, Done, Run, write_day


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Run `evergreen` in this process, with a home of its own and `tmp_path` as its folder of
    use cases.
    """
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("EVERGREEN_USECASES", str(tmp_path))
    settings.cache_clear()

    def call(*arguments: object) -> Done:
        settings.cache_clear()
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        code = ended.value.code
        shown = capfd.readouterr()
        return Done(code if isinstance(code, int) else 0, shown.out, shown.err)

    yield call
    settings.cache_clear()


@pytest.fixture
def visits(tmp_path: Path) -> Path:
    """Write the use case `visits` and its days, the third of which has bad rows."""
    (tmp_path / "visits.yaml").write_text(YAML)
    for day in range(DAYS):
        write_day(tmp_path, day, bad=3 if day == 2 else 0)
    return tmp_path
