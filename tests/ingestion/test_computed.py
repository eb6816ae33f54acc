"""Computed columns: one value wherever it is asked for, and raw rows as they were delivered."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.errors import ConfigError, SourceError
from include.ingestion.computed import expression_of
from include.lake.sql import connect
from include.validation.contract import judged_query, mixed_zones_query
from tests.builders.intake import Intake
from tests.ingestion.test_values import source

PARTS = """
      order_id: {type: int64}
      customer_id: {type: int64}
      year: {type: int64}
      month: {type: string}
      day: {type: int64}
      lead: {type: int64}
      amount: {type: float64}
      paid: {type: int64}
      booked_on: {type: date, sql: "make_date(year, CASE month WHEN 'January' THEN 1 WHEN
        'February' THEN 2 END, day) - lead"}
      share: {type: float64, sql: amount / day}"""
TIMES = "event_time: booked_on\n    arrival: event + 0d\n    max_bad: 0.6"
HEAD = "order_id,customer_id,year,month,day,lead,amount,paid\n"


def value(sql: str, kind: str, text: str | None = "4", **more: Any) -> list[Any]:
    """Return what a computed column of the type is where x, a whole number, has a text."""
    of = source({"x": {"type": "int64"}, "c": {"type": kind, "sql": sql}}, **more)
    rows = pa.table(
        {
            "partition": ["p"],
            "source_file": ["f"],
            "source_row": [1],
            "id": ["1"],
            "at": ["2025-01-01"],
            "x": pa.array([text], pa.string()),
            "arrived_at": pa.array([datetime(2025, 1, 2, tzinfo=UTC)], pa.timestamp("us", "UTC")),
        }
    )
    periods = pa.table({"partition": ["p"], "__as_of": rows.column("arrived_at")})
    with connect() as con:
        con.register("raw", rows)
        con.register("__periods", periods)
        zones = mixed_zones_query(of, rows.column_names, "raw")
        mixed = con.execute(zones).fetchall() if zones else []
        query = judged_query(of, rows.column_names, "raw", mixed)
        return [*con.sql(f"SELECT c, rule FROM ({query})").fetchall()[0]]


@pytest.mark.parametrize(
    ("sql", "kind", "expected"),
    [
        ("x * 2", "int64", 8),
        ("x::TINYINT", "int64", 4),
        ("9223372036854775807 + x", "int64", None),
        ("9223372036854775807::HUGEINT + x", "int64", None),
        ("x / 8", "float64", 0.5),
        ("x / 0", "float64", None),
        ("-0.0 * x", "float64", 0.0),
        ("1.5 + x", "float64", 5.5),
        ("' a ' || x", "string", "a 4"),
        ("'u\u0308' || x", "string", "\u00fc4"),
        ("repeat(' ', x)", "string", None),
        ("x > 3", "bool", True),
        ("NULL", "bool", None),
        ("make_date(2025, x, 31)", "date", None),
        ("make_date(2025, x, 30) + x", "date", date(2025, 5, 4)),
        ("make_date(2025, x, 30)", "timestamp", datetime(2025, 4, 30, tzinfo=UTC)),
        ('"at" + to_days(x::INTEGER)', "timestamp", datetime(2025, 1, 5, tzinfo=UTC)),
        ("TIMESTAMP_NS '2025-01-01 10:00:00'", "timestamp", datetime(2025, 1, 1, 10, tzinfo=UTC)),
        ("CAST('a' || x AS BIGINT)", "int64", None),
    ],
)
def test_a_value_is_of_the_declared_type_or_there_is_none(
    sql: str, kind: str, expected: Any
) -> None:
    assert value(sql, kind) == [expected, None]


def test_a_local_time_is_in_the_zone_of_the_source_and_a_date_ends_as_it_says() -> None:
    local = "make_timestamp(2025, x, 30, 2, 30, 0)"
    berlin = {"timezone": "Europe/Berlin"}
    assert value(local, "timestamp", **berlin)[0] == datetime(2025, 4, 30, 0, 30, tzinfo=UTC)
    assert value("make_timestamp(2025, x - 1, 30, 2, 30, 0)", "timestamp", **berlin)[0] is None
    end = value("make_date(2025, x, 30)", "timestamp", date_means="end_of_day")[0]
    assert end == datetime(2025, 4, 30, 23, 59, 59, 999999, tzinfo=UTC)


def test_a_missing_value_fails_where_one_is_required_and_limits_hold() -> None:
    of = {"x": {"type": "int64"}, "c": {"type": "int64", "sql": "x", "nullable": False, "max": 3}}
    assert source(of).computed["c"].max == 3
    assert value("x", "int64", None) == [None, None]
    assert value("x", "int64", "no") == [None, "x: not_int64"]


@pytest.mark.parametrize(
    ("sql", "kind", "reason"),
    [
        ("x / 2", "int64", "DOUBLE, declared int64"),
        ("x", "date", "BIGINT, declared date"),
        ('"at"', "date", "declared date"),
        ("x", "string", "BIGINT, declared string"),
        ("d", "int64", "reads what is no delivered column"),
    ],
)
def test_another_type_or_another_computed_column_is_refused(
    sql: str, kind: str, reason: str
) -> None:
    of = source(
        {
            "x": {"type": "int64"},
            "c": {"type": kind, "sql": sql},
            "d": {"type": "int64", "sql": "x"},
        }
    )
    with pytest.raises(ConfigError, match=reason):
        expression_of("c", of)


def test_columns_may_have_the_names_of_aliases_of_ours() -> None:
    of = source(
        {
            "t": {"type": "int64"},
            "t_x": {"type": "string"},
            "v_x": {"type": "int64", "sql": "t + 1"},
            "moment": {"type": "string", "sql": "t_x"},
        }
    )
    names = ["partition", "source_file", "id", "at", "t", "t_x"]
    rows = pa.table(
        {name: pa.array(["1" if name in ("t", "id") else "2025-01-01"]) for name in names}
        | {
            "source_row": [1],
            "arrived_at": pa.array([datetime(2025, 1, 2, tzinfo=UTC)], pa.timestamp("us", "UTC")),
        }
    )
    with connect() as con:
        con.register("raw", rows)
        con.register(
            "__periods",
            pa.table({"partition": ["2025-01-01"], "__as_of": rows.column("arrived_at")}),
        )
        query = judged_query(of, rows.column_names, "raw", [])
        given = con.sql(f"SELECT t, t_x, v_x, moment, rule FROM ({query})").fetchall()
    assert given == [(1, "2025-01-01", 2, "2025-01-01", None)]


@pytest.fixture
def bookings(tmp_path: Path) -> Intake:
    made = Intake(tmp_path, columns=PARTS, more=TIMES)
    made.put(
        f"{HEAD}1,1,2026,January,3,2,10,1\n2,2,2026,January,4,2,20,0\n3,1,2026,February,1,30,30,1\n"
        "4,2,2026,May,1,1,40,1\n5,1,2026,February,30,1,5,0\n"
    )
    return made


def test_a_row_arrives_at_its_computed_time_and_raw_rows_stay_as_delivered(
    bookings: Intake,
) -> None:
    assert bookings.validate("2026-01-02").state == "done"
    # Rows without a time belong to the partition of the row above them, and fail there.
    assert bookings.rules("2026-01-02") == {4: "booked_on: null", 5: "booked_on: null"}
    raw = bookings.raw("2026-01-02")
    assert {"booked_on", "share"} & set(raw[0]) == set()
    assert [row["order_id"] for row in raw] == ["2", "3", "4", "5"]
    first, second = bookings.curated("2026-01-02")
    assert first["booked_on"] == second["booked_on"] == date(2026, 1, 2)
    assert (first["share"], second["share"]) == (5.0, 30.0)
    assert first["event_timestamp"] == datetime(2026, 1, 2, tzinfo=UTC)


def test_a_changed_expression_is_other_rules_and_the_same_intake(bookings: Intake) -> None:
    bookings.validate("2026-01-02")
    before = bookings.result("ingest_data", "2026-01-02").digest
    bookings.define(columns=PARTS.replace("amount / day", "amount * day"), more=TIMES)
    assert bookings.validate("2026-01-02").state == "done"
    assert bookings.result("ingest_data", "2026-01-02").digest == before
    assert bookings.curated("2026-01-02")[0]["share"] == 80.0


def test_a_file_without_a_part_of_the_time_is_refused_by_its_name(bookings: Intake) -> None:
    bookings.put("order_id,customer_id,year,month,lead,amount,paid\n1,1,2026,January,2,10,1\n")
    with pytest.raises(SourceError, match="column 'day' says when a row arrives, and is not there"):
        bookings.ingest("2026-01-01")


def test_a_delivered_column_of_the_same_name_is_not_read(bookings: Intake) -> None:
    bookings.define(columns=PARTS, more=f"{TIMES}\n    extra: ignore")
    bookings.put(f"{HEAD.strip()},share,booked_on\n2,2,2026,January,4,2,20,0,99,1999-01-01\n")
    assert bookings.validate("2026-01-02").state == "done"
    assert bookings.raw("2026-01-02")[0]["extra_share"] == "99"
    assert bookings.curated("2026-01-02")[0]["share"] == 5.0


def test_a_late_row_corrects_the_one_that_has_its_computed_key(tmp_path: Path) -> None:
    made = Intake(
        tmp_path,
        columns=PARTS,
        more=f"{TIMES}\n    late: next",
    )
    path = made.folder / "shop.yaml"
    path.write_text(path.read_text().replace("key: [order_id]", "key: [customer_id, booked_on]"))
    row = "1,1,2026,January,3,2,10,1\n"
    made.put(HEAD + row)
    made.validate("2026-01-01")
    # Another amount on the same day is a correction; another day's row is none.
    made.put(HEAD + row.replace(",10,", ",11,") + "7,1,2026,January,4,2,20,0\n")
    report = made.ingest("2026-01-02")
    assert report.state == "done", report
    fact = made.result("ingest_data", "2026-01-02").outputs["sources"]["orders"]
    assert (fact["rows"], fact["late"], fact["corrections"]) == (2, 1, 1)
    assert made.ingest("2026-01-01").state == "done"  # its row is corrected, not gone
