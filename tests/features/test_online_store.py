"""The packed online rows: all or nothing, never backwards, and whole after a kill."""

from __future__ import annotations

import dataclasses
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.config.settings import ROOT
from include.errors import Busy, Conflict, Unavailable
from include.features.online_reader import OnlineReader
from include.features.online_rows import (
    OnlineSet,
    OnlineView,
    RowsLost,
    Value,
    pack,
    rows_digest,
    unpack,
)
from include.features.online_store import publish
from tests.builders.stopwatch import Stopwatch

SET = OnlineSet(
    "aaaa",
    ("x", "y"),
    "2025-01-01",
    timedelta(days=3),
    datetime(2025, 1, 2, tzinfo=UTC),
    "inputs",
    "digest",
)
VIEW = OnlineView("facts", 3, ("x", "y"))


def of(partition: str, feature_set: str = "aaaa") -> OnlineSet:
    return dataclasses.replace(SET, partition=partition, feature_set=feature_set)


def test_a_row_comes_back_as_it_went_in(tmp_path: Path) -> None:
    values: list[Value] = [
        None,
        True,
        False,
        -3,
        2**53,
        0.1,
        math.inf,
        -0.0,
        "",
        "ä\N{SNOWMAN}'\"; drop table rows --",
    ]
    publish(
        tmp_path / "o.db", SET, [pack(7, 1_700_000_000_000_001, values), pack("o'brien", 5, [])]
    )
    reader = OnlineReader(tmp_path / "o.db")
    assert reader.get("aaaa", 7) == (1_700_000_000_000_001, values)
    assert reader.get("aaaa", "7") == reader.get("aaaa", 7)
    assert reader.get("aaaa", "o'brien") == (5, [])
    assert reader.get("aaaa", 8) is None
    assert reader.get("bbbb", 7) is None
    assert reader.describe("aaaa") == SET
    assert reader.count("aaaa") == 2


def test_nan_is_kept(tmp_path: Path) -> None:
    publish(tmp_path / "o.db", SET, [pack(1, 0, [math.nan])])
    found = OnlineReader(tmp_path / "o.db").get("aaaa", 1)
    assert found is not None
    assert math.isnan(float(found[1][0] or 0))


def test_a_newer_partition_replaces_everything_and_an_older_one_nothing(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    publish(path, of("2025-01-02"), [pack(1, 2, [2]), pack(2, 2, [2])])
    publish(path, of("2025-01-03"), [pack(1, 3, [3])])
    publish(path, of("2025-01-01", "bbbb"), [pack(1, 1, [1])])
    with pytest.raises(Conflict, match=r"2025-01-03.*2025-01-02 does not replace"):
        publish(path, of("2025-01-02"), [pack(1, 2, [2])])
    reader = OnlineReader(path)
    assert reader.get("aaaa", 1) == (3, [3])
    assert reader.get("aaaa", 2) is None
    assert reader.get("bbbb", 1) == (1, [1])
    publish(path, of("2025-01-03"), [pack(1, 3, [33])])
    assert reader.get("aaaa", 1) == (3, [33])


def test_a_writer_that_is_fenced_off_right_before_its_commit_leaves_the_old_rows(
    tmp_path: Path,
) -> None:
    path = tmp_path / "o.db"
    publish(path, of("2025-01-02"), [pack(1, 2, [2])])

    def fenced() -> None:
        raise Busy("superseded")

    with pytest.raises(Busy):
        publish(path, of("2025-01-03"), [pack(1, 3, [3])], check=fenced)
    reader = OnlineReader(path)
    assert (reader.get("aaaa", 1), reader.describe("aaaa")) == ((2, [2]), of("2025-01-02"))


def test_readers_see_the_old_rows_until_the_commit_and_never_wait(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    publish(path, of("2025-01-02"), [pack(1, 2, [2])])
    reader, seen, slowest = OnlineReader(path), [], 0.0

    def while_written() -> None:
        nonlocal slowest
        for _ in range(50):
            stopwatch = Stopwatch()
            seen.append(reader.get("aaaa", 1))
            slowest = max(slowest, stopwatch.seconds)

    publish(
        path,
        of("2025-01-03"),
        [pack(number, 3, [3]) for number in range(2000)],
        check=while_written,
    )
    assert set(map(str, seen)) == {str((2, [2]))}
    assert slowest < 0.5
    assert reader.get("aaaa", 1) == (3, [3])


def test_nothing_online_yet_reads_as_nothing_known(tmp_path: Path) -> None:
    path = tmp_path / "online" / "o.db"
    reader = OnlineReader(path)
    assert reader.get("aaaa", 1) is None
    assert reader.describe("aaaa") is None
    publish(path, SET, [pack(1, 2, [2])])
    assert reader.get("aaaa", 1) == (2, [2])


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    path.write_bytes(b"no database at all, " * 500)
    with pytest.raises(Unavailable, match=r"o\.db.*check the disk"):
        OnlineReader(path).get("aaaa", 1)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("columns", "["),
        ("columns", "[" * 100_000),
        ("columns", '{"columns": ["x"]}'),
        ("ttl", 1e30),
        ("ttl", "long"),
        ("written", "yesterday"),
    ],
)
def test_a_damaged_description_is_to_be_published_again(
    tmp_path: Path, column: str, value: object
) -> None:
    path = tmp_path / "o.db"
    publish(path, SET, [pack(1, 2, [2])])
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE sets SET {column} = ?", (value,))
    reader = OnlineReader(path)
    with pytest.raises(RowsLost, match=r"aaaa .*cannot be read .*run materialize_features"):
        reader.describe("aaaa")
    assert not reader.is_readable()


@pytest.mark.parametrize("values", [b"", b"\xc1", b"\x81\xa1a\x01", "text", None])
def test_a_damaged_row_is_to_be_published_again(values: object) -> None:
    with pytest.raises(RowsLost, match="run materialize_features"):
        unpack(values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("views", "values"),
    [((), [1]), ((VIEW,), [1, 2]), ((VIEW,), [1, 2, "long ago"]), ((VIEW,), [1, 2, math.inf])],
)
def test_a_row_of_another_form_has_no_ages(
    views: tuple[OnlineView, ...], values: list[Value]
) -> None:
    with pytest.raises(RowsLost, match="row of feature set aaaa cannot be read"):
        dataclasses.replace(SET, views=views).ages(5, values, 9)


WRITER = """
import dataclasses, sys
from pathlib import Path
from tests.builders.stopwatch import Stopwatch
from tests.features.test_online_store import of
from include.features.online_rows import pack, rows_digest
from include.features.online_store import publish
from tests.builders.stopwatch import Stopwatch
path, first = Path(sys.argv[1]), int(sys.argv[2])
for day in range(first, first + 400):
    rows = [pack(f"{n:05}", day, [day] * 8) for n in range(300 + day % 7)]
    publish(path, dataclasses.replace(of(f"{day:010}"), digest=rows_digest(rows)), rows)
    print(day, flush=True)
"""


@pytest.mark.slow
def test_kill_at_twenty_points_leaves_old_or_new_rows_never_a_mix(tmp_path: Path) -> None:
    path, draw, day = tmp_path / "o.db", random.Random(1), 0
    for _ in range(20):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(day)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        acknowledged = int(child.stdout.readline())
        time.sleep(draw.random() * 0.05)
        os.kill(child.pid, signal.SIGKILL)
        acknowledged = max(
            [acknowledged, *(int(line) for line in child.stdout.read().split("\n") if line.strip())]
        )
        child.wait()
        reader = OnlineReader(path)
        there = reader.describe("aaaa")
        assert there is not None
        day = int(there.partition)
        assert day >= acknowledged
        rows = list(reader.rows("aaaa"))
        assert {event for _, event, _ in rows} == {day}
        assert rows_digest(rows) == there.digest
        reader.close()


def test_importing_it_loads_no_heavy_library() -> None:
    heavy = {"duckdb", "pyarrow", "numpy", "pandas", "feast", "pydantic"}
    code = f"import sys, include.features.online_store; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
