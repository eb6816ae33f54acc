"""Rows whose repeated texts are held once are the rows that the table holds, in their order."""

from __future__ import annotations

import os
import resource

import numpy as np
import pyarrow as pa
import pytest

from include.errors import SourceError
from include.lake import coded
from include.lake.coded import plain, read_coded
from include.lake.tables import Lake

TABLE, MANY = "u/raw/a", 100_000


def rows(many: int, **more: pa.Array) -> pa.Table:
    number = np.arange(many)
    return pa.table(
        {
            "id": pa.array(number + 1_000_000).cast(pa.string()),
            "often": pa.array(number % 7).cast(pa.string()),
            "file": ["f.csv"] * many,
            "row": number + 1,
        }
        | more
    )


def read(lake: Lake, *keys: str) -> pa.Table:
    return read_coded(lake, TABLE, keys, number="row", of="file")


def test_repeated_texts_are_dictionaries_and_rows_come_as_they_were_written(lake: Lake) -> None:
    # More than a megabyte of texts: the file holds them plain, though each stands in it twice.
    twice = np.random.default_rng(0).permutation(np.arange(MANY) // 2)
    given = rows(MANY, twice=pa.array([f"a text that is long {number}" for number in twice]))
    lake.replace(TABLE, "2026-01-01", given)
    found = read(lake, "2026-01-01")
    kinds = {
        name: pa.types.is_dictionary(found.schema.field(name).type) for name in given.schema.names
    }
    assert kinds == {"id": False, "often": True, "file": True, "row": False, "twice": True}
    assert found["partition"].to_pylist() == ["2026-01-01"] * MANY
    for name in given.schema.names:
        assert plain(found[name]).to_pylist() == given[name].to_pylist()


def test_an_older_file_has_nothing_in_a_column_that_the_table_gained(lake: Lake) -> None:
    lake.replace(TABLE, "2026-01-01", rows(2))
    lake.replace(TABLE, "2026-01-02", rows(1, new=pa.array(["x"])))
    found = read(lake, "2026-01-01", "2026-01-02")
    assert found["partition"].to_pylist() == ["2026-01-01", "2026-01-01", "2026-01-02"]
    assert plain(found["new"]).to_pylist() == [None, None, "x"]
    assert all(
        column.num_chunks == 1 for column in found.columns if pa.types.is_dictionary(column.type)
    )


def test_more_files_than_a_process_may_open_are_read(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"2026-01-{day:02}" for day in range(1, 31)]
    for key in keys:
        lake.replace(TABLE, key, rows(2))
    monkeypatch.setattr(coded, "MOST_OPEN", 4)
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = set(map(int, os.listdir("/proc/self/fd")))
    free = [number for number in range(few) if number not in in_use]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[16], most))
    try:
        found = read(lake, *keys)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))
    assert found["partition"].to_pylist() == [key for key in keys for _ in range(2)]
    assert found["row"].to_pylist() == [1, 2] * len(keys)


def test_a_partition_without_rows_has_columns(lake: Lake) -> None:
    lake.replace(TABLE, "2026-01-01", rows(2))
    found = read(lake, "2026-01-09")
    assert len(found) == 0
    assert found.column_names == ["id", "often", "file", "row", "partition"]


def test_without_a_table_the_stage_that_writes_it_is_asked_for(lake: Lake) -> None:
    with pytest.raises(SourceError, match="u/raw/a does not exist; run the stage that writes it"):
        read(lake, "2026-01-01")
