"""Segments into the lake: once each, by the day of the answer, whatever a crash left behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from include.config.settings import ROOT, Settings
from include.errors import Busy, EvergreenError, SourceError
from include.lake.appended import AppendedTable
from include.lake.tables import Fence, Lake
from include.predictions import import_segments
from include.predictions.import_segments import Imported, import_closed, only_one
from include.predictions.log import closed_segments, folder
from include.predictions.reading import SCHEMA
from include.records.records import Records
from tests.builders.logged import DAY, version_1, write_segment

TABLE = "loans/predictions"


@dataclass
class Place:
    settings: Settings
    lake: Lake
    records: Records

    def answer(self, *numbers: int, days: int = 0, **changes: Any) -> None:
        """Write one closed segment."""
        write_segment(self.settings.home, *numbers, at=DAY + timedelta(days=days), **changes)

    def spoil(self, *lines: bytes) -> Path:
        """Add lines to the newest segment; return its path."""
        path = closed_segments(self.settings.home, "loans")[-1].path
        with path.open("ab") as file:
            file.writelines(lines)
        return path

    def load(self, *, wait: float = 0.0) -> Imported:
        return import_closed(
            self.settings, self.lake, self.records, "loans", at=DAY, actor="test", wait=wait
        )

    def asked(self, key: str = "2026-03-10") -> list[str]:
        return sorted(self.lake.read(TABLE, keys=[key]).column("request_id").to_pylist())

    @property
    def folder(self) -> Path:
        return folder(self.settings.home, "loans")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    settings = Settings(home=tmp_path)
    records = Records.open(settings.records_address)
    records.migrate()
    return Place(settings, Lake(settings.lake_root), records)


def test_segments_are_imported_by_the_day_of_the_answer_and_removed(place: Place) -> None:
    assert place.load() == Imported()
    place.answer(1, 2)
    place.answer(3, days=1)
    assert place.load() == Imported(lines=3, segments=2)
    assert (place.asked(), place.asked("2026-03-11")) == (["r1", "r2"], ["r3"])
    assert list(place.folder.iterdir()) == []
    place.answer(4)
    assert place.load().lines == 1
    assert place.asked() == ["r1", "r2", "r4"]
    stored = place.lake.schema(TABLE)
    assert stored is not None
    assert {field.name: field.type for field in stored} == {
        field.name: field.type for field in SCHEMA
    }


def test_what_comes_later_rewrites_nothing_of_its_day(place: Place) -> None:
    """The work of an import is that of its own lines, however full the day is."""
    files = [set[str]()]
    for number in range(3):
        place.answer(number)
        place.load()
        files.append(set(DeltaTable(place.lake.uri(TABLE)).file_uris()))
    assert [len(one) for one in files] == [0, 1, 2, 3]
    assert all(before < after for before, after in pairwise(files))


def test_a_segment_that_a_crash_left_behind_is_not_doubled(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.answer(1, 2)
    place.answer(3)
    with monkeypatch.context() as killed:
        killed.setattr(import_segments.prediction_log, "forget", lambda segments: None)
        assert place.load().lines == 3
    place.answer(4)
    assert len(closed_segments(place.settings.home, "loans")) == 3
    assert place.load() == Imported(lines=1, segments=3)
    assert place.asked() == ["r1", "r2", "r3", "r4"]
    assert closed_segments(place.settings.home, "loans") == []


LOAD = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from include.config.settings import Settings
from include.lake.tables import Lake
from include.predictions import import_segments, log
from include.records.records import Records
settings = Settings(home=Path(sys.argv[1]))
import_segments.BATCH_SEGMENTS = 3
print("ready", flush=True)
sys.stdin.readline()
import_segments.import_closed(settings, Lake(settings.lake_root),
    Records.open(settings.records_address), "loans", at=datetime.now(UTC), actor="test", wait=60.0)
"""


@pytest.mark.slow
def test_an_import_killed_at_any_point_neither_doubles_nor_loses_a_line(place: Place) -> None:
    generator, number = random.Random(7), 0
    importer = [sys.executable, "-c", LOAD, str(place.settings.home)]
    for _ in range(8):
        for _ in range(20):
            place.answer(*range(number, number + 50))
            number += 50
        worker = subprocess.Popen(importer, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert worker.stdout is not None
        assert worker.stdin is not None
        assert worker.stdout.readline() == b"ready\n"
        worker.stdin.write(b"\n")
        worker.stdin.flush()
        time.sleep(generator.uniform(0.02, 0.4))
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    place.load(wait=60.0)
    counted = Counter(place.asked())
    assert len(counted) == number
    assert set(counted.values()) == {1}


def test_what_cannot_be_read_is_set_aside_and_keeps_nothing_back(place: Place) -> None:
    place.answer(1)
    torn = [b"\0" * 64 + b"\n", b'{"request_id":"half\n', version_1(), b"end without a line feed"]
    path = place.spoil(*torn)
    place.answer(2)
    assert place.load() == Imported(lines=3, set_aside=3, segments=2)
    assert place.asked() == ["old", "r1", "r2"]
    aside = path.with_name(f"{path.stem}.3.bad")
    assert aside.read_bytes() == torn[0] + torn[1] + torn[3]
    assert aside.stat().st_mode & 0o077 == 0
    (entry,) = place.records.audit.entries("loans", action="predictions.set_aside")
    assert (entry.subject, entry.details["lines"]) == (path.stem, 3)
    assert [line for line, _, _ in entry.details["first"]] == [1, 2, 4]
    content = path.name, entry.details["first"][1][1]
    assert content[1] > len(torn[0])
    assert "half" not in str(entry.details)
    # Once it can be read it is given back under another name, and imported like any segment.
    aside.write_bytes(version_1(request_id="mended"))
    aside.rename(path.with_name(f"{path.stem}-again.jsonl"))
    assert place.load().lines == 1
    assert "mended" in place.asked()


def test_what_cannot_be_set_aside_is_told_and_nothing_is_lost(place: Place) -> None:
    place.answer(1)
    path = place.spoil(b"no line\n")
    aside = path.with_name(f"{path.stem}.1.bad")
    (aside / "in the way").mkdir(parents=True)
    with pytest.raises(SourceError, match="cannot be set aside"):
        place.load()
    assert path.exists()
    shutil.rmtree(aside)
    assert place.load(wait=60.0) == Imported(lines=1, set_aside=1, segments=1)


def test_a_segment_without_a_single_good_line_is_set_aside(place: Place) -> None:
    place.folder.mkdir(parents=True)
    (place.folder / "00000000000000000007-abc.jsonl").write_bytes(b"\0" * 1000)
    assert place.load() == Imported(set_aside=1, segments=1)
    assert [path.name for path in place.folder.iterdir()] == ["00000000000000000007-abc.1.bad"]


def test_what_was_set_aside_before_a_crash_is_audited_after_it_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.answer(1)
    place.spoil(b"no line\n")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(place.records.audit, "append", die)
        with pytest.raises(KeyboardInterrupt):
            place.load()
    assert place.asked() == ["r1"]
    assert place.load(wait=60.0) == Imported(lines=0, set_aside=1, segments=1)
    assert place.load() == Imported()
    assert len(place.records.audit.entries("loans", action="predictions.set_aside")) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_segment_that_may_not_be_read_stays_and_is_told(place: Place) -> None:
    place.answer(1)
    (shut,) = closed_segments(place.settings.home, "loans")
    shut.path.chmod(0)
    place.answer(2)
    assert place.load() == Imported(lines=1, segments=1, waiting=[shut.name])
    shut.path.chmod(0o600)
    assert place.load().lines == 1


def test_a_segment_that_is_a_folder_stays_and_is_told(place: Place) -> None:
    place.answer(1)
    (place.folder / "00000000000000000007-abc.jsonl").mkdir()
    assert place.load() == Imported(lines=1, segments=1, waiting=["00000000000000000007-abc"])


def test_a_lake_that_cannot_be_written_loses_nothing(place: Place) -> None:
    place.answer(1)
    (place.settings.home / "lake").write_text("a file where the lake should be")
    with pytest.raises(SourceError):
        place.load()
    (place.settings.home / "lake").unlink()
    assert place.load().lines == 1


def test_a_table_of_a_version_before_takes_the_new_columns(place: Place) -> None:
    old = pa.table(
        {
            "request_id": ["r0"],
            "at": pa.array([DAY], pa.timestamp("us", "UTC")),
            "version": [1],
            "features": ["{}"],
            "segment": ["00000000000000000001-abc"],
            "line": [0],
        }
    )
    place.lake.replace(TABLE, "2026-03-10", old)
    place.answer(1)
    assert place.load().lines == 1
    rows = place.lake.read(TABLE).sort_by("request_id").to_pylist()
    assert [row["assigned"] for row in rows] == [None, "champion"]


def test_days_are_imported_in_the_memory_of_a_batch(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch is a commit of its own, and each chunk is handed on before the next is read."""
    monkeypatch.setattr(import_segments, "BATCH_BYTES", 1000)
    for number in range(6):
        place.answer(number, number + 100)
    assert place.load() == Imported(lines=12, segments=6)
    version = place.lake.version(TABLE)
    assert version is not None
    assert version >= 2
    assert len(place.asked()) == 12


def test_one_importer_at_a_time(place: Place) -> None:
    place.answer(1)
    with (
        place.records.leases.claim(
            "loans", "predictions", "import", owner="other", attempt=1, ttl=30
        ),
        pytest.raises(Busy),
    ):
        place.load()
    assert place.load().lines == 1


def test_an_importer_that_was_replaced_writes_nothing(place: Place) -> None:
    """A stopped process that goes on after another has taken over is fenced off by the table."""
    place.answer(1)
    place.load()
    table = import_segments.table_of(place.lake, "loans")
    batch = pa.RecordBatch.from_pylist(
        [{"segment": "s", "line": 0, "at": DAY, "request_id": "r2", "partition": "2026-03-10"}],
        schema=import_segments._ROWS,
    )
    with only_one(place.settings, place.records, "loans", wait=0.0) as fence:
        older = Fence(fence.app, fence.token - 1, lambda: None)
        table.append(batch.schema, lambda: iter([batch]), fence)
        with pytest.raises(Busy, match="newer run"):
            table.append(batch.schema, lambda: iter([batch]), older)
    assert place.asked() == ["r1", "r2"]


def test_what_the_rows_raise_is_raised_as_it_is(tmp_path: Path) -> None:
    table = AppendedTable(Lake(str(tmp_path)), "loans/predictions", key="segment", statistics=())

    def rows() -> Any:
        raise EvergreenError("the disk of the segments is full")
        yield

    fence = Fence("app", 1, lambda: None)
    with pytest.raises(EvergreenError, match="of the segments is full"):
        table.append(import_segments._ROWS, rows, fence)
