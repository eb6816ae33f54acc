"""Feather becomes the text columns that Parquet becomes; what is damaged or nested is told."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from include.ingestion import feather_columns
from include.ingestion.decompression import Refused
from include.ingestion.feather_columns import convert_feather
from include.ingestion.parquet_columns import convert_parquet

TABLE = pa.table(
    {
        "real": [1.5, float("nan")],
        "whole": [2**60, None],
        "at": [datetime(2026, 1, 1, 12, tzinfo=UTC), None],
        "bytes": [b"caf\xc3\xa9", b"\xff"],
        'a "name"': pa.array(["x", None]).dictionary_encode(),
    }
)


def converted(path: Path, wanted: list[str] | None = None, convert: Any = convert_feather) -> Any:
    out = path.with_suffix(".arrow")
    columns, count, nested = convert(path, out, str(path.parent), wanted or [])
    with pa.OSFile(str(out), "rb") as file:
        rows = pa.ipc.open_file(file).read_all()
    assert len(rows) == count
    return columns, rows.to_pylist(), nested


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_values_are_the_texts_of_parquet(tmp_path: Path, compression: str) -> None:
    feather.write_feather(TABLE, str(tmp_path / "in.feather"), compression=compression, chunksize=1)
    pq.write_table(TABLE, tmp_path / "in.parquet")
    found = converted(tmp_path / "in.feather")
    assert found == converted(tmp_path / "in.parquet", convert=convert_parquet)
    assert found[1][0]["c0"] == "1.5"


def test_a_nested_column_is_left_out_or_refused_where_it_is_declared(tmp_path: Path) -> None:
    path = tmp_path / "in.feather"
    feather.write_feather(pa.table({"id": [1], "tags": [["a"]]}), str(path))
    assert converted(path, ["id"]) == (["id"], [{"c0": "1", "row": 1}], {"tags": "VARCHAR[]"})
    with pytest.raises(Refused, match=r"column 'tags' holds VARCHAR\[\]"):
        converted(path, ["tags"])


def test_types_that_duckdb_does_not_have_are_read_as_parquet_is(tmp_path: Path) -> None:
    wide = "1234567890123456789012345678901234567890"
    table = pa.table(
        {
            "key": pa.array([Decimal(wide), None], pa.decimal256(76, 1)),
            "half": pa.array([np.float16(1.5), np.float16("nan")], pa.float16()),
            "took": pa.array([86_405, None], pa.duration("ms")),
            "at": [datetime(2026, 1, 1, 12, tzinfo=UTC), None],
            "text": ["a", None],
        }
    )
    feather.write_feather(table, str(tmp_path / "in.feather"))
    pq.write_table(table, tmp_path / "in.parquet")
    found = converted(tmp_path / "in.feather")
    assert found == converted(tmp_path / "in.parquet", convert=convert_parquet)
    at = "2026-01-01 12:00:00+00"
    assert list(found[1][0].values()) == [f"{wide}.0", "1.5", "86405", at, "a", 1]
    assert list(found[1][1].values()) == [None, None, None, None, None, 2]
    # Without a wide decimal, Parquet is read by DuckDB.
    pq.write_table(table.drop_columns("key"), tmp_path / "in.parquet")
    assert converted(tmp_path / "in.parquet", convert=convert_parquet)[1][0]["c1"] == "86405"


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, version: int) -> None:
    path = tmp_path / "in.feather"
    feather.write_feather(TABLE.select(["whole"]), str(path), version=version)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(Refused, match=r"no whole Feather file: it ends at byte \d+"):
        converted(path)


def test_offsets_that_point_outside_are_refused_and_so_is_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in.feather"
    texts = pa.table({"a": ["xxxxxxxx", "yyyyyyyy"]})
    feather.write_feather(texts, str(path), compression="uncompressed")
    whole = path.read_bytes()
    # The offsets 0, 8, 16 of the two texts become 0, 8, 1 << 24.
    mark = bytes([0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0, 0])
    assert mark in whole
    path.write_bytes(whole.replace(mark, bytes([0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1])))
    with pytest.raises(Exception, match=r"(?i)offset|invalid"):
        converted(path)
    path.write_bytes(whole)
    monkeypatch.setattr(feather_columns, "MAX_ROWS", 1)
    with pytest.raises(Refused, match="holds more than 1 rows"):
        converted(path)
