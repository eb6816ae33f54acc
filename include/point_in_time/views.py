"""What was known at a moment: curated sources as DuckDB views, cut at `as_of` in both times.

Curated rows carry `event_timestamp` and `created_timestamp`; a correction is a further row of the
same key. `AsOfViews` loads what a query needs once and then shows it, partition after partition, as
it was known before each `as_of`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType

import duckdb
import pyarrow as pa

from include.config.use_case import UseCase
from include.errors import ConfigError
from include.lake.sql import quote
from include.lake.tables import Lake
from include.point_in_time.curated import CREATED, EVENT, curated_schema, curated_table, record_key
from include.point_in_time.partitions import Period

_SEALED = (
    "threads = 1",
    "enable_external_access = false",
    "python_enable_replacements = false",
    "lock_configuration = true",
)


def literal(moment: datetime) -> str:
    """Return a moment as a DuckDB literal of type TIMESTAMPTZ."""
    return f"TIMESTAMPTZ '{moment.astimezone(UTC).isoformat(sep=' ')}'"


class AsOfViews:
    """The curated sources of a use case in a DuckDB connection of their own, as known at one
    `as_of` after another.

    `keys` are the lake partitions to load, `versions` those of static sources (one that it does not
    name is loaded whole, with every version that it ever had); `more` holds curated rows that are
    not in the lake. `columns` narrows what is loaded of a source. After loading, the connection
    reaches no file and no network, and works on one thread: sums of floating point numbers then do
    not depend on how rows were dealt out to threads.
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
    ) -> None:
        self._con, self._use_case = con, use_case
        self._versions = versions or {}
        self._types: dict[str, dict[str, str]] = {}
        self._sources = list(use_case.sources) if sources is None else list(sources)
        for name in self._sources:
            self._load(lake, name, keys, (columns or {}).get(name), (more or {}).get(name))
        for setting in _SEALED:
            con.execute(f"SET {setting}")

    def __enter__(self) -> AsOfViews:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._con.close()

    def at(self, period: Period, lookback: timedelta) -> None:
        """Show every source as known before the period's `as_of`, with events of the last
        `lookback` only.
        """
        self.at_moment(
            period.as_of, interval_start=period.arrival_start, since=period.as_of - lookback
        )

    def at_moment(self, as_of: datetime, *, interval_start: datetime, since: datetime) -> None:
        """Show every source as known before `as_of`, with events from `since` on; static ones in
        their newest known version.
        """
        now = literal(as_of)
        self._con.execute(f"SET VARIABLE as_of = {now}")
        self._con.execute(f"SET VARIABLE interval_start = {literal(interval_start)}")
        for name in self._sources:
            known = f"{EVENT} < {now} AND {CREATED} < {now}"
            if self._use_case.sources[name].kind == "static":
                known += (
                    f" AND {CREATED} = (SELECT max({CREATED}) FROM {_stored(name)} WHERE "
                    f"{CREATED} < {now})"
                )
            else:
                known += (
                    f" AND (__next_created IS NULL OR __next_created >= {now}) AND {EVENT} "
                    f">= {literal(since)}"
                )
            self._con.execute(
                f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS SELECT * EXCLUDE (__next_created) "
                f"FROM {_stored(name)} WHERE {known}"
            )

    def query(self, sql: str) -> pa.Table:
        """Return the rows of one SELECT over the views.

        Raises: ConfigError: DuckDB refuses the query; the message is DuckDB's, with the tables
            there are.
        """
        try:
            return self._con.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            # Its place is that in a query around this one.
            told = str(error).split("\n\nLINE ", maxsplit=1)[0]
            raise ConfigError(
                f"{self._use_case.name}: the query fails: {told}\n(tables: "
                f"{', '.join(self._sources)})"
            ) from None

    def types(self, sql: str) -> dict[str, str]:
        """Return the columns that one SELECT gives, with DuckDB's types; the views must be shown
        (`at`) before.
        """
        if sql not in self._types:
            found = self.query(f"DESCRIBE SELECT * FROM (\n{sql}\n)")
            self._types[sql] = dict(
                zip(
                    *(found.column(name).to_pylist() for name in ("column_name", "column_type")),
                    strict=True,
                )
            )
        return self._types[sql]

    def _load(
        self,
        lake: Lake,
        name: str,
        keys: Sequence[str],
        columns: Sequence[str] | None,
        more: pa.Table | None,
    ) -> None:
        source = self._use_case.sources[name]
        schema, key = curated_schema(source), record_key(source)
        wanted = [
            column
            for column in schema.names
            if columns is None or column in columns or column in (EVENT, CREATED)
        ]
        loaded = [*wanted, *(column for column in key if column not in wanted)]
        table, rows = curated_table(lake, self._use_case, name), f"__curated_{name}"
        static = source.kind == "static"
        known = self._versions.get(name)
        lake.scan(
            self._con,
            rows,
            table,
            keys=keys if not static else None if known is None else sorted(known),
            schema=schema,
        )
        body = f"SELECT {', '.join(map(quote, loaded))} FROM {quote(rows)}"
        if more is not None and len(more):
            self._con.register(f"__more_{name}", more)
            body += (
                f" UNION ALL SELECT {', '.join(map(quote, loaded))} FROM {quote(f'__more_{name}')}"
            )
        order = ", ".join([CREATED, *(quote(column) for column in loaded if column != CREATED)])
        later = (
            "CAST(NULL AS TIMESTAMPTZ)"
            if static
            else f"lead({CREATED}) OVER (PARTITION BY {', '.join(map(quote, key))} ORDER BY "
            f"{order})"
        )
        self._con.execute(
            f"CREATE OR REPLACE TEMP TABLE {_stored(name)} AS SELECT "
            f"{', '.join(map(quote, wanted))}, {later} AS __next_created FROM ({body}) ORDER BY "
            f"{EVENT}, {order}"
        )
        if more is not None and len(more):
            self._con.unregister(f"__more_{name}")


def _stored(name: str) -> str:
    return quote(f"__known_{name}")
