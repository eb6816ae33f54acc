"""The child process that opens foreign files survives bad ones, and its death is told."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from include.errors import SourceError
from include.ingestion import file_reader
from include.ingestion.file_reader import FileReader
from tests.builders.stopwatch import Stopwatch

pytestmark = pytest.mark.usefixtures("cold_readers")

DECLARED = ["id", "name"]


def test_one_child_reads_file_after_file_and_ends_with_the_block(tmp_path: Path) -> None:
    csv, jsonl = tmp_path / "a.csv", tmp_path / "a.jsonl"
    csv.write_text("id,name\n1,Ann\n")
    jsonl.write_text('{"id": 2}\n')
    with FileReader() as reader:
        answer, rows = reader.read(csv, "a.csv", "csv", DECLARED, {})
        assert answer["columns"] == DECLARED
        assert rows.to_pylist() == [{"c0": "1", "c1": "Ann", "row": 1}]
        child = reader._child
        answer, rows = reader.read(jsonl, "a.jsonl", "jsonl", DECLARED)
        assert (answer["columns"], len(rows)) == (["id"], 1)
        assert reader._child is child
        folder = reader.folder
    assert child is not None
    assert child.poll() is not None
    assert not folder.exists()


def test_a_refused_file_names_itself_and_the_next_one_is_read(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.csv", tmp_path / "good.csv"
    bad.write_bytes(b"PK\x03\x04")
    good.write_text("id,name\n1,Ann\n")
    with FileReader() as reader:
        with pytest.raises(SourceError, match=r"^bad.csv: is a damaged zip file"):
            reader.read(bad, "bad.csv", "csv", DECLARED, {})
        with pytest.raises(SourceError, match=r"^none.csv: cannot be read"):
            reader.read(tmp_path / "none.csv", "none.csv", "csv", DECLARED, {})
        assert len(reader.read(good, "good.csv", "csv", DECLARED, {})[1]) == 1
        good.write_bytes(b"")
        assert len(reader.read(good, "good.csv", "csv", DECLARED, {})[1]) == 0


def test_a_child_that_died_is_told_and_the_next_file_gets_another(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,name\n1,Ann\n")
    with FileReader() as reader:
        reader.read(path, "a.csv", "csv", DECLARED, {})
        assert reader._child is not None
        os.kill(reader._child.pid, signal.SIGKILL)
        reader._child.wait()
        with pytest.raises(SourceError, match=r"a.csv: the reader died on it \(exit -9\)"):
            reader.read(path, "a.csv", "csv", DECLARED, {})
        assert len(reader.read(path, "a.csv", "csv", DECLARED, {})[1]) == 1


def test_a_file_that_is_read_for_too_long_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,name\n1,Ann\n")
    monkeypatch.setattr(file_reader, "FILE_SECONDS", 0.2)
    with FileReader() as reader:
        child = reader._start()
        os.kill(child.pid, signal.SIGSTOP)
        stopwatch = Stopwatch()
        with pytest.raises(SourceError, match="was not read within 0 s"):
            reader.read(path, "a.csv", "csv", DECLARED, {})
        assert stopwatch.seconds < 30
        assert child.poll() is not None, "a child that hangs is killed"
