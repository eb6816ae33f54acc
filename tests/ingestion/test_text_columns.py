"""What is written for a file of any format stays within the limits."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from include.ingestion import text_columns
from include.ingestion.decompression import Refused


def test_too_many_columns_and_names_that_differ_by_case_alone_are_refused() -> None:
    text_columns.check_columns(["a", "b", "ab"])
    with pytest.raises(Refused, match=r"'A' twice \(columns 1, 3: 'a', 'A'\)"):
        text_columns.check_columns(["a", "b", "A"])
    with pytest.raises(Refused, match="has 2001 columns"):
        text_columns.check_columns([f"c{index}" for index in range(2_001)])


def test_rows_are_written_in_batches_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_columns, "BATCH", 1_000)
    out = tmp_path / "out.arrow"
    with text_columns.open_database(str(tmp_path)) as con:
        query = "SELECT CAST(range AS VARCHAR) AS c0, range AS row FROM range(5000)"
        assert text_columns.write_columns(con, query, out, {}, 1) == 5_000
        long = "SELECT repeat('x', 1048577) AS c0, 1 AS row"
        with pytest.raises(Refused, match="cell of 1048577 bytes in column 1"):
            text_columns.write_columns(con, long, tmp_path / "long.arrow", {}, 1)
    with pa.OSFile(str(out), "rb") as file:
        rows = pa.ipc.open_file(file).read_all()
    assert rows.column("c0").to_pylist()[-1] == "4999"
    text_columns.write_no_columns(out)
    with pa.OSFile(str(out), "rb") as file:
        assert pa.ipc.open_file(file).read_all().column_names == ["row"]


def test_rows_of_texts_are_numbered_and_held_to_the_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_columns, "BATCH", 2)
    out = tmp_path / "out.arrow"
    assert text_columns.write_rows(iter([["a", None], ["b", "x"], ["c", "y"]]), out, 2) == 3
    with pa.OSFile(str(out), "rb") as file:
        rows = pa.ipc.open_file(file).read_all()
    assert rows.to_pylist()[-1] == {"c0": "c", "c1": "y", "row": 3}
    with pytest.raises(Refused, match="cell of 1048577 bytes in column 2"):
        text_columns.write_rows(iter([["a", "x" * 1_048_577]]), out, 2)
