"""What may be computed of a row, what is refused and why, and what type it gives."""

from __future__ import annotations

import pyarrow as pa
import pytest

from include.errors import ConfigError
from include.lake.sql import connect
from include.point_in_time.sql_expression import parse_expression

SCHEMA = pa.schema(
    [
        ("year", pa.int64()),
        ("month", pa.string()),
        ("day", pa.int64()),
        ("lead_time", pa.int64()),
        ("amount", pa.float64()),
        ("current_date", pa.date32()),
        ("t", pa.int64()),
        ("at", pa.date32()),
    ]
)


@pytest.mark.parametrize(
    ("text", "kind", "columns"),
    [
        ("amount / t", "DOUBLE", ("amount", "t")),
        ("AMOUNT -- a comment", "DOUBLE", ("amount",)),
        ("make_date(year, 1, day) - lead_time", "DATE", ("year", "day", "lead_time")),
        ("'ö' || month || (make_date(year, 1, day) + t)", "VARCHAR", ("year", "month", "day", "t")),
        ("CASE month WHEN 'Jän' THEN day - lead_time END", "BIGINT", ("month", "day", "lead_time")),
        ("map {'January': 1, 'July': 7}[month]", "INTEGER", ("month",)),
        ("current_date + 1", "DATE", ("current_date",)),
        ("t in (1, 2)\n  AND day BETWEEN 1 AND 3", "BOOLEAN", ("day", "t")),
    ],
)
def test_an_expression_is_typed_with_the_columns_it_reads(
    text: str, kind: str, columns: tuple[str, ...]
) -> None:
    expression = parse_expression(text, SCHEMA)
    assert (expression.type, expression.columns) == (kind, columns)


def test_a_date_moves_by_whole_columns_and_no_other_sum_changes_its_type() -> None:
    text = "make_date(year, 1, day) - lead_time + CAST(amount - amount AS INTEGER)"
    expression = parse_expression(text, SCHEMA)
    with connect() as con:
        query = f"SELECT {expression.sql} FROM (SELECT 2016 AS year, 8 AS day, 5::BIGINT AS "
        query += "lead_time, 1.4 AS amount)"
        assert str(con.sql(query).fetchall()[0][0]) == "2016-01-03"
    assert "CAST(amount AS INTEGER)" not in expression.sql


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sum(amount)", "holds an aggregate"),
        ("geomean(amount)", "holds an aggregate"),  # within a macro
        ("count(*)", "holds an aggregate"),
        ("row_number() OVER ()", "holds a window function"),
        ("(SELECT 1)", "holds a subquery"),
        ("t IN (SELECT 1)", "holds a subquery"),
        ("unnest([1, 2])", "calls unnest()"),
        ("getvariable('as_of')", "calls getvariable()"),
        ("now()", "calls now(), which changes from run to run; a column of a row is the same"),
        ("random()", "calls random()"),
        ("current_timestamp", "reads 'current_timestamp', which is no column here but the clock"),
        ("read_text('/etc/passwd')", "reads read_text"),
        ("*", "holds *"),
        ("COLUMNS('a.*')", "holds *"),
        ("$1", "holds a parameter"),
        ("source_file", "reads what is no delivered column"),
        ("nothing + 1", "it may read year, month, day"),
        ("amount, t", "is not one expression"),
        ("", "is not one expression"),
        ("amount) + (t", "is not valid SQL"),
        ("amount) FROM x; --", "is not valid SQL"),
        ("amount)) AS x, ((t", "is not valid SQL"),
        ("amount; SELECT 1", "is not valid SQL"),
        ("amount /* ", "is not valid SQL"),
        ("amount +\n+ * t", "(line 2)"),
        ("at + t", 'words of SQL stand in double quotes: "at"'),
        ("make_date(year, 1, day) - coalesce(t, 0)", "moved by CAST(days AS INTEGER)"),
    ],
)
def test_what_looks_beyond_the_row_or_is_no_expression_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_expression(text, SCHEMA)
    assert reason in str(error.value)
