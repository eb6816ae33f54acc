"""The prediction log: whole lines, closed segments, dead writers."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.config.settings import ROOT
from include.errors import Unavailable
from include.predictions.line_writer import LineWriter
from include.predictions.log import (
    PredictionLog,
    began_at,
    closed_segments,
    folder,
    forget,
    recover,
)
from include.predictions.reading import read
from tests.builders.logged import DAY, line

LINE = line(LineWriter(PredictionLog(Path(), "")), 1)


def test_closed_segments_are_read_with_a_name_for_every_row(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, "loans")
    for number in range(3):
        log.append(line(LineWriter(log), number, at=DAY.replace(microsecond=1)))
    assert closed_segments(tmp_path, "loans") == []  # it is open, and its writer lives
    log.close()
    rows = read(closed_segments(tmp_path, "loans"))
    assert rows.column("request_id").to_pylist() == ["r0", "r1", "r2"]
    assert rows.column("line").to_pylist() == [0, 1, 2]
    assert rows.column("features").to_pylist() == ['{"a":1}'] * 3
    assert str(rows.schema.field("at").type) == "timestamp[us, tz=UTC]"
    assert rows.column("at")[0].as_py().microsecond == 1
    forget(closed_segments(tmp_path, "loans"))
    assert read(closed_segments(tmp_path, "loans")).num_rows == 0


def test_a_segment_is_rotated_by_size_and_by_time(tmp_path: Path) -> None:
    by_size = PredictionLog(tmp_path, "loans", rotate_bytes=10)
    by_size.append(LINE)
    by_size.append(LINE)
    assert len(closed_segments(tmp_path, "loans")) == 2
    by_time = PredictionLog(tmp_path, "other", rotate_seconds=0.0)
    by_time.append(LINE)
    by_time.rotate()
    by_time.rotate()
    assert len(closed_segments(tmp_path, "other")) == 1


def test_the_segment_of_a_killed_writer_is_recovered_and_a_torn_line_cut_off(
    tmp_path: Path,
) -> None:
    code = (
        "import time; from pathlib import Path; from include.predictions.log import PredictionLog\n"
        f"log = PredictionLog(Path({str(tmp_path)!r}), 'loans'); line = {LINE!r}\n"
        "log.append(line); log.append(line); print('ready', flush=True); time.sleep(60)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    assert recover(tmp_path, "loans") == []
    os.kill(writer.pid, signal.SIGSTOP)  # a stopped writer is not a dead one
    assert recover(tmp_path, "loans") == []
    writer.kill()
    writer.wait()
    (torn,) = folder(tmp_path, "loans").glob("*.open")
    with torn.open("ab") as file:
        file.write(b'{"request_id":"half')
    assert read(closed_segments(tmp_path, "loans")).column("request_id").to_pylist() == ["r1", "r1"]


def test_what_cannot_be_logged_is_not_answered(tmp_path: Path) -> None:
    folder(tmp_path, "loans").parent.mkdir(parents=True)
    folder(tmp_path, "loans").write_text("a file where the folder should be")
    with pytest.raises(Unavailable, match="cannot be written"):
        PredictionLog(tmp_path, "loans").append(LINE)


def test_the_name_of_a_segment_says_when_it_was_begun(tmp_path: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    log = PredictionLog(tmp_path, "loans")
    log.append(LINE)
    log.close()
    (segment,) = closed_segments(tmp_path, "loans")
    began = began_at(segment.path.name)
    assert began is not None
    assert before <= began <= datetime.now(UTC)
    assert began_at("notes.txt") is None


def test_an_answer_does_not_fail_because_its_segment_cannot_be_closed(tmp_path: Path) -> None:
    """As when the folder was deleted by `reset` under a node: what follows opens a new one."""
    log = PredictionLog(tmp_path, "loans", rotate_bytes=10)
    shutil.rmtree(folder(tmp_path, "loans"), ignore_errors=True)
    log.append(LINE)
    assert len(closed_segments(tmp_path, "loans")) == 1
    slow = PredictionLog(tmp_path, "loans")
    slow.append(LINE)
    shutil.rmtree(folder(tmp_path, "loans"))
    slow.rotate()  # its file is gone
    slow.append(LINE)
    slow.close()
    assert len(read(closed_segments(tmp_path, "loans"))) == 1


def test_a_part_of_a_line_is_taken_back_before_the_next_one(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from include.errors import Unavailable\n"
        "from include.predictions.log import PredictionLog\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"log = PredictionLog(Path({str(tmp_path)!r}), 'loans'); line = {LINE!r}\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (len(line) * 5 // 2, 1 << 20))\n"
        "for _ in range(4):\n"
        "    try: log.append(line)\n"
        "    except Unavailable as error: print('refused')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "log.append(line); log.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["refused"] * 2
    assert len(read(closed_segments(tmp_path, "loans"))) == 3


def test_what_is_closed_is_on_the_disk_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a loss of power takes more than the second since the last sync."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda one: synced.append(os.fstat(one).st_size))
    log = PredictionLog(tmp_path, "loans", rotate_bytes=2 * len(LINE))
    for _ in range(3):
        log.append(LINE)
    log.sync()
    assert synced == [2 * len(LINE), len(LINE)], "the one that is full, the one that is open"
    log.append(LINE)
    log.close()
    assert synced[2:] == [2 * len(LINE)]


def open_below(home: Path) -> list[str]:
    """Return what this process has open in a folder, removed files too."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return [path for path in found if path.startswith(f"{home}/")]


def test_descriptors_of_closed_segments_are_given_back(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, "loans", rotate_bytes=10)
    for _ in range(20):
        log.append(LINE)
        log.sync()
    log.append(LINE)
    assert open_below(tmp_path)
    log.close(durable=False)
    assert open_below(tmp_path) == []
