"""Task logs are bounded by their size; how large a home folder is stands in a file."""

from __future__ import annotations

import json
import os
from pathlib import Path

from include.config.settings import Settings
from include.installation.housekeeping import (
    keep_house,
    measure,
    remove_oldest,
)
from include.retention.left_behind import sizes_file

NOW = 1_800_000_000.0
HOUR = 3600.0


def write(path: Path, size: int, age_hours: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (NOW - age_hours * HOUR,) * 2)
    return path


def test_the_oldest_logs_go_first_and_those_of_tasks_that_may_run_stay(tmp_path: Path) -> None:
    logs = tmp_path / "logs" / "airflow"
    oldest = write(logs / "dag_id=a" / "run_id=1" / "attempt=1.log", 400, 90)
    old = write(logs / "dag_id=a" / "run_id=2" / "attempt=1.log", 400, 80)
    newer = write(logs / "dag_processor" / "2026-11-27" / "a.py.log", 400, 70)
    running = write(logs / "dag_id=a" / "run_id=3" / "attempt=1.log", 5000, 0.1)
    outside = write(tmp_path / "kept.txt", 400, 200)
    (logs / "latest").symlink_to(outside)
    assert remove_oldest(logs, 6200, NOW) == 0
    assert remove_oldest(logs, 5800, NOW) == 1
    assert not oldest.parent.exists(), "an empty folder goes too"
    assert old.exists()
    assert newer.exists()
    assert remove_oldest(logs, 100, NOW) == 2
    assert running.exists(), "a log that is written to is nobody's rubbish, however large"
    assert outside.exists()
    assert logs.is_dir()
    assert remove_oldest(tmp_path / "none", 0, NOW) == 0


def test_a_home_folder_says_how_large_its_parts_are(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, task_log_megabytes=0.0005)
    write(tmp_path / "records.db", 1000, 0)
    write(tmp_path / "records.db-wal", 500, 0)
    write(tmp_path / "lake" / "loans" / "part.parquet", 300, 0)
    write(tmp_path / "logs" / "airflow" / "old.log", 600, 2)
    (tmp_path / "elsewhere").symlink_to("/usr")
    keep_house(settings, NOW)
    sizes = json.loads(sizes_file(tmp_path).read_text())
    assert sizes.pop("free") > 0
    assert sizes == {"records.db": 1500, "lake": 300, "logs": 0}
    assert "run" in measure(tmp_path)
