"""Parts of the queries that are put together: names and moments as SQLGlot expressions or as text.

Queries whose parts vary are built of expressions, so that a name or a value is never taken for SQL.
Queries that only differ in names stay texts with quoted names: they read as what they are, and to
parse and print the point-in-time join alone takes 5 ms.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlglot import exp


def column(name: str) -> exp.Column:
    """Return a column by its name, quoted."""
    return exp.column(name, quoted=True)


def table(name: str) -> exp.Table:
    """Return a table by its name, quoted."""
    return exp.table_(name, quoted=True)


def newest_first(*names: str) -> exp.Order:
    """Return the order in which the greatest value of each column comes first, nulls last."""
    return exp.Order(
        expressions=[exp.Ordered(this=column(name), desc=True, nulls_first=False) for name in names]
    )


def timestamp(moment: datetime) -> exp.Cast:
    """Return an aware moment as an expression of type TIMESTAMPTZ."""
    return exp.cast(exp.Literal.string(_utc_text(moment)), exp.DataType.Type.TIMESTAMPTZ)


def to_sql(expression: exp.Expression) -> str:
    """Return an expression as DuckDB reads it."""
    return expression.sql(dialect="duckdb")


def timestamp_literal(moment: datetime) -> str:
    """Return an aware moment as a DuckDB literal of type TIMESTAMPTZ."""
    return f"TIMESTAMPTZ '{_utc_text(moment)}'"


def interval_literal(span: timedelta) -> str:
    """Return a span as a DuckDB expression of type INTERVAL.

    It is made of microseconds alone: an interval of days or months would follow the calendar.
    """
    return f"to_microseconds({span // timedelta(microseconds=1)})"


def _utc_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(sep=" ")
