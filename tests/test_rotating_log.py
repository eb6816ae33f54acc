"""Logs are bounded while their process runs, and lose nothing by it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from include.rotating_log import CHUNK, PENDING, RotatingLog

PRINT = """
import os, sys
for number in range(20000):
    os.write(1, f"{sys.argv[1]} line {number:06d}\\n".encode())
"""


def read_all(log: RotatingLog) -> bytes:
    """Return what is in all files of a log, from the oldest on."""
    files = [log._older(number) for number in range(log.kept, 0, -1)] + [log.path]
    return b"".join(path.read_bytes() for path in files if path.exists())


def test_two_running_processes_lose_no_line_while_their_log_is_rotated(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "node.log", max_bytes=50_000, kept=40)
    writing = log.open_pipe()
    started = [
        subprocess.Popen([sys.executable, "-c", PRINT, name], stdout=writing) for name in "ab"
    ]
    os.close(writing)
    assert [process.wait(timeout=60) for process in started] == [0, 0]
    log.drain(20)
    lines = read_all(log).decode().splitlines()
    for name in "ab":
        assert [line for line in lines if line.startswith(name)] == [
            f"{name} line {number:06d}" for number in range(20000)
        ]
    files = sorted(tmp_path.iterdir())
    assert len(files) == 12, "560,000 bytes"
    for path in files:
        content = path.read_bytes()
        assert len(content) <= 50_000
        assert content.endswith(b"\n")


def test_only_so_many_files_are_kept(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "node.log", max_bytes=100, kept=2)
    for number in range(50):
        log.write(b"%09d\n" % number)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "node.1.log",
        "node.2.log",
        "node.log",
    ]
    assert read_all(log).splitlines()[-1] == b"%09d" % 49
    none = RotatingLog(tmp_path / "bare.log", max_bytes=100, kept=0)
    for number in range(50):
        none.write(b"%09d\n" % number)
    assert len(none.path.read_bytes()) <= 100


@pytest.mark.parametrize("size", [1, 99, 100, 101, 5000, 3 * CHUNK])
def test_lines_of_any_length_are_written_whole_unless_they_have_no_end(
    tmp_path: Path, size: int
) -> None:
    log = RotatingLog(tmp_path / "node.log", max_bytes=100, kept=40)
    said = b"before\n" + b"x" * size + b"\nafter\n"
    for start in range(0, len(said), 1000):
        log.write(said[start : start + 1000])
    assert read_all(log) == said
    assert max(path.stat().st_size for path in tmp_path.iterdir()) <= 100 + 2 * CHUNK


def test_what_a_full_disk_does_not_take_is_kept_or_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = RotatingLog(tmp_path / "node.log", max_bytes=10 * PENDING, kept=1)
    log.write(b"before\n")
    real, room = os.write, [3]

    def write(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] = 0
        return real(descriptor, data[:3])  # the last bytes that there was room for

    with monkeypatch.context() as full:
        full.setattr(os, "write", write)
        log.write(b"meanwhile\n")
    log.write(b"after\n")
    assert read_all(log) == b"before\nmeanwhile\nafter\n"
    with monkeypatch.context() as full:
        full.setattr(os, "write", write)
        for _ in range(3):
            log.write(b"y" * (PENDING // 2 - 1) + b"\n")
    log.write(b"end\n")
    assert b"bytes could not be written)\n" in read_all(log)
    assert read_all(log).endswith(b"\nend\n")
    assert log.lost == 0


def test_a_log_that_somebody_removes_is_made_anew(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "logs" / "node.log", max_bytes=1000, kept=1)
    log.write(b"one\n")
    log.path.unlink()
    log.write(b"two\n")
    assert log.path.read_bytes() == b"two\n"
    assert log.path.stat().st_mode & 0o077 == 0


def test_its_thread_ends_with_the_last_writer(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "node.log", max_bytes=1000, kept=1)
    before = set(threading.enumerate())  # others may end meanwhile
    for _ in range(5):
        writing = log.open_pipe()
        os.write(writing, b"line\n")
        os.close(writing)
        log.drain(10)
    assert set(threading.enumerate()) <= before
    assert read_all(log) == b"line\n" * 5
