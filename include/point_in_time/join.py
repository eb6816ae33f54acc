"""The point-in-time join: for every spine row the newest feature row that was known at its moment.

A feature row becomes visible at v = max(event, created), and is ranked by event, then created time.
The answer is the greatest rank of the key's rows with v up to the moment asked: both times are cut,
an older event that came late outdoes nothing, ties of the event time go to the greatest created
time. A row's ttl counts from the newest `as_of` at or before the moment asked (`expiry.Calendar`),
as it does in the node. Where all rows ask about one moment (all entities at an `as_of`), the
greatest rank of each key is found by grouping alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.errors import EvergreenError
from include.lake.sql import PARTITION, TIMESTAMP, quote
from include.point_in_time.curated import CREATED, EVENT
from include.point_in_time.expiry import Calendar
from include.point_in_time.sql_parts import interval_literal, timestamp_literal

MATCHED = "__matched"
_ROW = "__row"
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_NEVER = np.iinfo(np.int64).min
# A row's rank puts the event time above the created time in one number, each pair its own: 2^63 is
# more than twice the microseconds of any created time, before or after 1970.
_RANK = f"(epoch_us({EVENT})::HUGEINT * {2**63}::HUGEINT + epoch_us({CREATED})::HUGEINT)"


def as_of_join(
    con: duckdb.DuckDBPyConnection,
    spine: pa.Table,
    features: str,
    *,
    key: str,
    ttl: timedelta | None,
    calendar: Calendar | None = None,
    columns: Sequence[str] | None = None,
    matched: bool = False,
    own: bool = False,
) -> pa.Table:
    """Return the feature columns for each spine row: as many rows, in the same order.

    Where nothing is known they are null. `spine` has the key and `event_timestamp`; `features` is a
    relation of `con` with the key, both times and the columns (None: all others). A row older than
    `ttl` at the newest `as_of` of `calendar` counts as unknown (None: never); without a calendar
    its age counts to the moment asked for. With `own` a row of the very moment asked for is the
    decision's own, which came with the request: its first version is known although it arrived
    later. With `matched` the event time of the answering row comes as `__matched`.

    Raises:
        EvergreenError: a spine row has no `event_timestamp`, or rows would be lost.
    """
    relation = quote(features)
    names = list(columns) if columns is not None else _feature_columns(con, relation, key)
    asked = _asked(spine, key, calendar)
    con.register("__spine", asked)
    try:
        if not len(asked):
            query = _joined(relation, names, key, "FALSE", None)
            return _answer(con.sql(query).to_arrow_table(), names, matched)
        visible_at_all = _bounds(asked, ttl)
        one_moment = pc.count_distinct(asked.column("__moment")).as_py() == 1
        build = _joined_at_once if one_moment and not own else _joined
        query = build(relation, names, key, visible_at_all, ttl)
        result = con.sql(query).to_arrow_table()
        if own:
            result = _with_own(con, result, relation, names, key)
        if len(result) > len(spine):
            result = _without_ties(con, result, names)
    finally:
        con.unregister("__spine")
    if len(result) != len(spine):
        raise EvergreenError(
            f"the join of {features} returned {len(result)} rows for {len(spine)} asked; report "
            "this"
        )
    return _answer(result, names, matched)


def _feature_columns(con: duckdb.DuckDBPyConnection, relation: str, key: str) -> list[str]:
    described = con.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    return [row[0] for row in described if row[0] not in (key, EVENT, CREATED, PARTITION)]


def _asked(spine: pa.Table, key: str, calendar: Calendar | None) -> pa.Table:
    """Return the numbered questions: key, moment, and the horizon from which a ttl counts."""
    moments = spine.column(EVENT)
    if moments.null_count:
        raise EvergreenError(
            f"{moments.null_count} rows of the entity frame have no {EVENT}; give every row its "
            "moment"
        )
    row = pa.array(np.arange(len(spine)), pa.int64())
    micros = _floor_to_micros(moments)
    horizon = micros if calendar is None else _horizons(micros, calendar)
    return pa.table(
        {_ROW: row, "__key": spine.column(key), "__moment": micros, "__horizon": horizon}
    )


def _horizons(moments: pa.ChunkedArray, calendar: Calendar) -> pa.Array:
    """Return the newest `as_of` at or before each moment, or the moment before there is one."""
    micros = np.asarray(moments.cast(pa.int64()).to_numpy())
    cut_off, day = calendar.cut_off // _MICROSECOND, timedelta(days=1) // _MICROSECOND
    # All moments of a day (less the cut_off) have the same horizon: the calendar is asked once a
    # day, not once a row.
    days, day_of_row = np.unique((micros - cut_off) // day, return_inverse=True)
    as_ofs = [calendar.newest(_EPOCH.date() + timedelta(days=int(number))) for number in days]
    ends = np.array(
        [_NEVER if as_of is None else (as_of - _EPOCH) // _MICROSECOND for as_of in as_ofs],
        dtype=np.int64,
    )[day_of_row]
    return pa.array(np.where(ends == _NEVER, micros, ends)).cast(TIMESTAMP)


def _floor_to_micros(moments: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return moments in the lake's unit.

    Frames from pandas carry nanoseconds: they are rounded down, so that no later row can be seen.
    """
    if pa.types.is_timestamp(moments.type) and moments.type.unit == "ns":
        moments = pc.floor_temporal(moments, unit="microsecond")
    return moments.cast(pa.timestamp("us", tz=moments.type.tz), safe=False).cast(TIMESTAMP)


def _bounds(asked: pa.Table, ttl: timedelta | None) -> str:
    """Return the condition that leaves out feature rows which no spine row can see."""
    last = timestamp_literal(pc.max(asked.column("__moment")).as_py())
    condition = f"{EVENT} <= {last} AND {CREATED} <= {last}"
    if ttl is not None:
        oldest = timestamp_literal(pc.min(asked.column("__horizon")).as_py())
        condition += f" AND {EVENT} >= {oldest} - {interval_literal(ttl)}"
    return condition


def _joined(
    relation: str, names: Sequence[str], key: str, bounds: str, ttl: timedelta | None
) -> str:
    """Return the join for a spine of many moments.

    Questions stand among the feature rows of their key, in the order of time: the greatest rank up
    to there, rows of the very moment among them (RANGE), is the answer's. That is one sort of
    narrow rows; an ASOF join would want another one before it, for rows that are outdone.
    """
    horizon, no_horizon = (
        ("", "") if ttl is None else (", __horizon", ", NULL::TIMESTAMPTZ AS __horizon")
    )
    return f"""
        WITH rows_and_questions AS (
            SELECT {quote(key)} AS __key, greatest({EVENT}, {CREATED}) AS __at,
                {_RANK} AS __rank, NULL::BIGINT AS {_ROW}{no_horizon}
            FROM {relation}
            WHERE {bounds} AND {quote(key)} IN (SELECT __key FROM __spine)
            UNION ALL
            SELECT __key, __moment, NULL, {_ROW}{horizon}
            FROM __spine
        ), ranked AS (
            SELECT {_ROW}, __key{horizon}, max(__rank) OVER (
                PARTITION BY __key ORDER BY __at RANGE UNBOUNDED PRECEDING
            ) AS __best
            FROM rows_and_questions
        ), found AS (
            SELECT *
            FROM ranked
            WHERE {_ROW} IS NOT NULL
        )
        {_chosen(relation, names, key, bounds, ttl)}
    """


def _joined_at_once(
    relation: str, names: Sequence[str], key: str, bounds: str, ttl: timedelta | None
) -> str:
    """Return the join for a spine of one moment.

    `bounds` cut there already, so each key's newest row is its answer.
    """
    return f"""
        WITH newest AS (
            SELECT {quote(key)} AS __key, max({_RANK}) AS __best
            FROM {relation}
            WHERE {bounds} AND {quote(key)} IN (SELECT __key FROM __spine)
            GROUP BY ALL
        ), found AS (
            SELECT s.*, n.__best
            FROM __spine s
            LEFT JOIN newest n ON n.__key = s.__key
        )
        {_chosen(relation, names, key, bounds, ttl)}
    """


def _chosen(
    relation: str, names: Sequence[str], key: str, bounds: str, ttl: timedelta | None
) -> str:
    """Return the query of the columns of each row in `found`, by its key and `__best` rank."""
    chosen = "".join(f", f.{quote(name)}" for name in names)
    alive = "" if ttl is None else f"AND s.__horizon <= f.{EVENT} + {interval_literal(ttl)}"
    return f"""
        SELECT s.{_ROW}, f.{EVENT} AS {MATCHED}{chosen}
        FROM found s
        LEFT JOIN (SELECT *, {_RANK} AS __rank FROM {relation} WHERE {bounds}) f
            ON f.{quote(key)} = s.__key
            AND f.__rank = s.__best
            {alive}
        ORDER BY s.{_ROW}
    """


def _with_own(
    con: duckdb.DuckDBPyConnection, result: pa.Table, relation: str, names: Sequence[str], key: str
) -> pa.Table:
    """Put in the first version of a decision's own row, unless one of its moment was known.

    "Known" goes by the created time, as for any other row.
    """
    features = "".join(f", {quote(name)}" for name in names)
    chosen = "".join(
        f""",
            CASE WHEN o.__key IS NULL THEN r.{column} ELSE o.{column} END AS {column}"""
        for column in map(quote, names)
    )
    con.register("__found", result)
    answer = con.sql(f"""
        WITH own AS (
            SELECT {quote(key)} AS __key, {EVENT}{features}
            FROM {relation}
            WHERE {quote(key)} IN (SELECT __key FROM __spine)
                AND {EVENT} IN (SELECT __moment FROM __spine)
            QUALIFY rank() OVER (PARTITION BY {quote(key)}, {EVENT} ORDER BY {CREATED}) = 1
        )
        SELECT r.{_ROW},
            coalesce(o.{EVENT}, r.{MATCHED}) AS {MATCHED}{chosen}
        FROM __found r
        JOIN __spine s USING ({_ROW})
        LEFT JOIN own o
            ON o.__key = s.__key
            AND o.{EVENT} = s.__moment
            AND r.{MATCHED} IS DISTINCT FROM s.__moment
        ORDER BY r.{_ROW}
    """).to_arrow_table()
    con.unregister("__found")
    return answer


def _without_ties(
    con: duckdb.DuckDBPyConnection, result: pa.Table, names: Sequence[str]
) -> pa.Table:
    """Keep one of the feature rows that are equal in key and both times.

    It is the one with the greatest values, column by column, whatever order they are stored in.
    """
    greatest_first = ", ".join(f"{quote(name)} DESC NULLS LAST" for name in names)
    con.register("__ties", result)
    answer = con.sql(f"""
        SELECT *
        FROM __ties
        QUALIFY row_number() OVER (PARTITION BY {_ROW} ORDER BY {greatest_first}) = 1
        ORDER BY {_ROW}
    """).to_arrow_table()
    con.unregister("__ties")
    return answer


def _answer(result: pa.Table, names: Sequence[str], matched: bool) -> pa.Table:
    return result.select([*names, *([MATCHED] if matched else [])])
