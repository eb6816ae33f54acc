"""Parquet becomes text columns that say what the typed values said."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.ingestion import parquet_columns
from include.ingestion.decompression import Refused
from include.ingestion.parquet_columns import convert_parquet


def converted(path: Path, wanted: list[str] | None = None) -> tuple[Any, Any, Any]:
    """Return the columns of a file, its rows as lists, and its nested columns."""
    out = path.with_suffix(".arrow")
    columns, count, nested = convert_parquet(path, out, str(path.parent), wanted or [])
    with pa.OSFile(str(out), "rb") as file:
        rows = pa.ipc.open_file(file).read_all()
    assert len(rows) == count
    return columns, [list(row.values()) for row in rows.to_pylist()], nested


def test_values_are_text_nan_is_none_and_bytes_are_text_where_they_are_utf8(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    table = pa.table(
        {
            "real": [1.5, float("nan")],
            "whole": [2**60, None],
            "day": [date(2026, 1, 1), None],
            "at": [datetime(2026, 1, 1, 12, tzinfo=UTC), None],
            "bytes": [b"caf\xc3\xa9", b"\xff"],
            'a "name"': ["x", None],
        }
    )
    pq.write_table(table, path)
    columns, rows, nested = converted(path)
    assert (columns, nested) == (table.column_names, {})
    assert rows == [
        ["1.5", str(2**60), "2026-01-01", "2026-01-01 12:00:00+00", "café", "x", 1],
        [None, None, None, None, "\\xFF", None, 2],
    ]


def test_a_file_is_what_it_holds_whatever_its_folder_is_called(tmp_path: Path) -> None:
    """The day of the folder's name stood in place of the file's own times."""
    folder = tmp_path / "month=1" / "day=2024-01-01"
    folder.mkdir(parents=True)
    times = ["2024-01-01 10:00", "2024-01-01 11:30"]
    pq.write_table(pa.table({"id": ["007", "7"], "day": times}), folder / "in.parquet")
    assert converted(folder / "in.parquet")[:2] == (
        ["id", "day"],
        [["007", times[0], 1], ["7", times[1], 2]],
    )


def test_a_nested_column_is_left_out_or_refused_where_it_is_declared(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"id": [1], "tags": [["a"]], "place": [{"x": 1}]}), path)
    columns, rows, nested = converted(path, ["id"])
    assert (columns, rows) == (["id"], [["1", 1]])
    assert set(nested) == {"tags", "place"}
    with pytest.raises(Refused, match=r"column 'tags' holds VARCHAR\[\]"):
        converted(path, ["id", "tags"])


def test_an_empty_file_has_no_columns_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    path.write_bytes(b"")
    assert converted(path) == ([], [], {})
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(Refused, match="no whole Parquet file: it ends at byte 16"):
        converted(path)


def test_a_file_that_declares_too_much_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"id": [1, 2]}), path)
    monkeypatch.setattr(parquet_columns, "MAX_ROWS", 1)
    with pytest.raises(Refused, match="declares 2 rows"):
        converted(path)
