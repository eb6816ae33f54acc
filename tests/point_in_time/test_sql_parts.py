"""Parts of queries: whatever a name or a moment is, DuckDB reads it as that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import duckdb
import pytest
from sqlglot import exp, parse_one

from include.lake.sql import connect, quote
from include.point_in_time.sql_parts import (
    column,
    interval_literal,
    newest_first,
    table,
    timestamp,
    timestamp_literal,
    to_sql,
)

NAMES = ["a", 'we"ird', "select", "Ä; DROP TABLE x --", "a.b", "'"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_name_whatever_is_in_it(name: str) -> None:
    query = to_sql(exp.select(column(name)).from_(table(name)))
    assert query == f"SELECT {quote(name)} FROM {quote(name)}"
    with connect() as con:
        con.execute(f"CREATE TEMP TABLE {quote(name)} ({quote(name)} INT)")
        con.execute(f"INSERT INTO {quote(name)} VALUES (7)")
        assert con.execute(query).fetchall() == [(7,)]


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2025, 1, 1, tzinfo=UTC),
        datetime(2025, 1, 1, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2025, 1, 1, 1, tzinfo=timezone(timedelta(hours=5))),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
)
def test_a_moment_is_the_same_in_both_forms_to_the_microsecond(moment: datetime) -> None:
    with connect() as con:
        (as_text, as_expression) = (
            con.execute(f"SELECT epoch_us({form}), typeof({form})").fetchone()
            for form in (timestamp_literal(moment), to_sql(timestamp(moment)))
        )
    micros = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert as_text == as_expression == (micros, "TIMESTAMP WITH TIME ZONE")


def test_a_span_is_of_microseconds_alone() -> None:
    with connect() as con:
        start = timestamp_literal(datetime(2025, 1, 31, tzinfo=UTC))
        for span in (timedelta(0), timedelta(days=31, microseconds=1), timedelta(days=100_000)):
            (end,) = con.execute(f"SELECT {start} + {interval_literal(span)}").fetchone() or ()
            assert end == datetime(2025, 1, 31, tzinfo=UTC) + span


def test_newest_first_puts_nulls_last() -> None:
    with connect() as con:
        con.execute("CREATE TEMP TABLE t AS SELECT * FROM (VALUES (1), (NULL), (3)) v(x)")
        rows = exp.select(column("x")).from_(table("t"))
        rows.args["order"] = newest_first("x")
        assert con.execute(to_sql(rows)).fetchall() == [(3,), (1,), (None,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT s.a FROM s ASOF LEFT JOIN v ON s.k = v.k AND s.m >= v.m",
        "SELECT * EXCLUDE (a) FROM s WHERE k < GETVARIABLE('as_of')",
        "SELECT * FROM s QUALIFY ROW_NUMBER() OVER (PARTITION BY k ORDER BY m DESC) = 1",
        "SELECT k FROM s SEMI JOIN v USING (k) GROUP BY ALL",
        "SELECT MAX(m) FILTER(WHERE k = 1) FROM s",
    ],
)
def test_sqlglot_gives_duckdbs_own_forms_back(sql: str) -> None:
    assert parse_one(sql, dialect="duckdb").sql("duckdb") == sql
    with connect() as con:
        con.execute("CREATE TEMP TABLE s (a INT, k INT, m INT)")
        con.execute("CREATE TEMP TABLE v (a INT, k INT, m INT)")
        con.execute("SET VARIABLE as_of = 1")
        try:
            con.execute(sql)
        except duckdb.Error as error:
            pytest.fail(str(error))
