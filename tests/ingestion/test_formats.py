"""Names of files say their formats, and one table is the same rows in every format."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from include.config.settings import Settings
from include.config.use_case_file import parse
from include.ingestion.file_reader import FileReader
from include.ingestion.formats import ending_of, kind_of
from include.ingestion.raw_rows import checksum, partition_digest
from include.ingestion.sources import Delivery, read_source
from include.lake.sql import connect
from include.point_in_time import partitions
from include.validation.contract import judged_query
from include.validation.judgement import RULE
from tests.builders.workbooks import workbook

YAML = """
name: shop
history: {first: 2026-01-01}
entity: {name: customer, key: id}
sources:
  rows:
    path: "table*"
    event_time: at
    arrival: event + 0s
    key: [id]
    columns:
      id: {type: int64}
      amount: {type: float64}
      day: {type: date}
      paid: {type: bool}
      state: {type: string}
label: {source: rows, column: paid, delay: 1d}
features:
  spending: {sql: SELECT 1, columns: {total: float64}}
"""
NAMES = ["id", "amount", "day", "at", "paid", "state"]
TEXTS: list[list[str | None]] = [
    ["1", "2.5", "2025-12-31", "2026-01-01 08:00:00", "true", 'Köln, "Mitte" \'n'],
    ["20000000000001", "-0.75", None, "2026-01-01 00:00:00", "false", None],
    ["3", None, "2024-02-29", "2026-01-01 23:59:59", None, "a\\b;c"],
]
TYPED: list[list[Any]] = [
    [
        1,
        2.5,
        date(2025, 12, 31),
        datetime(2026, 1, 1, 8, tzinfo=UTC),
        True,
        TEXTS[0][5],
    ],
    [20000000000001, -0.75, None, datetime(2026, 1, 1, tzinfo=UTC), False, None],
    [3, None, date(2024, 2, 29), datetime(2026, 1, 1, 23, 59, 59, tzinfo=UTC), None, TEXTS[2][5]],
]


def _cell(text: str | None) -> str:
    return "" if text is None else '"' + text.replace('"', '""') + '"'


def _csv(path: Path) -> None:
    lines = [",".join(NAMES), *(",".join(map(_cell, row)) for row in TEXTS)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _objects() -> list[dict[str, Any]]:
    return [
        {
            name: value if name in ("id", "amount", "paid") else text
            for name, value, text in zip(NAMES, row, texts, strict=True)
        }
        for row, texts in zip(TYPED, TEXTS, strict=True)
    ]


def _arrow() -> pa.Table:
    columns = dict(zip(NAMES, map(list, zip(*TYPED, strict=True)), strict=True))
    columns["at"] = [moment.replace(tzinfo=None) for moment in columns["at"]]
    return pa.table(columns)


def _arff(path: Path) -> None:
    def value(text: str | None) -> str:
        if text is None:
            return "?"
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    types = ["INTEGER", "numeric", 'date "yyyy-MM-dd"', "string", "{true, false}", "string"]
    head = ["% made by hand", "@relation 'the table'", ""]
    head += [f"@attribute '{name}' {kind}" for name, kind in zip(NAMES, types, strict=True)]
    lines = [*head, "@DATA", *(", ".join(map(value, row)) for row in TEXTS)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _zip(path: Path) -> None:
    _csv(path.parent / "inner.csv")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/", "")
        archive.write(path.parent / "inner.csv", "folder/loans.csv")
        archive.writestr("__MACOSX/._loans.csv", "x")


def _packed(write: Callable[[Path], None], path: Path) -> None:
    inner = path.parent / "inner"
    write(inner)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(inner.read_bytes()))
        return
    with pa.OSFile(str(path), "wb") as raw, pa.CompressedOutputStream(raw, "zstd") as out:
        out.write(inner.read_bytes())


def _old_feather(path: Path) -> None:
    feather.write_feather(_arrow(), str(path), version=1)


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _workbook(path: Path) -> None:
    workbook(path, ("Data", [NAMES, *TYPED]), ("More", [["x"]]))


WRITERS: dict[str, Callable[[Path], None]] = {
    "csv": _csv,
    "parquet": lambda path: pq.write_table(_arrow(), path),
    "jsonl": lambda path: _text(path, "\n".join(map(json.dumps, _objects()))),
    "json": lambda path: _text(path, json.dumps(_objects(), indent=2)),
    "feather": lambda path: feather.write_feather(_arrow(), str(path), compression="zstd"),
    "xlsx": _workbook,
    "arff": _arff,
    "zip": _zip,
}
FORMS: dict[str, Callable[[Path], None]] = {
    **WRITERS,
    "old.feather": _old_feather,
    "page.json": lambda path: _text(path, json.dumps({"count": 3, "rows": _objects()})),
    "csv.zst": lambda path: _packed(_csv, path),
    "parquet.gz": lambda path: _packed(WRITERS["parquet"], path),
    "feather.zst": lambda path: _packed(WRITERS["feather"], path),
    "xlsx.gz": lambda path: _packed(_workbook, path),
    "arff.gz": lambda path: _packed(_arff, path),
    "json.gz": lambda path: _packed(WRITERS["json"], path),
}


def _delivered(folder: Path) -> Delivery:
    use_case = parse(YAML, folder=folder)
    period = partitions.period(use_case, "2026-01-01")
    with FileReader() as reader:
        return read_source("rows", use_case, Settings(home=folder), reader, [period])


@pytest.mark.parametrize("form", FORMS)
def test_one_table_is_the_same_rows_and_digests_in_every_format(tmp_path: Path, form: str) -> None:
    FORMS[form](tmp_path / f"table.{form}")
    delivery = _delivered(tmp_path)
    rows = delivery.rows.select(NAMES)
    assert [list(row.values()) for row in rows.to_pylist()] == TEXTS
    assert delivery.rows.column("source_row").to_pylist() == [1, 2, 3]
    other = tmp_path / "other"
    other.mkdir()
    _csv(other / "table.csv")
    source = parse(YAML, folder=tmp_path).sources["rows"]
    expected = _delivered(other).rows.select(NAMES)
    assert partition_digest(rows, source) == partition_digest(expected, source)
    assert checksum(rows) == checksum(expected)


def test_every_text_is_a_value_of_the_contract(tmp_path: Path) -> None:
    _workbook(tmp_path / "table.xlsx")
    rows = _delivered(tmp_path).rows
    source = parse(YAML, folder=tmp_path).sources["rows"]
    with connect() as con:
        arrived = pa.array([TYPED[0][3]] * 3, pa.timestamp("us", "UTC"))
        given = rows.append_column("arrived_at", arrived)
        con.register("given", given.append_column("partition", pa.array(["2026-01-01"] * 3)))
        con.execute("CREATE TEMP TABLE rows AS SELECT * FROM given")
        con.execute(
            "CREATE TEMP TABLE __periods AS SELECT '2026-01-01' AS partition, TIMESTAMPTZ "
            "'2262-04-11' AS __as_of"
        )
        judged = judged_query(source, set(rows.column_names), "rows", [])
        assert con.sql(f"SELECT {RULE} FROM ({judged})").fetchall() == [(None,)] * 3


@pytest.mark.parametrize(
    ("name", "kind", "ending"),
    [
        ("a.csv", "csv", "csv"),
        ("a.b.CSV.GZ", "csv", "csv.gz"),
        ("adult.data", "csv", "data"),
        ("a.json", "json", "json"),
        ("a.ndjson.zst", "jsonl", "ndjson.zst"),
        ("a.xlsx", "xlsx", "xlsx"),
        ("a.zip", "zip", "zip"),
        ("a.csv.zip", "csv", "csv.zip"),
        ("a.xls", None, ""),
        ("a.gz", None, "gz"),
        ("csv", None, ""),
    ],
)
def test_a_name_says_its_format(name: str, kind: str | None, ending: str) -> None:
    assert kind_of(name) == kind
    assert ending_of(name) == ending
