"""`evergreen backup`, `restore` and `move`, as a person types them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from include.clock import utc_now
from include.config.settings import ROOT
from include.records.records import AuditEntry, Records
from include.records.schema import HEAD
from tests.builders.installation import Installation


def evergreen(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command on a home, with nobody to answer."""
    return subprocess.run(
        [sys.executable, "-m", "include", *arguments],
        env={**os.environ, "EVERGREEN_HOME": str(home)},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def small(home: Path) -> Installation:
    made = Installation(home)
    for number in range(3):
        entry = AuditEntry("test", made.name, str(number), "test", {}, utc_now())
        made.records.routes.change(made.name, set={"step": number}, entry=entry)
    return made


@pytest.mark.slow
def test_a_backup_is_taken_listed_and_restored(tmp_path: Path) -> None:
    home, kept, other = tmp_path / "home", tmp_path / "kept", tmp_path / "other"
    made = small(home)
    for _ in range(2):
        done = evergreen(home, "backup", str(kept), "--keep", "1")
        assert done.returncode == 0, done.stderr
    assert "1 older backups are removed" in done.stdout
    assert len(list((kept / "backups").iterdir())) == 1
    actions = [entry.action for entry in made.records.audit.entries("")]
    assert actions == ["backup.begun", "backup.taken"] * 2

    done = evergreen(other, "restore", str(kept))
    assert done.returncode == 2, "nobody agreed"
    assert "add --yes" in done.stderr
    done = evergreen(other, "restore", str(kept), "--yes")
    assert done.returncode == 0, done.stderr
    assert "the records are in epoch 2" in done.stdout
    restored = Records.open(f"sqlite:///{other}/records.db")
    assert restored.routes.get(made.name) == made.records.routes.get(made.name)
    assert restored.epochs.current() == 2
    done = evergreen(other, "restore", str(kept), "--yes")
    assert done.returncode == 2
    assert "is not empty" in done.stderr


def test_a_name_or_a_place_without_backups_is_refused(tmp_path: Path) -> None:
    done = evergreen(tmp_path / "home", "restore", str(tmp_path / "nothing"), "--yes")
    assert done.returncode == 2
    assert "holds no backup; there is none" in done.stderr


def test_a_home_is_moved(tmp_path: Path) -> None:
    made = small(tmp_path / "home")
    done = evergreen(tmp_path / "other", "move", "--from", str(tmp_path / "home"), "--yes")
    assert done.returncode == 0, done.stderr
    restored = Records.open(f"sqlite:///{tmp_path}/other/records.db")
    assert restored.routes.get(made.name) == made.records.routes.get(made.name)
    assert HEAD in evergreen(tmp_path / "other", "doctor").stdout
