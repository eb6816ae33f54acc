"""Raw rows are told apart by content: by a quick checksum, and by digests."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa

from include.config.use_case_sources import Source
from include.ingestion import raw_rows
from include.lake.sql import TIMESTAMP

SOURCE = Source.model_validate(
    {"path": "orders.csv", "key": ["id"], "columns": {"id": {"type": "int64"}}}
)


def rows(*ids: str | None, file: str = "a.csv", hour: int = 1, first: int = 1) -> pa.Table:
    count = len(ids)
    return pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "source_file": pa.array([file] * count, pa.string()),
            "source_row": pa.array(range(first, first + count), pa.int64()),
            "arrived_at": pa.array([datetime(2026, 1, 1, hour, tzinfo=UTC)] * count, TIMESTAMP),
        }
    )


def test_a_checksum_is_of_the_rows_whatever_their_order_file_and_arrival() -> None:
    whole = raw_rows.checksum(rows("1", "2", "2", None))
    assert whole == raw_rows.checksum(rows(None, "2", "1", "2", file="b.csv", hour=2, first=7))
    assert whole != raw_rows.checksum(rows("1", "2", None)), "a row that stands twice counts twice"
    assert raw_rows.checksum(rows("1", "1")) != raw_rows.checksum(rows("2", "2"))
    assert raw_rows.checksum(rows()) == raw_rows.checksum(pa.table({})) == "0"


def test_the_arrival_counts_for_a_partition_and_not_for_a_version() -> None:
    early, late = rows("1"), rows("1", file="b.csv", hour=2, first=9)
    assert raw_rows.version_digest(early, SOURCE) == raw_rows.version_digest(late, SOURCE)
    assert raw_rows.partition_digest(early, SOURCE) != raw_rows.partition_digest(late, SOURCE)
    moved = rows("1", file="b.csv", first=9)
    assert raw_rows.partition_digest(early, SOURCE) == raw_rows.partition_digest(moved, SOURCE)


def test_joined_rows_have_the_columns_of_all_parts_that_have_rows() -> None:
    wide = rows("2").append_column("note", pa.array(["x"]))
    both = raw_rows.join_rows([rows("1"), wide, pa.table({})])
    assert both.column("id").to_pylist() == ["1", "2"]
    assert both.column("note").to_pylist() == [None, "x"]
    assert raw_rows.join_rows([wide.slice(0, 0), rows("1")]).column_names == rows("1").column_names
    assert len(raw_rows.join_rows([pa.table({}), pa.table({})])) == 0


def test_columns_that_no_row_fills_are_dropped_unless_they_are_kept() -> None:
    wide = rows("1", "2").append_column("note", pa.nulls(2, pa.string()))
    assert "note" not in raw_rows.drop_unfilled(wide).column_names
    assert "note" in raw_rows.drop_unfilled(wide, keep=["note"]).column_names
    half = rows("1", None)
    assert raw_rows.drop_unfilled(half).column_names == half.column_names


def test_a_row_is_one_line_without_its_row_number_and_not_too_long() -> None:
    row = rows("1").append_column("note", pa.array(["x" * 500])).to_pylist()[0]
    assert raw_rows.describe_row(row) == "{id=1, source_file=a.csv, note=" + "x" * 40 + "}"
    assert raw_rows.describe_row({"id": None}) == "{}"
    many = raw_rows.describe_row({f"column_{index}": "value" for index in range(100)})
    assert len(many) == 302
