"""Labels: outcomes of decisions, from a column of a source or by SQL over the curated sources.

Rows: entity key, event_timestamp (the decision), label_timestamp (when the outcome was known), created_timestamp, label (0 or 1;
null: a decision without an outcome yet). A partition holds what became known in it; what was known before is not repeated.
"""

from __future__ import annotations

from datetime import timedelta

import duckdb
import pyarrow as pa

from include import memo
from include.asof import AsOfViews, curated_name, literal, resolve_sql, tables_in, variables_in
from include.errors import ConfigError
from include.lake import digest, quote
from include.partitions import Period
from include.tables import CREATED, EVENT, label_schema
from include.usecase import UseCase

_KEYS = {"int64": "BIGINT", "string": "VARCHAR"}
_MICRO = timedelta(microseconds=1)
RULES = (
    "entity.key", "entity.type",
    "label.source", "label.column", "label.positive", "label.label_time", "label.sql", "label.lookback",
)  # fmt: skip


def label_digest(rows: pa.Table, use_case: UseCase) -> str:
    """Return the digest of label rows."""
    return digest(rows, sort_by=[use_case.entity.key, EVENT])


def rules_digest(use_case: UseCase) -> str:
    """Return the digest of what a label is: labels of two definitions never stand in one training set."""
    return memo.fields_digest(use_case, RULES)


def sources(use_case: UseCase) -> list[str]:
    """Return the sources that the label is made of.

    Raises:
        ConfigError: its SQL cannot be parsed, or reads what is no source.
    """
    if use_case.label.sql is None:
        return [str(use_case.label.source)]
    names = tables_in(resolve_sql(use_case, use_case.label.sql))
    unknown = sorted(names - set(use_case.sources))
    if unknown:
        raise ConfigError(f"{use_case.name}: label.sql reads {unknown}; sources are {sorted(use_case.sources)}")
    return sorted(names)


def from_column(use_case: UseCase, curated: pa.Table, con: duckdb.DuckDBPyConnection) -> pa.Table:
    """Return the labels that stand on the partition's own curated rows of `label.source`.

    Of decisions of one entity at one moment (two orders in one second) that differ, the one whose values sort last stays.
    """
    label, source = use_case.label, use_case.sources[str(use_case.label.source)]
    key, column = curated_name(source, use_case.entity.key), curated_name(source, str(label.column))
    moment = curated_name(source, label.label_time)
    if label.assumed_lag is not None:
        known = f"{EVENT} + to_microseconds({label.assumed_lag // _MICRO})"
    else:
        known = f"coalesce(CAST({quote(moment)} AS TIMESTAMPTZ), {CREATED})"
    wanted = [key, column] + ([moment] if label.assumed_lag is None else [])
    if missing := [name for name in wanted if name not in curated.column_names]:
        raise ConfigError(f"{use_case.name}: label needs the columns {missing} of source {label.source}; declare them there")
    con.register("curated", curated)
    chosen = f"{quote(key)} AS entity, {EVENT}, {known} AS label_timestamp, {CREATED}, {quote(column)} AS label"
    order = f"PARTITION BY entity, {EVENT}, {CREATED} ORDER BY label_timestamp DESC NULLS LAST, label DESC NULLS LAST"
    last = f"QUALIFY row_number() OVER ({order}) = 1"
    return _typed(use_case, con, f"SELECT * FROM (SELECT {chosen} FROM curated) {last}")


def from_sql(use_case: UseCase, views: AsOfViews, period: Period, con: duckdb.DuckDBPyConnection) -> pa.Table:
    """Return the labels that the SQL gives at `as_of` and did not give at the start of the interval.

    Both times it sees the same window of events. A query that itself asks `getvariable('interval_start')` is asked once.
    """
    sql = resolve_sql(use_case, str(use_case.label.sql))
    since = period.as_of - use_case.label.lookback
    itself = "interval_start" in variables_in(sql)  # as DuckDB parses it: a comment asks for nothing
    if not itself:
        views.at_moment(period.arrival_start, interval_start=period.arrival_start, since=since)
        con.register("before", _asked(use_case, views, sql, period))
    views.at_moment(period.as_of, interval_start=period.arrival_start, since=since)
    con.register("now", _asked(use_case, views, sql, period))
    same = " AND ".join(f"now.{name} IS NOT DISTINCT FROM before.{name}" for name in ("entity", EVENT, "label"))
    return _typed(use_case, con, "SELECT * FROM now" + ("" if itself else f" ANTI JOIN before ON {same}"))


def _asked(use_case: UseCase, views: AsOfViews, sql: str, period: Period) -> pa.Table:
    """Return the query's rows as (entity, event_timestamp, label_timestamp, created_timestamp, label)."""
    described = views.columns(sql)
    wanted = [use_case.entity.key, EVENT, "label_timestamp", "label"]
    if missing := [name for name in wanted if name not in described]:
        raise ConfigError(f"{use_case.name}: label.sql must give the columns {wanted}; it lacks {missing}")
    created = f"CAST({CREATED} AS TIMESTAMPTZ)" if CREATED in described else "CAST(label_timestamp AS TIMESTAMPTZ)"
    start = literal(period.arrival_start)
    return views.query(
        f"SELECT {quote(use_case.entity.key)} AS entity, CAST({EVENT} AS TIMESTAMPTZ) AS {EVENT}, "
        f"CAST(label_timestamp AS TIMESTAMPTZ) AS label_timestamp, "
        f"CASE WHEN {created} BETWEEN {start} AND {literal(period.as_of - _MICRO)} THEN {created} ELSE {start} END AS {CREATED}, "
        f"CAST(label AS DOUBLE) AS label FROM (\n{sql}\n)"
    )


def _typed(use_case: UseCase, con: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    kind, key = _KEYS[use_case.entity.type], quote(use_case.entity.key)
    rows = con.sql(
        f"SELECT DISTINCT CAST(entity AS {kind}) AS {key}, {EVENT}, label_timestamp, {CREATED}, CAST(label AS DOUBLE) AS label "
        f"FROM ({query}) ORDER BY {key}, {EVENT}, {CREATED}, label_timestamp, label"
    ).to_arrow_table()
    con.register("labels", rows)
    twice = f"count(*) - count(DISTINCT ({key}, {EVENT}, {CREATED}))"
    strange, nobody = "label IS NOT NULL AND label NOT IN (0, 1)", f"{key} IS NULL OR {EVENT} IS NULL"
    found = con.execute(f"SELECT count(*) FILTER ({strange}), count(*) FILTER ({nobody}), {twice} FROM labels").fetchall()[0]
    if found[0]:
        raise ConfigError(f"{use_case.name}: labels are 0, 1 or null; there are values such as {_shown(con, strange)}")
    if found[1]:
        raise ConfigError(f"{use_case.name}: a label needs its entity and event_timestamp; there are {_shown(con, nobody)}")
    if found[2]:
        again = (
            f"({key}, {EVENT}, {CREATED}) IN (SELECT ({key}, {EVENT}, {CREATED}) FROM labels GROUP BY ALL HAVING count(*) > 1)"
        )
        raise ConfigError(
            f"{use_case.name}: one decision has two labels that became known at one moment, such as {_shown(con, again)}; "
            f"give one row for each {use_case.entity.key} and event_timestamp"
        )
    return rows.cast(label_schema(use_case))


def _shown(con: duckdb.DuckDBPyConnection, which: str) -> str:
    rows = con.sql(f"SELECT * FROM labels WHERE {which} LIMIT 3").to_arrow_table().to_pylist()
    return " | ".join(", ".join(f"{name}={value}" for name, value in row.items()) for row in rows)
