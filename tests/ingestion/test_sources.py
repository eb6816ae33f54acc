from __future__ import annotations

import gzip
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.config.settings import Settings
from include.config.use_case import UseCase
from include.config.use_case_file import parse
from include.errors import SourceError
from include.ingestion.file_reader import FileReader
from include.ingestion.sources import read_source
from include.point_in_time import partitions

YAML = """
name: shop
history: {{first: 2026-01-01}}
entity: {{name: customer, key: customer_id}}
sources:
  orders:
    {source}
    key: [order_id]
    columns:
      order_id: {{type: int64}}
      amount: {{type: float64, header: "Amount (EUR)"}}
label: {{source: orders, column: amount, delay: 1d}}
features:
  spending: {{sql: SELECT 1, columns: {{total: float64}}}}
"""
HEADER = "order_id,Amount (EUR),event_timestamp,created_timestamp"
ROW = "1,2.50,2026-01-01,2026-01-01T10:00:00Z"
TEXT = {
    "order_id": "1",
    "amount": "2.50",
    "event_timestamp": "2026-01-01",
    "created_timestamp": "2026-01-01T10:00:00Z",
}


def case(folder: Path, source: str = "path: data/*") -> UseCase:
    return parse(YAML.format(source=source), folder=folder)


def rows(
    folder: Path, source: str = "path: data/*", key: str = "2026-01-01", **settings: Any
) -> list[dict[str, Any]]:
    """Read the source `orders` as the text columns, without file and row."""
    use_case = case(folder, source)
    with FileReader() as reader:
        delivery = read_source(
            "orders",
            use_case,
            Settings(home=folder, **settings),
            reader,
            [partitions.period(use_case, key)],
        )
        return [dict(row) for row in delivery.rows.to_pylist()]


def texts(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            name: value
            for name, value in row.items()
            if name not in ("source_file", "source_row", "malformed")
        }
        for row in found
    ]


def put(folder: Path, name: str, content: str | bytes) -> None:
    path = folder / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", f"{HEADER}\n{ROW}\n"),
        ("a.csv", f"{HEADER}\r\n{ROW}\r\n"),
        ("a.csv", f"\ufeff{HEADER}\n{ROW}"),
        ("a.csv", f"{HEADER}\n{ROW}\n".replace(",", ";")),
        ("a.tsv", f"{HEADER}\n{ROW}\n".replace(",", "\t")),
        (
            "a.csv",
            'created_timestamp,"Amount (EUR)",event_timestamp,order_id\n'
            '2026-01-01T10:00:00Z,"2.50",2026-01-01,1\n',
        ),
        ("a.csv.gz", gzip.compress(f"{HEADER}\n{ROW}\n".encode(), mtime=0)),
        (
            "a.csv.gz",
            gzip.compress(f"{HEADER}\n".encode(), mtime=0)
            + gzip.compress(f"{ROW}\n".encode(), mtime=0),
        ),
        ("a.csv.zst", pa.compress(f"{HEADER}\n{ROW}\n".encode(), codec="zstd", asbytes=True)),
        ("a.jsonl", json.dumps(dict(zip(HEADER.split(","), ROW.split(","), strict=True))) + "\n\n"),
    ],
)
def test_every_form_of_a_file_gives_the_same_text_by_the_columns_names(
    tmp_path: Path, name: str, content: str | bytes
) -> None:
    put(tmp_path, name, content)
    found = rows(tmp_path)
    assert texts(found) == [TEXT]
    assert (found[0]["source_file"], found[0]["source_row"]) == (f"data/{name}", 1)


def test_parquet_values_become_text_in_utc(tmp_path: Path) -> None:
    at = datetime(2026, 1, 1, 10, tzinfo=UTC)
    table = pa.table(
        {
            "created_timestamp": pa.array([at], pa.timestamp("ns", "Europe/Berlin")),
            "event_timestamp": pa.array([date(2026, 1, 1)]),
            "order_id": pa.array([2**62]),
            "Amount (EUR)": pa.array([0.1]),
        }
    )
    put(tmp_path, "a.parquet", b"")
    pq.write_table(table, tmp_path / "data" / "a.parquet")
    expected = {
        "created_timestamp": "2026-01-01 10:00:00+00",
        "event_timestamp": "2026-01-01",
        "order_id": str(2**62),
        "amount": "0.1",
    }
    assert texts(rows(tmp_path)) == [expected]


def test_several_files_are_joined_by_name_in_order_of_their_paths(tmp_path: Path) -> None:
    put(tmp_path, "b.csv", f"{HEADER}\n{ROW}\n")
    put(tmp_path, "a.csv", f"note,{HEADER}\nhello,{ROW}\n")
    put(tmp_path, "empty.csv", "")
    found = rows(tmp_path)
    assert [(row["source_file"], row.get("note")) for row in found] == [
        ("data/a.csv", "hello"),
        ("data/b.csv", None),
    ]


def test_undeclared_columns_get_plain_names_that_clash_with_nothing(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", f'{HEADER},Amount,a"; DROP TABLE x --,1st,rule\n{ROW},7,8,9,10\n')
    found = texts(rows(tmp_path))[0]
    assert {name: value for name, value in found.items() if name not in TEXT} == {
        "extra_Amount": "7",
        "a___DROP_TABLE_x___": "8",
        "extra_1st": "9",
        "extra_rule": "10",
    }


def test_lines_that_are_no_rows_are_kept_as_they_are(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", f"{HEADER}\n{ROW}\n1,2\n{ROW},x\n{ROW}\n")
    found = rows(tmp_path)
    assert sorted((row["source_row"], row["malformed"]) for row in found) == [
        (1, None),
        (2, "1,2"),
        (3, f"{ROW},x"),
        (4, None),
    ]
    put(tmp_path, "a.csv", f"{HEADER}\n")
    put(tmp_path, "b.jsonl", '{"order_id": 1}\n[1]\nnone\n')
    assert [row["malformed"] for row in rows(tmp_path)] == [None, "[1]", "none"]


def test_json_values_keep_their_digits(tmp_path: Path) -> None:
    put(
        tmp_path,
        "a.jsonl",
        '{"order_id": 12345678901234567890123, "Amount (EUR)": 1e400}\n{"order_id": null}\n',
    )
    assert [(row["order_id"], row["amount"]) for row in rows(tmp_path)] == [
        ("12345678901234567890123", "1e400"),
        (None, None),
    ]


def test_a_partition_has_files_of_its_own_and_the_data_folder_is_a_setting(tmp_path: Path) -> None:
    put(tmp_path, "2026-01-02.csv", f"{HEADER}\n{ROW}\n")
    source = 'path: "{data_dir}/{partition}.csv"'
    settings = {"data_dir": tmp_path / "data"}
    assert texts(rows(tmp_path / "elsewhere", source, "2026-01-02", **settings)) == [TEXT]
    assert rows(tmp_path / "elsewhere", source, "2026-01-03", **settings) == []


def test_no_file_at_all_is_an_error_that_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"data/\*.*matches no file"):
        rows(tmp_path)


def test_files_of_a_remote_store_are_fetched(tmp_path: Path) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    store.pipe("/shop-test/a.csv", f"{HEADER}\n{ROW}\n".encode())
    try:
        found = rows(tmp_path, "path: memory://shop-test/*.csv")
    finally:
        store.rm("/shop-test", recursive=True)
    assert texts(found) == [TEXT]
    assert found[0]["source_file"] == "memory://shop-test/a.csv"


def test_one_child_reads_all_files_and_is_gone_afterwards(tmp_path: Path) -> None:
    for index in range(3):
        put(tmp_path, f"{index}.csv", f"{HEADER}\n{ROW}\n")
    use_case = case(tmp_path)
    with FileReader() as reader:
        read_source(
            "orders",
            use_case,
            Settings(home=tmp_path),
            reader,
            [partitions.period(use_case, "2026-01-01")],
        )
        child, folder = reader._child, reader.folder
        assert child is not None
        assert child.poll() is None
    assert child.poll() == 0
    assert not folder.exists()


def test_a_killed_reader_is_an_error_of_the_file(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", f"{HEADER}\n{ROW}\n")
    with FileReader() as reader:
        reader._start().kill()
        with pytest.raises(SourceError, match=r"data/a\.csv: the reader died"):
            reader.read(tmp_path / "data" / "a.csv", "data/a.csv", "csv", [])


def test_an_ending_that_says_no_format_needs_one(tmp_path: Path) -> None:
    put(tmp_path, "a.bin", f"{HEADER}\n{ROW}\n")
    with pytest.raises(SourceError, match="write format"):
        rows(tmp_path)
    assert texts(rows(tmp_path, "path: data/a.bin\n    format: csv")) == [TEXT]


def test_a_simulated_stream_comes_as_text(tmp_path: Path) -> None:
    use_case = case(tmp_path, "simulator: {stream: instalments, customers: 50}")
    with FileReader() as reader:
        delivery = read_source(
            "orders",
            use_case,
            Settings(home=tmp_path),
            reader,
            [partitions.period(use_case, "2026-01-05")],
        )
        assert reader._child is None
    assert len(delivery.rows) > 5
    assert all(
        pa.types.is_string(field.type)
        for field in delivery.rows.schema
        if field.name != "source_row"
    )
