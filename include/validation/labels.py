"""Labels: outcomes of decisions, from a column of a source or by SQL over the curated sources.

Rows: entity key, event_timestamp (the decision), label_timestamp (when the outcome was known),
created_timestamp, label (0 or 1; null: a decision without an outcome yet). A partition holds what
became known in it; what was known before is not repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import duckdb
import pyarrow as pa

from include.config.use_case import UseCase
from include.config.use_case_sources import Source
from include.errors import ConfigError
from include.ingestion.times import of_day
from include.ingestion.values import dates_of
from include.lake.digests import digest
from include.lake.sql import quote, text_literal
from include.pipeline import memo
from include.pipeline.declared import cast
from include.point_in_time.curated import (
    CREATED,
    EVENT,
    curated_name,
    curated_schema,
)
from include.point_in_time.decisions import standing_rows
from include.point_in_time.partitions import Period
from include.point_in_time.queries import resolve_sql, tables_in, variables_in
from include.point_in_time.sql_groups import Groups, groups_of
from include.point_in_time.sql_parts import timestamp_literal
from include.point_in_time.views import AsOfViews, ask_in_lanes
from include.texts import plain_text
from include.validation.label_checks import PART
from include.validation.label_rows import typed

_MICRO = timedelta(microseconds=1)
_BEFORE = "__before"  # what the query gives at the start of an interval
_CHANGED = "__changed"  # rows of groups that may answer otherwise than at the start
_SAME_AS_THEY_ARE = ("BIGINT", "VARCHAR")  # types of a key that no cast makes equal
RULES = (
    "entity.key",
    "entity.type",
    "label.source",
    "label.column",
    "label.positive",
    "label.label_time",
    "label.sql",
    "label.lookback",
)


def label_digest(rows: pa.Table, use_case: UseCase) -> str:
    """Return the digest of label rows."""
    return digest(rows, sort_by=[use_case.entity.key, EVENT])


def rules_digest(use_case: UseCase) -> str:
    """Return the digest of what a label is.

    Labels of two definitions never stand in one training set.
    """
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
        raise ConfigError(
            f"{use_case.name}: label.sql reads {unknown}; sources are {sorted(use_case.sources)}"
        )
    return sorted(names)


def from_column(use_case: UseCase, curated: pa.Table, con: duckdb.DuckDBPyConnection) -> pa.Table:
    """Return the labels that stand on the partition's own curated rows of `label.source`.

    Of rows of one entity at one moment one stands (`decisions.standing`), whatever its label is.

    Raises:
        ConfigError: a column is missing, or its type or values are no label, no time or no key.
    """
    label, source, where = (
        use_case.label,
        use_case.sources[str(use_case.label.source)],
        f"{use_case.name}: label",
    )
    key, column = curated_name(source, use_case.entity.key), curated_name(source, str(label.column))
    moment = curated_name(source, label.label_time)
    needed = [key, column] + ([moment] if label.assumed_lag is None else [])
    if missing := [name for name in needed if name not in curated.column_names]:
        raise ConfigError(
            f"{where} needs the columns {missing} of source {label.source}; declare them there"
        )
    con.register("curated", curated)
    types = {name: kind for name, kind, *_ in con.execute("DESCRIBE curated").fetchall()}
    if label.assumed_lag is not None:
        known_at = f"{EVENT} + to_microseconds({label.assumed_lag // _MICRO})"
    else:
        known_at = f"coalesce({_moment(source, moment, types[moment], where)}, {CREATED})"
    entity = cast(key, types[key], use_case.entity.type, where)
    outcome = _outcome(use_case, con, column, types[column], where)
    query = (
        f"SELECT '' AS {PART}, {entity} AS __entity, {EVENT}, {known_at} AS __known, {CREATED}, "
        f"{outcome} AS __label FROM ({standing_rows(source, key, 'curated')})"
    )
    return typed(use_case, con, query, [""])[""]


def _moment(source: Source, name: str, kind: str, where: str) -> str:
    """Return the expression of a curated column as the time at which an outcome was known.

    `kind` is DuckDB's type of the column.
    """
    if kind == "DATE":
        return of_day(quote(name), source, dates_of(name, source))
    if kind != "TIMESTAMP WITH TIME ZONE":
        raise ConfigError(
            f"{where}: label_time {name} is {kind}; declare its column timestamp or date, or "
            "write `event + DURATION`"
        )
    return quote(name)


def _outcome(
    use_case: UseCase, con: duckdb.DuckDBPyConnection, column: str, kind: str, where: str
) -> str:
    """Return the expression of a label column as 1, 0 or null."""
    shown, positive = quote(column), use_case.label.positives
    if not positive:
        if kind not in ("BOOLEAN", "BIGINT", "DOUBLE"):
            raise ConfigError(
                f"{where}: {column} is {kind}; a label is bool or 0 and 1, else write positive: "
                "<the value that is 1>"
            )
        return f"CAST({shown} AS DOUBLE)"
    if kind == "VARCHAR":
        value = f"nullif(trim({shown}), '')"
        ones = [text_literal(plain_text(text)) for text in positive]
        _refuse_lookalikes(con, value, ones, where, column)
    elif kind in ("BOOLEAN", "BIGINT", "DOUBLE"):
        value, ones = shown, [f"CAST({text_literal(text.strip())} AS {kind})" for text in positive]
        for text, one in zip(positive, ones, strict=True):
            try:
                con.execute(f"SELECT {one}").fetchall()
            except duckdb.Error:
                raise ConfigError(
                    f"{where}: positive {text!r} is no value of {column}, which is {kind}; "
                    "correct one"
                ) from None
    else:
        raise ConfigError(
            f"{where}: {column} is {kind}; a label is of type string, bool or a number, else "
            "write label.sql"
        )
    return f"CASE WHEN {value} IS NOT NULL THEN CAST({value} IN ({', '.join(ones)}) AS DOUBLE) END"


def _refuse_lookalikes(
    con: duckdb.DuckDBPyConnection, value: str, ones: Sequence[str], where: str, column: str
) -> None:
    """Refuse values that are a positive one in all but case, blanks, hidden letters and final dots.

    They would silently count as 0.
    """
    plain = "rtrim(lower(regexp_replace({}, '[\\s\\pZ\\p{{Cf}}]+', '', 'g')), '.')"
    alike = ", ".join(plain.format(each) for each in ones)
    unlike = f"{plain.format(value)} IN ({alike}) AND {value} NOT IN ({', '.join(ones)})"
    query = f"SELECT DISTINCT {value} AS __value FROM curated WHERE {unlike} ORDER BY 1 LIMIT 3"
    other = [row[0] for row in con.execute(query).fetchall()]
    if other:
        positives = ", ".join(each.strip("'") for each in ones)
        raise ConfigError(
            f"{where}: {column} holds {other} beside {positives}, as if they were other outcomes; "
            "list each spelling under `positive`, or make the values one in the source"
        )


def from_sql(
    use_case: UseCase, views: AsOfViews, periods: Sequence[Period], con: duckdb.DuckDBPyConnection
) -> dict[str, pa.Table]:
    """Return, by partition, the labels that the SQL gives at `as_of` and not at the start of the
    interval.

    Both times it sees the same window of events. A query that itself asks
    `getvariable('interval_start')` is asked once. Of one whose groups of rows answer each for
    itself only the groups are asked that may answer otherwise than before.
    """
    sql = resolve_sql(use_case, str(use_case.label.sql))
    # As DuckDB parses it: a comment asks for nothing.
    asks_itself = "interval_start" in variables_in(sql)
    source_names = sources(use_case)

    def ask(lane: AsOfViews, period: Period) -> pa.Table:
        since, start = period.as_of - use_case.label.lookback, period.arrival_start
        if asks_itself:
            lane.at_moment(period.as_of, interval_start=start, since=since)
            return lane.query(_labels_query(use_case, lane, sql, period))
        lane.at_moment(period.as_of, interval_start=start, since=since)
        groups, only = _groups(use_case, lane, sql, source_names), ""
        if groups is not None:
            only = lane.keep_changed(_CHANGED, groups)
        lane.at_moment(start, interval_start=start, since=since)
        lane.keep(_BEFORE, _labels_query(use_case, lane, sql, period, only))
        lane.at_moment(period.as_of, interval_start=start, since=since)
        same = " AND ".join(
            f"now.{name} IS NOT DISTINCT FROM {_BEFORE}.{name}"
            for name in ("__entity", EVENT, "__label")
        )
        now = _labels_query(use_case, lane, sql, period, only)
        # Compared where they are: what was known before is most of both answers.
        return lane.query(f"SELECT now.* FROM ({now}) AS now ANTI JOIN {_BEFORE} ON {same}")

    asked = ask_in_lanes(views, periods, ask)
    found = [_of_partition(rows, period.key) for period, rows in zip(periods, asked, strict=True)]
    con.register("found", pa.concat_tables(found))
    return typed(use_case, con, "SELECT * FROM found", [period.key for period in periods])


def _of_partition(rows: pa.Table, key: str) -> pa.Table:
    """Return rows with the partition that they belong to."""
    return rows.append_column(PART, pa.repeat(pa.scalar(key, pa.string()), len(rows)))


def _groups(
    use_case: UseCase, views: AsOfViews, sql: str, source_names: Sequence[str]
) -> Groups | None:
    """Return how the label's query falls into groups of which each has decisions of its own.

    What two groups give never looks like one decision, so each is compared with itself alone.
    """
    described = views.types(sql)
    if len(source_names) != 1 or use_case.sources[source_names[0]].kind == "static":
        return None
    if (
        described.get(use_case.entity.key) not in _SAME_AS_THEY_ARE
        or described.get(EVENT) != "TIMESTAMP WITH TIME ZONE"
    ):
        return None  # two of its values may become one
    columns = tuple(curated_schema(use_case.sources[source_names[0]]).names)
    return groups_of(sql, source_names[0], columns, (use_case.entity.key, EVENT))


def _labels_query(
    use_case: UseCase, views: AsOfViews, sql: str, period: Period, only: str = ""
) -> str:
    """Return the query of (entity, event_timestamp, known, created_timestamp, label).

    `only` is a WITH before the label's SQL.
    """
    described = views.types(sql)
    wanted = [use_case.entity.key, EVENT, "label_timestamp", "label"]
    if missing := [name for name in wanted if name not in described]:
        raise ConfigError(
            f"{use_case.name}: label.sql must give the columns {wanted}; it lacks {missing}"
        )
    created = (
        f"CAST({CREATED} AS TIMESTAMPTZ)"
        if CREATED in described
        else "CAST(label_timestamp AS TIMESTAMPTZ)"
    )
    start = timestamp_literal(period.arrival_start)
    end = timestamp_literal(period.as_of - _MICRO)
    key = use_case.entity.key
    entity = cast(key, described[key], use_case.entity.type, f"{use_case.name}: label.sql")
    return (
        f"SELECT {entity} AS __entity, CAST({EVENT} AS TIMESTAMPTZ) AS {EVENT}, "
        f"CAST(label_timestamp AS TIMESTAMPTZ) AS __known, CASE WHEN {created} BETWEEN {start} "
        f"AND {end} THEN {created} ELSE {start} END AS {CREATED}, "
        f"CAST(label AS DOUBLE) AS __label FROM ({only}SELECT * FROM (\n{sql}\n))"
    )
