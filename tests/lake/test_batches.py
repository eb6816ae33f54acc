"""A lake for many partitions: one commit a table, each partition fenced alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from include.errors import Busy, EvergreenError, SourceError
from include.lake import commits
from include.lake.batches import BatchedLake
from include.lake.commits import Fence
from include.lake.tables import Lake

DAYS = [f"2026-01-{day:02d}" for day in range(1, 6)]


class Range:
    """Five days in one pass; a day in `taken` has lost its lease to somebody else."""

    def __init__(self, root: str) -> None:
        self.taken: set[str] = set()
        self.told: list[str] = []
        self.lake = BatchedLake(
            root,
            find_lost=lambda: {app: Busy(f"{app} is lost") for app in self.taken},
            when_lost=self.told.append,
        )

    def write(self, table: str, keys: list[str], number: int = 1, *, shared: bool = False) -> None:
        for key in keys:
            rows = pa.table({"id": pa.array([number], pa.int64()), "day": [key]})
            self.lake.set_partition(
                table, key, rows, fence=Fence(key, 1, lambda: None), shared=shared
            )


@pytest.fixture
def days(lake: Lake) -> Range:
    return Range(lake.root)


def test_all_partitions_of_a_table_come_by_one_commit(days: Range, lake: Lake) -> None:
    days.write("u/a", DAYS)
    assert not lake.exists("u/a"), "what waits is seen by nobody"
    assert days.lake.keys("u/a") == DAYS
    days.lake.flush()
    assert lake.version("u/a") == 0
    days.write("u/a", DAYS[1:3], 2)
    days.lake.flush()
    assert lake.version("u/a") == 1
    rows = lake.read("u/a").sort_by("day")
    assert rows["id"].to_pylist() == [1, 2, 2, 1, 1]
    assert rows["partition"].to_pylist() == rows["day"].to_pylist() == DAYS


def test_a_day_whose_lease_is_lost_is_left_out_alone(days: Range, lake: Lake) -> None:
    days.write("u/a", DAYS)
    days.taken.add(DAYS[2])
    days.write("u/b", DAYS)
    days.lake.flush()
    expected = [key for key in DAYS if key != DAYS[2]]
    assert lake.keys("u/a") == lake.keys("u/b") == expected
    assert days.told == [DAYS[2]], "once, however many tables"
    with pytest.raises(Busy, match="2026-01-03 is lost"):
        days.write("u/a", DAYS[2:3])


def test_a_day_that_a_newer_run_has_written_is_left_out_alone(days: Range, lake: Lake) -> None:
    days.write("u/a", DAYS)
    days.lake.flush()
    newer = pa.table({"id": pa.array([9], pa.int64()), "day": [DAYS[1]]})
    lake.replace("u/a", DAYS[1], newer, fence=Fence(DAYS[1], 2, lambda: None))
    days.write("u/a", DAYS, 3)
    days.lake.flush()
    assert lake.read("u/a").sort_by("day")["id"].to_pylist() == [3, 9, 3, 3, 3]
    assert days.told == [DAYS[1]]


def test_what_is_shared_is_written_as_long_as_any_lease_is_held(days: Range, lake: Lake) -> None:
    days.write("u/versions", DAYS[:1], shared=True)
    days.write("u/a", DAYS[:2])
    days.taken.add(DAYS[0])
    days.lake.flush()
    assert lake.keys("u/versions") == DAYS[:1]
    assert lake.keys("u/a") == DAYS[1:2]
    days.taken.add(DAYS[1])
    days.write("u/versions", DAYS[:1], 2, shared=True)
    days.lake.flush()
    assert lake.read("u/versions")["id"].to_pylist() == [1], "all are lost"


def test_what_waits_is_written_before_its_table_is_read(days: Range) -> None:
    days.write("u/a", DAYS[:2])
    days.write("u/b", DAYS[:2])
    assert len(days.lake.read("u/a")) == 2
    assert days.lake.waiting_bytes > 0, "the other table waits on"
    days.write("u/a", DAYS[2:])
    assert days.lake.read("u/a", keys=DAYS[2:3])["day"].to_pylist() == DAYS[2:3]


def test_emptied_and_new_partitions_go_together(days: Range, lake: Lake) -> None:
    none = pa.table({})
    days.lake.set_partition("u/a", DAYS[0], none)
    assert not days.lake.exists("u/a")
    days.write("u/a", DAYS[:2])
    days.lake.set_partition("u/a", DAYS[0], none, fence=Fence(DAYS[0], 1, lambda: None))
    assert days.lake.keys("u/a") == DAYS[1:2]
    days.lake.flush()
    days.lake.set_partition("u/a", DAYS[1], none, fence=Fence(DAYS[1], 1, lambda: None))
    days.write("u/a", DAYS[2:3])
    days.lake.flush()
    assert lake.keys("u/a") == DAYS[2:3]
    assert lake.schema("u/a") == pa.schema([("id", pa.int64()), ("day", pa.string())])


def test_a_column_of_another_type_is_refused_for_its_day(days: Range, lake: Lake) -> None:
    days.write("u/a", DAYS[:1])
    other = pa.table({"id": ["x"], "day": [DAYS[1]]})
    with pytest.raises(EvergreenError, match=r"u/a 2026-01-02 .* id is string"):
        days.lake.replace("u/a", DAYS[1], other)
    more = pa.table({"id": pa.array([2], pa.int64()), "more": ["new"]})
    days.lake.replace("u/a", DAYS[2], more)
    days.lake.flush()
    assert lake.read("u/a").sort_by("id")["more"].to_pylist() == [None, "new"]


def test_ranges_beside_each_other_lose_nothing(tmp_path: Path) -> None:
    root = str(tmp_path / "lake")

    def load(number: int) -> None:
        keys = [f"2026-0{number}-{day:02d}" for day in range(1, 29)]
        work = Range(root)
        for start in range(0, 28, 7):
            work.write("u/a", keys[start : start + 7], number)
            work.lake.flush()
        assert work.told == []

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(load, (1, 2, 3)))
    assert len(Lake(root).keys("u/a")) == 84
    assert len(Lake(root).read("u/a")) == 84


def test_after_a_write_that_failed_nothing_is_taken_for_written(
    days: Range, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage may catch what comes of reading a table, and go on: the flush tells it again."""

    def fail(*words: object, **named: object) -> None:
        raise OSError("no space")

    days.write("u/a", DAYS)
    monkeypatch.setattr(commits, "write_deltalake", fail)
    with pytest.raises(SourceError, match="no space"):
        days.lake.read("u/a")
    with pytest.raises(SourceError, match="no space"):
        days.lake.flush()
