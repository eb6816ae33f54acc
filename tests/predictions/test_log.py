"""The prediction log: whole lines, closed segments, dead writers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from include.config.settings import ROOT
from include.errors import Unavailable
from include.predictions.log import (
    Prediction,
    PredictionLog,
    closed_segments,
    folder,
    forget,
    read,
    recover,
)


def line(number: int) -> Prediction:
    return Prediction(
        request_id=f"r{number}",
        at="2026-03-10T00:00:00.000001+00:00",
        version=1,
        digest="d",
        arm="champion",
        entity=str(number),
        score=0.5,
        decision="accept",
        flags="",
        feature_set="f",
        features_at=None,
        features=msgspec.Raw(b'{"a":1}'),
        latency_us=9,
    )


def test_closed_segments_are_read_with_a_name_for_every_row(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, "loans")
    for number in range(3):
        log.append(line(number))
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
    by_size.append(line(1))
    by_size.append(line(2))
    assert len(closed_segments(tmp_path, "loans")) == 2
    by_time = PredictionLog(tmp_path, "other", rotate_seconds=0.0)
    by_time.append(line(1))
    by_time.rotate()
    by_time.rotate()
    assert len(closed_segments(tmp_path, "other")) == 1


def test_the_segment_of_a_killed_writer_is_recovered_and_a_torn_line_cut_off(
    tmp_path: Path,
) -> None:
    code = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, 'tests/predictions'); "
        f"from test_log import *\nlog = PredictionLog(Path({str(tmp_path)!r}), 'loans')\n"
        "log.append(line(1)); log.append(line(2)); print('ready', flush=True); time.sleep(60)"
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
    assert read(closed_segments(tmp_path, "loans")).column("request_id").to_pylist() == ["r1", "r2"]


def test_what_cannot_be_logged_is_not_answered(tmp_path: Path) -> None:
    folder(tmp_path, "loans").parent.mkdir(parents=True)
    folder(tmp_path, "loans").write_text("a file where the folder should be")
    with pytest.raises(Unavailable, match="cannot be written"):
        PredictionLog(tmp_path, "loans").append(line(1))
