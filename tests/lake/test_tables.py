"""The lake: atomic partitions, pinned versions, fences in the storage, digests of content."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from include.config.use_case_file import parse
from include.errors import Busy, EvergreenError, SourceError
from include.lake.commits import Fence
from include.lake.digests import digest
from include.lake.sql import connect
from include.lake.tables import Lake, RehearsalLake


def table(*ids: int, **columns: list[object]) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), **columns})


def fence(token: int, app: str = "stage/key") -> Fence:
    return Fence(app, token, lambda: None)


def test_a_partition_is_replaced_and_others_stay(lake: Lake) -> None:
    lake.replace("u/raw/a", "2026-01-01", table(1, 2))
    lake.replace("u/raw/a", "2026-01-02", table(3))
    lake.replace("u/raw/a", "2026-01-01", table(9))
    assert sorted(lake.read("u/raw/a")["id"].to_pylist()) == [3, 9]
    assert lake.keys("u/raw/a") == ["2026-01-01", "2026-01-02"]
    assert lake.read("u/raw/a", keys=["2026-01-02"]).to_pydict() == {
        "id": [3],
        "partition": ["2026-01-02"],
    }


def test_rows_are_those_that_were_written_whatever_folders_above_the_lake_are_called(
    tmp_path: Path,
) -> None:
    """A home in `/data/region=eu` had that region in every row of every table."""
    lake = Lake(str(tmp_path / "region=eu" / "a=1" / "lake"))
    rows = pa.table({"id": [1, 2], "region": ["no", None]})
    for key in ("2026-01-01", "2026-01-02"):
        lake.replace("u/raw/a", key, rows)
    found = lake.read("u/raw/a").sort_by([("partition", "ascending"), ("id", "ascending")])
    assert found.column_names == ["id", "region", "partition"]
    assert found.column("region").to_pylist() == ["no", None] * 2
    assert found.column("partition").to_pylist() == ["2026-01-01"] * 2 + ["2026-01-02"] * 2
    assert lake.read("u/raw/a", keys=["2026-01-02"]).num_rows == 2


def test_zero_rows_empty_a_partition_and_keep_the_schema(lake: Lake) -> None:
    lake.replace("u/raw/a", "2026-01-01", table(1))
    lake.replace("u/raw/a", "2026-01-01", table(1).slice(0, 0))
    rows = lake.read("u/raw/a")
    assert rows.num_rows == 0
    assert rows.column_names == ["id", "partition"]
    assert lake.keys("u/raw/a") == []


def test_a_pinned_version_still_gives_the_old_rows(lake: Lake) -> None:
    first = lake.replace("u/raw/a", "2026-01-01", table(1))
    lake.replace("u/raw/a", "2026-01-01", table(2))
    assert lake.read("u/raw/a", version=first)["id"].to_pylist() == [1]
    assert lake.read("u/raw/a")["id"].to_pylist() == [2]


def test_a_version_that_a_manifest_pins_outlives_the_logs_age(lake: Lake) -> None:
    """Delta's default removes log entries of more than 30 days with a checkpoint, and with them
    the versions they make.
    """
    pinned = lake.replace("shop/raw", "2026-03-01", table(1))
    log = Path(lake.root) / "shop" / "raw" / "_delta_log"
    for entry in log.iterdir():
        os.utime(entry, (0, 0))
    for number in range(25):
        lake.replace("shop/raw", "2026-03-01", table(number))
    assert list(log.glob("*.checkpoint.parquet")), (
        "opening the table reads the log since a recent checkpoint"
    )
    assert Lake(lake.root).read("shop/raw", version=pinned)["id"].to_pylist() == [1]


def test_since_and_until_leave_out_earlier_and_later_partitions(lake: Lake) -> None:
    for day in (1, 2, 3):
        lake.replace("shop/raw", f"2026-03-0{day}", table(day))
    with connect() as con:
        late = ["2026-03-02", "2026-03-03"]
        for until, keys, expected in (
            ("2026-03-02", None, 2),
            ("2026-03-02", late, 1),
            ("2026-02-01", None, 0),
        ):
            lake.scan(con, "rows", "shop/raw", keys=keys, until=until)
            assert con.execute("SELECT count(*) FROM rows").fetchall() == [(expected,)]
        lake.scan(con, "rows", "shop/raw", since="2026-03-02", until="2026-03-02")
        assert con.execute("SELECT id FROM rows").fetchall() == [(2,)]


def test_a_column_that_came_later_is_null_in_older_partitions(lake: Lake) -> None:
    lake.replace("u/raw/a", "2026-01-01", table(1))
    lake.replace("u/raw/a", "2026-01-02", table(2, extra=["x"]))
    assert lake.read("u/raw/a", keys=["2026-01-01"])["extra"].to_pylist() == [None]
    assert lake.read("u/raw/a").sort_by("id")["extra"].to_pylist() == [None, "x"]


def test_a_stale_writer_is_refused_by_the_storage(lake: Lake) -> None:
    lake.replace("u/raw/a", "2026-01-01", table(1), fence=fence(1))
    lake.replace("u/raw/a", "2026-01-01", table(2), fence=fence(3))
    with pytest.raises(Busy, match="newer run has written"):
        lake.replace("u/raw/a", "2026-01-01", table(1), fence=fence(2))
    assert lake.read("u/raw/a")["id"].to_pylist() == [2]


def test_a_writer_that_looked_before_a_newer_commit_is_refused(lake: Lake) -> None:
    """The stale writer holds an old view of the table, passes the first look and is caught by
    the commit itself.
    """
    lake.replace("u/raw/a", "2026-01-01", table(0), fence=fence(1))
    stale = Lake(lake.root)
    overtaken = []

    def overtake() -> None:
        if not overtaken:
            overtaken.append(lake.replace("u/raw/a", "2026-01-01", table(3), fence=fence(3)))

    with pytest.raises(Busy):
        stale.replace("u/raw/a", "2026-01-01", table(2), fence=Fence("stage/key", 2, overtake))
    assert lake.read("u/raw/a")["id"].to_pylist() == [3]


def test_a_superseded_lease_stops_the_write(lake: Lake) -> None:
    def lost() -> None:
        raise Busy("superseded")

    with pytest.raises(Busy):
        lake.replace("u/raw/a", "2026-01-01", table(1), fence=Fence("a", 1, lost))
    assert not lake.exists("u/raw/a")


def test_writers_of_many_partitions_at_once_lose_nothing(lake: Lake) -> None:
    keys = [f"2026-01-{day:02d}" for day in range(1, 13)]

    def write(key: str) -> int:
        return Lake(lake.root).replace("u/raw/a", key, table(int(key[-2:])), fence=fence(1, key))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, keys))
    assert sorted(lake.read("u/raw/a")["id"].to_pylist()) == list(range(1, 13))


def test_a_rehearsal_reads_and_never_writes(lake: Lake) -> None:
    lake.replace("u/raw/a", "2026-01-01", table(1))
    rehearsal = RehearsalLake(lake.root)
    rehearsal.replace("u/raw/a", "2026-01-01", table(2))
    assert lake.read("u/raw/a")["id"].to_pylist() == [1]


@pytest.mark.parametrize("name", ["../x", "u//x", "u/../../etc", "u\\x", "u/\0"])
def test_table_names_cannot_leave_the_lake(lake: Lake, name: str) -> None:
    with pytest.raises(SourceError):
        lake.replace(name, "2026-01-01", table(1))


def test_a_scan_of_nothing_has_the_given_schema(lake: Lake) -> None:
    with connect() as con:
        lake.scan(con, "v", "u/none", schema=pa.schema([("id", pa.int64())]))
        assert con.execute("SELECT count(*), max(id) FROM v").fetchone() == (0, None)
        with pytest.raises(SourceError, match="does not exist yet"):
            lake.scan(con, "v", "u/none")


VALUES: dict[str, tuple[pa.DataType, list[object]]] = {
    "int64": (pa.int64(), [1, 2**53 + 1, None]),
    "float64": (pa.float64(), [1.5, 2.7, None]),
    "string": (pa.string(), ["1", "true", None]),
    "bool": (pa.bool_(), [True, False, None]),
    "timestamp": (pa.timestamp("us", tz="UTC"), [datetime(2026, 1, 1, 12, tzinfo=UTC), None, None]),
    "date": (pa.date32(), [date(2026, 1, 1), None, None]),
}


@pytest.mark.parametrize("old", VALUES)
def test_what_is_stored_is_what_was_given_or_is_refused(lake: Lake, old: str) -> None:
    """A column of another type is refused by name; nothing is cast, and nothing of the refused
    write is there.
    """

    def rows(name: str) -> pa.Table:
        kind, values = VALUES[name]
        return pa.table({"id": pa.array([1, 2, 3], pa.int64()), "x": pa.array(values, kind)})

    lake.replace("u/t", "2026-01-01", rows(old))
    for new in VALUES:
        if old == new:
            lake.replace("u/t", "2026-01-02", rows(new))
            continue
        with pytest.raises(
            EvergreenError, match=r"u/t 2026-01-03 is not written.* x is .*, in the table "
        ):
            lake.replace("u/t", "2026-01-03", rows(new))
    assert lake.keys("u/t") == ["2026-01-01", "2026-01-02"]
    for key in lake.keys("u/t"):
        assert lake.read("u/t", keys=[key]).drop_columns(["partition"]).equals(rows(old))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (pa.array(["a", None]).dictionary_encode(), pa.array(["a", None])),
        (pa.array(["a", None], pa.large_string()), pa.array(["a", None])),
        (pa.array([None, None], pa.null()), pa.array([None, None], pa.string())),
        (
            pa.array([1_000, None], pa.timestamp("ns", tz="UTC")),
            pa.array([1, None], pa.timestamp("us", tz="UTC")),
        ),
        (pa.array([1_001, None], pa.timestamp("ns", tz="UTC")), None),
        (pa.array([2**63, None], pa.uint64()), None),
        (pa.array([1, None], pa.time64("us")), None),
    ],
)
def test_another_form_of_a_type_keeps_its_values_or_is_refused(
    lake: Lake, given: pa.Array, kept: pa.Array | None
) -> None:
    body = pa.table({"x": given})
    for key in ("2026-01-01", "2026-01-02"):  # into no table, and into the one that is there
        if kept is None:
            with pytest.raises(EvergreenError, match="column x is "):
                lake.replace("u/t", key, body)
            continue
        lake.replace("u/t", key, body)
        found = lake.read("u/t", keys=[key])
        assert found.column("x").combine_chunks().equals(kept)
        assert digest(found, sort_by=["x"]) == digest(body, sort_by=["x"])


def test_a_table_is_named_by_its_columns_whatever_their_order(lake: Lake) -> None:
    from include.point_in_time.curated import training_table
    from tests.builders.shop import YAML

    shop = parse(YAML)
    schema = pa.schema([("a", pa.int64()), ("b", pa.string())])
    other = pa.schema([pa.field("b", pa.large_string(), nullable=False), pa.field("a", pa.int64())])
    named = training_table(lake, shop, schema)
    assert (
        training_table(lake, shop, other)
        == named
        != training_table(lake, shop, pa.schema([("a", pa.float64())]))
    )
    # Of before: it is that version.
    lake.replace("shop/training_set", "2026-01-01", pa.table({"b": ["x"], "a": [1]}))
    assert (
        training_table(lake, shop, schema)
        == training_table(lake, shop, other)
        == "shop/training_set"
    )


def test_a_partition_without_rows_is_emptied_or_stays_away(lake: Lake) -> None:
    none = pa.table({})
    lake.set_partition("u/raw/a", "2026-01-01", none)
    assert not lake.exists("u/raw/a")
    lake.set_partition("u/raw/a", "2026-01-01", table(1, 2))
    lake.set_partition("u/raw/a", "2026-01-02", none)
    version = lake.version("u/raw/a")
    assert lake.keys("u/raw/a") == ["2026-01-01"]
    lake.set_partition("u/raw/a", "2026-01-01", none)
    assert (lake.keys("u/raw/a"), lake.version("u/raw/a")) == ([], (version or 0) + 1)
    lake.set_partition("u/raw/a", "2026-01-01", table(1), fence=fence(2, "s"))
    with pytest.raises(Busy):
        lake.set_partition("u/raw/a", "2026-01-01", none, fence=fence(1, "s"))
