"""What lies in the folder of a use case's segments, as the node's numbers show it."""

from __future__ import annotations

import time
from pathlib import Path

from include.predictions.log import PredictionLog, closed_segments, folder
from include.predictions.on_disk import OnDisk, free_bytes, look
from tests.builders.logged import write_segment


def test_open_and_closed_segments_wait_and_set_aside_lines_are_counted(tmp_path: Path) -> None:
    assert look(tmp_path, "loans", now=7) == OnDisk(0, 0, 0.0, 0)
    write_segment(tmp_path, 1)
    log = PredictionLog(tmp_path, "loans")
    log.append(b"a line\n")
    (closed,) = closed_segments(tmp_path, "loans")
    for name in ("x.12.bad", "y.3.bad", "mine.bad", "notes.txt"):
        (folder(tmp_path, "loans") / name).write_text("x")
    began = int(closed.name.partition("-")[0])
    seen = look(tmp_path, "loans", now=began + 90 * 10**9)
    assert (seen.segments, seen.set_aside) == (2, 15)
    assert seen.bytes == closed.path.stat().st_size + 7
    assert seen.oldest == 90.0
    log.close()


def test_the_oldest_segment_is_never_in_the_future(tmp_path: Path) -> None:
    write_segment(tmp_path, 1)
    assert look(tmp_path, "loans", now=time.time_ns() - 10**12).oldest == 0.0


def test_free_space_is_that_of_this_process(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) > 0
