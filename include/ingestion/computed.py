"""Computed columns: SQL of a row's own delivered columns, typed as they are declared.

Raw rows hold what was delivered. Whoever needs a computed value (arrival, comparison, contract) has
it computed here, so all have the same. An expression that fails on a row gives it no value; a
number that is not finite is none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pyarrow as pa

from include.config.use_case_sources import Source
from include.errors import ConfigError
from include.ingestion.times import of_day, of_local, utc
from include.ingestion.values import cell, dates_of, plain, typed
from include.lake.sql import quote
from include.pipeline import declared
from include.point_in_time.curated import ARROW_TYPES
from include.point_in_time.sql_expression import Expression, parse_expression

# Text that is not there: DuckDB would give a bare NULL a type of its own.
NO_TEXT = "CAST(NULL AS VARCHAR)"
_TIMES = ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE")


def expression_of(name: str, source: Source) -> Expression:
    """Return the expression of a computed column, checked.

    Raises:
        ConfigError: it may not be asked, or gives another type than is declared; the message is
            the end of a sentence whose subject is the expression.
    """
    column = source.computed[name]
    expression = parse_expression(str(column.sql), _delivered(source))
    given = expression.type.split("(", maxsplit=1)[0]
    if given.startswith("TIMESTAMP_"):  # of seconds, milliseconds or nanoseconds
        given = "TIMESTAMP"
    if column.type in ("date", "timestamp"):
        accepted = ("DATE", "NULL") if column.type == "date" else (*_TIMES, "NULL")
        if given not in accepted:
            raise ConfigError(
                f"gives {expression.type}, declared {column.type}; cast it, or declare what it is"
            )
    else:
        declared.cast(name, given, column.type, "gives another type")
    return Expression(expression.sql, given, expression.columns)


def parts_of(names: Iterable[str], source: Source) -> list[str]:
    """Return the delivered columns of which computed ones are made.

    Raises:
        ConfigError: names an expression that may not be asked, and why.
    """
    parts: list[str] = []
    for name in names:
        try:
            parts += expression_of(name, source).columns
        except ConfigError as error:
            raise ConfigError(f"columns.{name}.sql {error}") from None
    return list(dict.fromkeys(parts))


def part(name: str, source: Source, text: str) -> str:
    """Return the expression of a delivered column as expressions see it: typed as declared."""
    column = source.columns.get(name)
    return utc(text, source) if column is None else typed(text, column, source)


def asked(name: str, source: Source) -> str:
    """Return the SQL that asks an expression over a row whose columns have their own names."""
    return f"TRY(\n{expression_of(name, source).sql}\n)"


def value(name: str, source: Source, given: str) -> str:
    """Return the expression of a computed column's value, of what its expression has given."""
    kind, actual = source.computed[name].type, expression_of(name, source).type
    if kind == "int64":
        return given if actual == "BIGINT" else f"try_cast({given} AS BIGINT)"
    if kind == "float64":
        number = given if actual == "DOUBLE" else f"try_cast({given} AS DOUBLE)"
        return f"CASE WHEN isfinite({number}) THEN {number} + 0.0::DOUBLE END"
    if kind == "string":
        return f"nullif({plain(f'CAST({given} AS VARCHAR)')}, '')"
    if kind == "bool":
        return f"CAST({given} AS BOOLEAN)"
    if kind == "date":
        return f"CAST({given} AS DATE)"
    if actual == "DATE":
        return of_day(given, source)
    if actual == "TIMESTAMP":
        return of_local(f"CAST({given} AS TIMESTAMP)", source)
    return f"CAST({given} AS TIMESTAMPTZ)"


def moment(name: str, source: Source, given: str) -> str:
    """Return the expression of a computed time in UTC, whatever its declared type is."""
    own = value(name, source, given)
    return of_day(own, source) if source.computed[name].type == "date" else own


def moment_query(name: str, source: Source, present: Collection[str], rows: str) -> str:
    """Return the query of a time of raw rows in UTC, as `moment`, in their order.

    The time is delivered or computed; what is not among the columns that are `present` is null.
    """
    if name in source.computed:
        inner = _asked_rows([name], source, present, rows)
        return f"SELECT {moment(name, source, quote(_given(name)))} AS moment FROM ({inner})"
    text = cell(name, source) if name in present else NO_TEXT
    return f"SELECT {utc(text, source, dates_of(name, source))} AS moment FROM {rows}"


def texts_query(names: Collection[str], source: Source, present: Collection[str], rows: str) -> str:
    """Return the query of computed columns of raw rows as texts, in their order."""
    picked = ", ".join(
        f"CAST({value(name, source, quote(_given(name)))} AS VARCHAR) AS {quote(name)}"
        for name in names
    )
    return f"SELECT {picked} FROM ({_asked_rows(names, source, present, rows)})"


def _asked_rows(names: Collection[str], source: Source, present: Collection[str], rows: str) -> str:
    """Return the query of what the expressions of some columns give of raw rows."""
    parts = ", ".join(
        f"{part(name, source, cell(name, source) if name in present else NO_TEXT)} AS {quote(name)}"
        for name in parts_of(names, source)
    )
    picked = ", ".join(f"{asked(name, source)} AS {quote(_given(name))}" for name in names)
    return f"SELECT {picked} FROM (SELECT {parts or '1 AS __one'} FROM {rows})"


def _given(name: str) -> str:
    return f"__c_{name}"


def _delivered(source: Source) -> pa.Schema:
    """Return the columns that expressions may read, with their types."""
    kinds = {
        name: column.type for name, column in source.columns.items() if column.is_delivered
    } | {
        name: "timestamp"
        for name in source.time_columns
        if name not in source.columns and name not in source.computed
    }
    return pa.schema([(name, ARROW_TYPES[kind]) for name, kind in kinds.items()])
