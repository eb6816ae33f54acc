"""A disk that is full or read-only ends a commit of the lake in an error and the old rows."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from include.errors import SourceError
from include.lake.appended import AppendedTable
from include.lake.commits import Fence
from include.lake.tables import Lake

TABLE = "u/raw/a"
FENCE = Fence("stage/key", 1, lambda: None)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 KB of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def large() -> pa.Table:
    chance = random.Random(7)
    return pa.table({"id": [chance.randbytes(40).hex() for _ in range(20_000)]})


def small(text: str) -> pa.Table:
    return pa.table({"id": [text]})


def test_a_full_disk_leaves_the_partition_and_is_named(disk: Path) -> None:
    lake = Lake(str(disk / "lake"))
    lake.replace(TABLE, "2026-01-01", small("a"), fence=FENCE)
    for table in (TABLE, "u/raw/new"):
        with pytest.raises(SourceError, match=r"cannot be written.*No space left.*free space"):
            lake.replace(table, "2026-01-01", large(), fence=FENCE)
    fresh = Lake(lake.root)
    assert fresh.read(TABLE)["id"].to_pylist() == ["a"]
    assert fresh.read("u/raw/new").num_rows == 0
    lake.replace(TABLE, "2026-01-01", small("b"), fence=FENCE)
    assert Lake(lake.root).read(TABLE)["id"].to_pylist() == ["b"], "with room it goes on"


def test_a_full_disk_leaves_a_table_that_grows_as_it_was(disk: Path) -> None:
    lake = Lake(str(disk / "lake"))
    table = AppendedTable(lake, "u/predictions", key="id", statistics=["id"])
    for rows, is_too_much in ((small("a"), False), (large(), True)):
        body = rows.append_column("partition", pa.array(["2026-01-01"] * len(rows)))
        if is_too_much:
            with pytest.raises(SourceError, match="No space left"):
                table.append(body.schema, lambda body=body: iter(body.to_batches()), FENCE)
        else:
            table.append(body.schema, lambda body=body: iter(body.to_batches()), FENCE)
    assert lake.read("u/predictions")["id"].to_pylist() == ["a"]


def test_a_read_only_disk_is_named_and_still_read(disk: Path) -> None:
    lake = Lake(str(disk / "lake"))
    lake.replace(TABLE, "2026-01-01", small("a"))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for table in (TABLE, "u/raw/new"):
        with pytest.raises(SourceError, match=r"(?i)cannot be written.*read-?only ?file ?system"):
            lake.replace(table, "2026-01-01", small("b"))
    assert Lake(lake.root).read(TABLE)["id"].to_pylist() == ["a"]
