"""Files go that no kept version needs, and only these; versions that are pinned stay whole."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest

from include.lake import vacuum
from include.lake.tables import Lake
from include.lake.vacuum import Unneeded, find_unneeded, remove_unneeded, tables_below

TABLE = "shop/labels"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def write(lake: Lake, value: int, key: str = "2026-03-01") -> int:
    return lake.replace(TABLE, key, pa.table({"x": [value]}))


def values(lake: Lake, version: int | None = None) -> list[int]:
    return sorted(lake.read(TABLE, version=version).column("x").to_pylist())


def find(lake: Lake, pinned: Iterable[int] = (), hours: int = 0) -> Unneeded | None:
    return find_unneeded(lake, TABLE, lambda: pinned, hours=hours)


def test_every_pinned_version_stays_readable_and_few_are_loaded(lake: Lake) -> None:
    versions = [write(lake, value) for value in range(6)]
    days = [write(lake, 10 + day, f"2026-04-{day:02d}") for day in range(1, 8)]
    pinned = [versions[1], versions[4], *days]
    unneeded = find(lake, pinned)
    assert unneeded is not None
    assert len(unneeded.files) == 3
    assert unneeded.keep == [versions[1], versions[4]], "the days' files are in the newest anyway"
    before = {version: values(lake, version) for version in pinned}
    remove_unneeded(lake, unneeded, hours=0)
    fresh = Lake(lake.root)
    assert {version: values(fresh, version) for version in pinned} == before
    with pytest.raises(Exception, match=r"No files found|does not exist|Could not|IO Error"):
        values(fresh, versions[2])
    assert find(fresh, pinned) is None


def test_a_file_over_several_pinned_versions_is_kept_by_one(lake: Lake) -> None:
    write(lake, 1)
    pinned = [write(lake, day, f"2026-04-{day:02d}") for day in range(1, 6)]
    write(lake, 2)
    assert find(lake, pinned) is None
    unneeded = find(lake, [])
    assert unneeded is not None
    assert len(unneeded.files) == 1


def test_what_was_replaced_or_written_lately_stays(lake: Lake, tmp_path: Path) -> None:
    write(lake, 1)
    write(lake, 2)
    folder = tmp_path / "lake" / TABLE / "partition=2026-03-01"
    for name, hours in (("young", 47), ("old", 49)):
        path = folder / f"part-{name}.parquet"
        path.write_bytes(b"of a writer before its commit")
        moment = time.time() - hours * 3600
        os.utime(path, (moment, moment))
    unneeded = find(lake, hours=vacuum.KEPT_HOURS)
    assert unneeded is not None
    assert (len(unneeded.files), unneeded.bytes) == (1, 29)
    remove_unneeded(lake, unneeded)
    assert [path.name for path in folder.glob("part-[a-z]*.parquet") if "-c0" not in path.name] == [
        "part-young.parquet"
    ]
    assert values(Lake(lake.root)) == [2]


def test_pins_are_asked_for_only_where_a_file_could_go(lake: Lake) -> None:
    write(lake, 1)

    def pinned() -> list[int]:
        raise AssertionError("asked")

    assert find_unneeded(lake, TABLE, pinned, hours=0) is None
    assert find_unneeded(lake, "shop/none", pinned, hours=0) is None
    write(lake, 2)
    with pytest.raises(AssertionError, match="asked"):
        find_unneeded(lake, TABLE, pinned, hours=0)


def test_files_that_checkpoints_have_forgotten_are_found(lake: Lake, tmp_path: Path) -> None:
    """A checkpoint keeps replaced files for a week; their table may have been idle for longer."""
    first = write(lake, 0)
    for value in range(1, 25):
        write(lake, value)
    assert list((tmp_path / "lake" / TABLE / "_delta_log").glob("*.checkpoint.parquet"))
    unneeded = find(lake, [first])
    assert unneeded is not None
    assert len(unneeded.files) == 23
    remove_unneeded(lake, unneeded, hours=0)
    assert (values(Lake(lake.root), first), values(Lake(lake.root))) == ([0], [24])


def test_the_tables_of_a_use_case_are_found_at_any_depth(lake: Lake) -> None:
    for table in ("shop/a", "shop/features/b@1", "shops/c"):
        lake.replace(table, "k", pa.table({"x": [1]}))
    assert tables_below(lake, "shop") == ["shop/a", "shop/features/b@1"]
    assert tables_below(lake, "nobody") == []
