"""When the rows of a read arrived, and so to which partition each belongs.

A row without a readable arrival takes that of the nearest earlier row of its file, else of the first later one; where there is
none, or no order (SQL), it belongs to the first partition of the source's history. A file of a `{partition}` path belongs to its
partition whole: its rows' arrivals are moved into the partition's interval, and validation says which ones were late.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from include import partitions
from include.contract import column_diff
from include.durations import format_duration
from include.errors import ConfigError, SourceError
from include.lake import PARTITION, TIMESTAMP, connect, digest, quote
from include.partitions import Period
from include.records import StageResult
from include.sources import ARRIVED, FILE, REDRIVEN, ROW, Delivery, headers
from include.times import utc
from include.usecase import UseCase
from include.usecase_sources import Source
from include.work import Work

MICRO = timedelta(microseconds=1)


class Arrivals:
    """The rows of one read in order of arrival; `rows` and `late` give those of a partition."""

    def __init__(self, name: str, use_case: UseCase, delivery: Delivery, periods: Sequence[Period], *, whole: bool) -> None:
        self.name, self.delivery, self._use_case, self._whole = name, delivery, use_case, whole
        self._source = use_case.sources[name]
        when = self._times(periods)
        order = np.argsort(when, kind="stable") if np.any(np.diff(when) < 0) else None
        self._when = when if order is None else when[order]
        self._rows = delivery.rows if order is None else delivery.rows.combine_chunks().take(pa.array(order))
        self._checksums: dict[tuple[int, int], str] = {}

    def rows(self, work: Work) -> pa.Table:
        """Return the rows that belong to a partition, with `arrived_at`; late ones of an assumed arrival are not among them."""
        if self._whole:
            return self._kept(self._own_files(work))
        own = self._between(_micros(work.period.arrival_start), _micros(work.as_of))
        if not self.delivery.files and own.num_columns > 1:
            own = own.set_column(own.column_names.index(ROW), ROW, pa.array(np.arange(1, len(own) + 1)))
        if self._source.assumed_lag is None or _recorded(work, self.name) is None:
            return own
        return self._kept(_minus(own, self._taken_late(work)))

    def late(self, work: Work) -> pa.Table:
        """Return the rows of an assumed arrival that belong to closed partitions and are not on record, arrived now."""
        none = self._rows.slice(0, 0).append_column(ARRIVED, pa.nulls(0, TIMESTAMP))
        if self._source.assumed_lag is None or self._whole or not self._rows.num_columns:
            return none
        start = _micros(work.period.arrival_start)
        table = work.table(f"raw/{self.name}")
        if (mine := _recorded(work, self.name)) is not None:
            if not mine.outputs["sources"][self.name].get("late"):
                return none
            return self._late_of(work.lake.read(table, keys=[work.key])).drop_columns([PARTITION])
        suspects = []
        for result in results(work, "ingestion"):
            fact = result.outputs.get("sources", {}).get(self.name, {})
            if result.state == "done" and result.key < work.key and fact.get("expected", True):
                closed = partitions.period(self._use_case, result.key)
                start_of, end_of = _micros(closed.arrival_start), _micros(closed.as_of)
                if fact.get("checksum") != self._checksum(start_of, end_of):
                    suspects.append((result.key, self._between(start_of, end_of)))
        if not suspects:
            return none
        offered = pa.concat_tables([rows for _, rows in suspects])
        on_record = work.lake.read(table, keys=[key for key, _ in suspects])
        left = _minus(_minus(offered, on_record), self._taken_late(work))
        at = pa.array(np.full(len(left), start)).cast(TIMESTAMP)
        return left.set_column(left.column_names.index(ARRIVED), ARRIVED, at)

    def headers(self, files: Sequence[str]) -> list[dict[str, Any]]:
        """Return the distinct headers of some files, each with up to three of the files that have it."""
        found: dict[tuple[str, ...], list[str]] = {}
        for file in files:
            found.setdefault(self.delivery.headers.get(file, ()), []).append(file)
        return [{"columns": list(header), "files": names[:3], "count": len(names)} for header, names in sorted(found.items())]

    def _checksum(self, start: int, end: int) -> str:
        """Return the checksum of an interval's rows, computed once: a range asks for each interval again and again."""
        if (start, end) not in self._checksums:
            self._checksums[start, end] = checksum(self._between(start, end))
        return self._checksums[start, end]

    def _between(self, start: int, end: int) -> pa.Table:
        low, high = np.searchsorted(self._when, [start, end])
        at = pa.array(self._when[low:high]).cast(TIMESTAMP)
        return self._kept(self._rows.slice(low, high - low).append_column(ARRIVED, at))

    def _kept(self, rows: pa.Table) -> pa.Table:
        """Leave out columns that only other partitions' rows have: one that appears later changes no closed partition."""
        if not len(rows):
            return rows.select([name for name in rows.column_names if name in (FILE, ROW, ARRIVED)])
        wanted = headers(self._source)
        files = rows.column(FILE).unique().to_pylist()
        there = {wanted[header] for file in files for header in self.delivery.headers.get(file, ()) if header in wanted}
        there |= {FILE, ROW, ARRIVED}
        return rows.select([name for name in rows.column_names if name in there or rows.column(name).null_count < len(rows)])

    def _own_files(self, work: Work) -> pa.Table:
        """Return all rows of the partition's own files, arrived within it."""
        start, end = _micros(work.period.arrival_start), _micros(work.as_of)
        if self._source.assumed_lag is None:
            at = np.clip(self._when, start, end - 1)
        else:
            early = int(np.searchsorted(self._when, start))
            if early and self._source.late != "next":
                sample = self._rows.slice(0, 1).to_pylist()[0]
                raise SourceError(
                    f"{sample[FILE]}, row {sample[ROW]}: {early} rows happened so early that, arriving "
                    f"{format_duration(self._source.assumed_lag)} later, they belong to partitions before {work.key}. "
                    f"Move them, or write late: next under sources.{self.name} to take them as they come"
                )
            at = np.maximum(self._when, start)
        return self._rows.append_column(ARRIVED, pa.array(at).cast(TIMESTAMP))

    def _taken_late(self, work: Work) -> pa.Table:
        """Return the late rows that other partitions have taken."""
        keys = [
            result.key
            for result in results(work, "ingestion")
            if result.key != work.key and result.outputs.get("sources", {}).get(self.name, {}).get("late")
        ]
        kept = work.lake.read(work.table(f"raw/{self.name}"), keys=keys) if keys else self._rows.slice(0, 0)
        return self._late_of(kept) if keys else kept

    def _late_of(self, kept: pa.Table) -> pa.Table:
        """Return those of some recorded rows whose event puts them before the partition that they are in; no redriven ones."""
        lag = self._source.assumed_lag
        if lag is None:
            return kept.slice(0, 0)
        with connect() as con:
            con.register("kept", kept)
            moment = utc(f"trim({quote(self._source.event_time)})", self._source)
            late = f"{moment} + INTERVAL {lag // MICRO} MICROSECOND < {ARRIVED} AND NOT starts_with({FILE}, '{REDRIVEN}')"
            return con.sql(f"SELECT * FROM kept WHERE {late}").to_arrow_table()

    def _times(self, periods: Sequence[Period]) -> Any:
        """Return each row's arrival in microseconds."""
        source, rows = self._source, self.delivery.rows
        if not rows.num_columns:
            return np.zeros(0, dtype=np.int64)
        name = source.event_time if source.assumed_lag is not None else source.arrival
        if name not in rows.column_names:
            raise SourceError(_without(self.name, source, self.delivery, name))
        lag = (source.assumed_lag // MICRO) if source.assumed_lag is not None else 0
        with connect() as con:
            con.register("delivered", rows)
            try:
                moment = f"epoch_us({utc(f'trim({quote(name)})', source)}) + {lag}"
                found = con.sql(f"SELECT {moment} AS moment FROM delivered").to_arrow_table()
            except duckdb.Error as error:
                raise ConfigError(f"{self._use_case.name}, source {self.name}: {str(error).splitlines()[0]}") from None
            if found.column("moment").null_count:
                found = self._filled(con, found, periods)
        return found.column("moment").combine_chunks().to_numpy(zero_copy_only=False).astype(np.int64)

    def _filled(self, con: duckdb.DuckDBPyConnection, found: pa.Table, periods: Sequence[Period]) -> pa.Table:
        first = (self._source.history or self._use_case.history).first.isoformat()
        fallback = _micros((periods[0] if self._whole else partitions.period(self._use_case, first)).arrival_start)
        if not self.delivery.ordered:
            con.register("found", found)
            return con.sql(f"SELECT coalesce(moment, {fallback}) AS moment FROM found").to_arrow_table()
        place = pa.array(np.arange(len(found)))
        found = found.append_column("file", self.delivery.rows.column(FILE)).append_column("row", self.delivery.rows.column(ROW))
        con.register("found", found.append_column("place", place))
        return con.sql(
            "SELECT coalesce(moment, last_value(moment IGNORE NULLS) OVER earlier, first_value(moment IGNORE NULLS) OVER later, "
            f"{fallback}) AS moment FROM found WINDOW "
            "earlier AS (PARTITION BY file ORDER BY row, place ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW), "
            "later AS (PARTITION BY file ORDER BY row, place ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) ORDER BY place"
        ).to_arrow_table()


def results(work: Work, stage: str) -> list[StageResult]:
    """Return what is recorded of a stage for all partitions."""
    if work.known is not None:
        return [result for (name, _), result in work.known.items() if name == stage]
    return work.records.results(work.use_case.name, stage=stage)


def checksum(rows: pa.Table) -> str:
    """Return a quick checksum of rows, whatever their order; unequal ones are compared exactly."""
    body = rows.drop_columns([name for name in (FILE, ROW, ARRIVED) if name in rows.column_names])
    if not len(body):
        return "0"
    with connect() as con:
        con.register("body", body)
        listed = ", ".join(quote(name) for name in sorted(body.column_names))
        return str(con.sql(f"SELECT count(*) || ':' || coalesce(sum(hash({listed})), 0) FROM body").fetchall()[0][0])


def content_digest(rows: pa.Table, source: Source) -> str:
    """Return the digest of raw rows: the source's columns and the arrival, not the file or its row number."""
    body = rows.drop_columns([name for name in (FILE, ROW) if name in rows.column_names])
    return digest(body, sort_by=[name for name in source.key if name in body.column_names])


def _recorded(work: Work, name: str) -> StageResult | None:
    result = work.result("ingestion")
    return result if result is not None and result.state == "done" and name in result.outputs.get("sources", {}) else None


def _minus(rows: pa.Table, other: pa.Table) -> pa.Table:
    """Return the rows that are left when each row of `other` has taken an equal one (by the source's columns) away."""
    if not len(other) or not len(rows):
        return rows
    names = [name for name in rows.column_names if name not in (FILE, ROW, ARRIVED)]
    listed = ", ".join(quote(name) for name in names)
    theirs = ", ".join(quote(name) if name in other.column_names else f"NULL AS {quote(name)}" for name in names)
    place = pa.array(np.arange(len(rows)))
    with connect() as con:
        con.register("mine", rows.select(names).append_column("__place", place))
        con.register("theirs", other)
        left = con.sql(
            f"WITH m AS (SELECT *, row_number() OVER (PARTITION BY {listed} ORDER BY __place) AS __copy FROM mine) "
            "SELECT m.__place FROM m "
            f"LEFT JOIN (SELECT {theirs}, count(*) AS __taken FROM theirs GROUP BY ALL) AS t "
            f"ON {' AND '.join(f'm.{quote(name)} IS NOT DISTINCT FROM t.{quote(name)}' for name in names)} "
            "WHERE m.__copy > coalesce(t.__taken, 0) ORDER BY m.__place"
        ).to_arrow_table()
    return rows.take(left.column(0))


def _without(name: str, source: Source, delivery: Delivery, column: str) -> str:
    seen = [{"columns": list(header), "files": [file]} for file, header in delivery.headers.items()]
    header = {value: key for key, value in headers(source).items()}.get(column, column)
    return (
        f"source {name}: column {header!r} says when a row arrives, and is not there "
        f"({column_diff(source, seen).text(source)}). Deliver it, or correct arrival and event_time in the use case"
    )


def _micros(moment: datetime) -> int:
    return int(np.datetime64(moment.replace(tzinfo=None), "us").astype(np.int64))
