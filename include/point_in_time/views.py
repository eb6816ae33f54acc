"""What was known at a moment: curated sources as DuckDB views, cut at `as_of` in both times.

Curated rows carry `event_timestamp` and `created_timestamp`; a correction is a further row of the
same key. `AsOfViews` loads what a query needs once and then shows it, partition after partition, as
it was known before each `as_of`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from datetime import datetime, timedelta
from queue import SimpleQueue
from types import TracebackType
from typing import TypeVar

import duckdb
import pyarrow as pa
from sqlglot import exp

from include.config.use_case import UseCase
from include.errors import ConfigError
from include.lake.sql import quote
from include.lake.tables import Lake
from include.point_in_time.curated import CREATED, EVENT, curated_schema, curated_table, record_key
from include.point_in_time.partitions import Period
from include.point_in_time.sql_groups import Groups
from include.point_in_time.sql_parts import column, table, timestamp_literal, to_sql

Item = TypeVar("Item")
Answer = TypeVar("Answer")

MOST_LANES = 4  # each holds what its query needs, so more need more memory
# Settings of the connection once the rows are loaded; the last one forbids to change them again.
_SEALED = (
    "threads = 1",
    "enable_external_access = false",
    "python_enable_replacements = false",
    "lock_configuration = true",
)
# When the next version of a record was created: a row is known until then. Null: still.
_NEXT = "__next_created"


class AsOfViews:
    """The curated sources of a use case in DuckDB, as known at one `as_of` after another.

    `keys` are the lake partitions to load, `versions` those of static sources (one that it does not
    name is loaded whole, with every version that it ever had); `more` holds curated rows that are
    not in the lake. `columns` narrows what is loaded of a source. The connection is taken over: it
    is closed at the end, and after loading it reaches no file and no network, and works on one
    thread: sums of floating point numbers then do not depend on how rows were dealt out to threads.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        lake: Lake,
        use_case: UseCase,
        *,
        keys: Sequence[str],
        sources: Sequence[str] | None = None,
        columns: Mapping[str, Sequence[str]] | None = None,
        more: Mapping[str, pa.Table] | None = None,
        versions: Mapping[str, Collection[str]] | None = None,
        lanes: int = 1,
    ) -> None:
        self._con, self._use_case = con, use_case
        self._beside: list[AsOfViews] = []
        self._versions = versions or {}
        self._types: dict[str, dict[str, str]] = {}  # by query
        self._moments: dict[str, datetime] = {}  # what this lane shows
        self._sources = list(use_case.sources) if sources is None else list(sources)
        for name in self._sources:
            self._load(lake, name, keys, (columns or {}).get(name), (more or {}).get(name))
            con.execute(f"CREATE VIEW {quote(name)} AS {to_sql(self._known_rows(name))}")
        # Made before the settings are locked: one of them is a connection's own.
        cursors = [con.cursor() for _ in range(lanes - 1)]
        for setting in _SEALED:
            for each in (con, *cursors) if setting != _SEALED[-1] else (con,):
                each.execute(f"SET {setting}")
        for each in cursors:
            lane = copy(self)
            lane._con = each
            self._beside.append(lane)

    def __enter__(self) -> AsOfViews:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for lane in self._beside:
            lane._con.close()
        self._con.close()

    @property
    def lanes(self) -> list[AsOfViews]:
        """These views, and those beside them: each shows a moment of its own, to a thread."""
        return [self, *self._beside]

    def at(self, period: Period, lookback: timedelta) -> None:
        """Show every source as known before the period's `as_of`, with events of the lookback."""
        self.at_moment(
            period.as_of, interval_start=period.arrival_start, since=period.as_of - lookback
        )

    def at_moment(self, as_of: datetime, *, interval_start: datetime, since: datetime) -> None:
        """Show every source as known before `as_of`, with events from `since` on.

        Static sources are shown whole, in their newest known version.
        """
        moments = {"as_of": as_of, "interval_start": interval_start, "__since": since}
        # A statement takes as long as to look at a thousand rows, and most moments stay.
        for name, moment in moments.items() - self._moments.items():
            self._con.execute(f"SET VARIABLE {name} = {timestamp_literal(moment)}")
        self._moments = moments

    def query(self, sql: str) -> pa.Table:
        """Return the rows of one SELECT over the views.

        Raises:
            ConfigError: DuckDB refuses the query; the message is DuckDB's, with the tables there
                are.
        """
        return self._run(lambda: self._con.sql(sql).to_arrow_table())

    def _run(self, ask: Callable[[], Answer]) -> Answer:
        try:
            return ask()
        except duckdb.Error as error:
            # The line that DuckDB points to is one of the query that ours may have been put into.
            message = str(error).split("\n\nLINE ", maxsplit=1)[0]
            raise ConfigError(
                f"{self._use_case.name}: the query fails: {message}\n(tables: "
                f"{', '.join(self._sources)})"
            ) from None

    def keep(self, name: str, sql: str) -> None:
        """Keep the rows of one SELECT as a table, which the next queries of this lane may read.

        It replaces what was kept under the name.

        Raises:
            ConfigError: as `query` does.
        """
        self._run(lambda: self._con.execute(f"CREATE OR REPLACE TEMP TABLE {quote(name)} AS {sql}"))

    def keep_changed(self, name: str, groups: Groups) -> str:
        """Keep the rows of the groups that may answer otherwise now than at `interval_start`.

        Those are the groups of which a row became known, or outdated, since then, or of which a
        comparison comes out otherwise. Returns a WITH that shows these rows, and as little as is
        known, in the place of the source; it replaces what was kept under the name.
        """
        stored, start = (
            _stored(groups.source).sql(dialect="duckdb"),
            "getvariable('interval_start')",
        )
        known = (
            f"{EVENT} >= getvariable('__since') AND {EVENT} < getvariable('as_of') AND {CREATED} < "
            f"getvariable('as_of') AND ({_NEXT} IS NULL OR {_NEXT} >= {start})"
        )
        # TRY: the query may keep rows from a comparison that fails for them, say by CASE. For whom
        # it fails at both moments it says nothing at either.
        changed = " OR ".join(
            [
                f"{EVENT} >= {start} OR {CREATED} >= {start} OR {_NEXT} < getvariable('as_of')",
                *(
                    f"TRY({now}) IS DISTINCT FROM TRY({before})"
                    for now, before in groups.comparisons
                ),
            ]
        )
        by = ", ".join(map(quote, groups.by))
        same = " AND ".join(
            f"rows.{quote(each)} IS NOT DISTINCT FROM changed.{quote(each)}" for each in groups.by
        )
        # In the order of the source, whatever the join does: the sum of some numbers depends on it.
        read = ", ".join(
            map(quote, dict.fromkeys([*groups.reads, *groups.by, EVENT, CREATED, _NEXT]))
        )
        self.keep(
            name,
            f"WITH changed AS MATERIALIZED (SELECT DISTINCT {by} FROM {stored} WHERE {known} AND "
            f"({changed})) SELECT rows.* FROM (SELECT {read}, rowid AS __row FROM {stored} WHERE "
            f"{known}) AS rows SEMI JOIN changed ON {same} ORDER BY __row",
        )
        shown = self._known_rows(groups.source, table(name), "__row")
        return f"WITH {quote(groups.source)} AS ({to_sql(shown)}) "

    def types(self, sql: str) -> dict[str, str]:
        """Return the columns that one SELECT gives, with DuckDB's types.

        The views must be shown (`at`) before: the type of a variable is that of its value.
        """
        if sql not in self._types:
            described = self.query(f"DESCRIBE SELECT * FROM (\n{sql}\n)")
            names, types = (
                described.column(name).to_pylist() for name in ("column_name", "column_type")
            )
            self._types[sql] = dict(zip(names, types, strict=True))
        return self._types[sql]

    def _load(
        self,
        lake: Lake,
        name: str,
        keys: Sequence[str],
        columns: Sequence[str] | None,
        more: pa.Table | None,
    ) -> None:
        """Load a source's rows into a table, each with the time at which it was outdated."""
        source = self._use_case.sources[name]
        schema, key = curated_schema(source), record_key(source)
        static = source.kind == "static"
        shown = [
            each
            for each in schema.names
            if columns is None or each in columns or each in (EVENT, CREATED)
        ]
        loaded = [*shown, *(each for each in key if each not in shown)]
        # A static source's partitions are its versions; None loads all of them.
        versions = self._versions.get(name)
        static_keys = None if versions is None else sorted(versions)
        in_lake, beside = f"__curated_{name}", f"__more_{name}"
        lake.scan(
            self._con,
            in_lake,
            curated_table(lake, self._use_case, name),
            keys=static_keys if static else keys,
            schema=schema,
        )
        selected = [column(each) for each in loaded]
        rows: exp.Query = exp.select(*selected).from_(table(in_lake))
        has_more = more is not None and len(more) > 0
        if has_more:
            self._con.register(beside, more)
            rows = rows.union(exp.select(*selected).from_(table(beside)), distinct=False)
        # Versions of a record in order of creation; the other columns decide between versions of
        # one moment, so that the same one is the last whatever order the rows are stored in.
        order = [column(CREATED), *(each for each in selected if each.name != CREATED)]
        next_created: exp.Expression = exp.cast(exp.null(), exp.DataType.Type.TIMESTAMPTZ)
        if not static:
            next_created = exp.Window(
                this=exp.Lead(this=column(CREATED)),
                partition_by=[column(each) for each in key],
                order=exp.Order(expressions=order),
            )
        stored = (
            exp.select(*(column(each) for each in shown), next_created.as_(_NEXT))
            .from_(rows.subquery())
            .order_by(column(EVENT), *order)
        )
        self._con.execute(f"CREATE TABLE {to_sql(_stored(name))} AS {to_sql(stored)}")
        if has_more:
            self._con.unregister(beside)

    def _known_rows(self, name: str, stored: exp.Table | None = None, *without: str) -> exp.Select:
        """Return the query of a source's rows that are known, in terms of the variables.

        They are those that are `stored` in another table, with further columns `without` which they
        are shown.

        The variables keep the view as it is from one `as_of` to the next; DuckDB puts their values
        in as constants when it plans a query.
        """
        as_of, created = _variable("as_of"), column(CREATED)
        rows = (
            exp.select(exp.Star(except_=[exp.to_identifier(each) for each in (_NEXT, *without)]))
            .from_(stored or _stored(name))
            .where(column(EVENT) < as_of, created < as_of)
        )
        if self._use_case.sources[name].kind == "static":
            newest = exp.select(exp.Max(this=created)).from_(_stored(name)).where(created < as_of)
            return rows.where(created.eq(newest.subquery()))
        outdated = column(_NEXT)
        return rows.where(
            outdated.is_(exp.null()).or_(outdated >= as_of), column(EVENT) >= _variable("__since")
        )


def ask_in_lanes(
    views: AsOfViews, items: Sequence[Item], ask: Callable[[AsOfViews, Item], Answer]
) -> Iterator[Answer]:
    """Yield the answer for each item, in their order; as many are asked at a time as lanes there
    are.

    An error comes in its item's place. One more than the lanes is asked ahead of what is taken: an
    answer may be large.
    """
    lanes = views.lanes
    if len(lanes) == 1:
        yield from (ask(views, item) for item in items)
        return
    free: SimpleQueue[AsOfViews] = SimpleQueue()
    for lane in lanes:
        free.put(lane)

    def work(item: Item) -> Answer:
        lane = free.get()
        try:
            return ask(lane, item)
        finally:
            free.put(lane)

    pool = ThreadPoolExecutor(len(lanes), thread_name_prefix="as-of")
    try:
        asked: deque[Future[Answer]] = deque()
        for item in items:
            asked.append(pool.submit(work, item))
            if len(asked) > len(lanes):
                yield asked.popleft().result()
        while asked:
            yield asked.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def lanes_for(items: int) -> int:
    """Return how many partitions to ask at a time: one a processor that this process may use."""
    return max(1, min(items, len(os.sched_getaffinity(0)), MOST_LANES))


def _stored(name: str) -> exp.Table:
    """Return the table that holds all versions of a source's rows."""
    return table(f"__known_{name}")


def _variable(name: str) -> exp.Func:
    return exp.func("getvariable", exp.Literal.string(name))
