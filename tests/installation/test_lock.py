"""One process a home folder, and who it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.config.settings import ROOT, Settings
from include.errors import Busy
from include.installation import lock
from include.installation.lock import InstallationLock, find_holder
from include.processes import Born

HOLD = """
import sys, time
from pathlib import Path
from include.config.settings import Settings
from include.installation.lock import InstallationLock
with InstallationLock(Settings(home=Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Return another process that has the lock, and gives it back on a line of input."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_who_runs(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    settings = Settings(home=tmp_path)
    assert find_holder(settings) == Born.of(other.pid)
    with (
        pytest.raises(Busy, match=f"in use by process {other.pid}.*EVERGREEN_HOME"),
        InstallationLock(settings),
    ):
        pass
    other.communicate("go\n")
    assert find_holder(settings) is None
    with InstallationLock(settings):
        assert json.loads((tmp_path / "run" / "holder.json").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "run" / "holder.json").exists()


def test_a_killed_process_holds_nobody_up(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    settings = Settings(home=tmp_path)
    assert (tmp_path / "run" / "holder.json").exists()
    assert find_holder(settings) is None
    with InstallationLock(settings):
        pass


@pytest.mark.parametrize("text", ["", "{", '{"pid": 1}', '{"pid": 1, "created": 0.5}'])
@pytest.mark.usefixtures("other")
def test_a_holder_that_does_not_say_who_it_is_is_no_process_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(lock, "WRITTEN_WITHIN", 0.2)
    (tmp_path / "run" / "holder.json").write_text(text)
    with pytest.raises(Busy, match="does not say which it is"):
        find_holder(Settings(home=tmp_path))


def test_looking_who_runs_does_not_turn_a_start_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lock.LOOKED_AT >= 1.0
    monkeypatch.setattr(lock, "LOOKED_AT", 60.0)  # a busy machine gives the other its time late
    settings = Settings(home=tmp_path)
    look = (
        "import sys, time\nfrom pathlib import Path\nfrom filelock import FileLock\n"
        "lock = FileLock(Path(sys.argv[1]) / 'run' / 'lock')\nwith lock:\n"
        "    print('held', flush=True)\n    time.sleep(0.3)\n"
    )
    (tmp_path / "run").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", look, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with InstallationLock(settings):
            pass
