"""When the rows of a read arrived, and so to which partition each belongs.

A row without a readable arrival takes that of the nearest earlier row of its file, else of the
first later one; where there is none, or no order (SQL), it belongs to the first partition of the
source's history (of its file, where partitions have files).

Where partitions have files of their own (`{partition}`), a row of a file belongs to the partition
of its arrival, if that is the file's own or one that reads this file too (`reach`). What arrived
before the file's partition belongs to it all the same: nobody could see it before the file was
there. What arrives later than any reader of the file belongs to it too, and validation sets it
aside as not known yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from include.config.durations import format_duration
from include.config.use_case import UseCase
from include.config.use_case_sources import Source
from include.errors import ConfigError, SourceError
from include.ingestion.columns import ARRIVED, FILE, ROW, column_diff, headers
from include.ingestion.files import partitioned
from include.ingestion.sources import Delivery
from include.ingestion.values import moment
from include.lake.digests import digest
from include.lake.sql import TIMESTAMP, connect, quote
from include.pipeline.stage import StageContext
from include.point_in_time import partitions
from include.point_in_time.partitions import Period
from include.records.records import StageResult

MICRO = timedelta(microseconds=1)
# Tells, until rows are compared, which of them have no readable arrival of their own.
GUESSED = "__guessed"


class Arrivals:
    """The rows of one read in order of arrival; `owner` is the partition whose own files were
    read, if it has such.
    """

    def __init__(
        self, name: str, use_case: UseCase, delivery: Delivery, owner: Period | None = None
    ) -> None:
        self.name, self.delivery, self.owner, self._use_case = name, delivery, owner, use_case
        self._source = use_case.sources[name]
        self.early = 0
        when, self._guessed = self._times()
        if owner is not None:
            when = self._placed(when, owner)
        order = np.argsort(when, kind="stable") if np.any(np.diff(when) < 0) else None
        self._when = when if order is None else when[order]
        self._guessed = self._guessed if order is None else self._guessed[order]
        self._rows = (
            delivery.rows if order is None else delivery.rows.combine_chunks().take(pa.array(order))
        )
        self._checksums: dict[tuple[int, int], str] = {}

    def between(self, start: datetime, end: datetime, *, guessed: bool = False) -> pa.Table:
        """Return the rows that arrived in an interval, with `arrived_at`, and which arrivals
        were guessed if that is asked.
        """
        low, high = (
            int(place) for place in np.searchsorted(self._when, [_micros(start), _micros(end)])
        )
        at = pa.array(self._when[low:high]).cast(TIMESTAMP)
        rows = self._kept(self._rows.slice(low, high - low).append_column(ARRIVED, at))
        # rows of no file are counted in their partition.
        if not self.delivery.files and not guessed and rows.num_columns > 1:
            rows = rows.set_column(
                rows.column_names.index(ROW), ROW, pa.array(np.arange(1, len(rows) + 1))
            )
        return rows.append_column(GUESSED, pa.array(self._guessed[low:high])) if guessed else rows

    def checksum(self, start: datetime, end: datetime) -> str:
        """Return the checksum of an interval's rows, computed once: a range asks for each
        interval again and again.
        """
        place = _micros(start), _micros(end)
        if place not in self._checksums:
            self._checksums[place] = checksum(self.between(start, end))
        return self._checksums[place]

    def headers(self, files: Sequence[str]) -> list[dict[str, Any]]:
        """Return the distinct headers of some files, each with up to three of the files that
        have it.
        """
        found: dict[tuple[str, ...], list[str]] = {}
        for file in files:
            if file in self.delivery.headers or file in self.delivery.digests:
                found.setdefault(self.delivery.headers.get(file, ()), []).append(file)
        return [
            {"columns": list(header), "files": names[:3], "count": len(names)}
            for header, names in sorted(found.items())
        ]

    def _placed(self, when: Any, owner: Period) -> Any:
        """Move what no partition would take from the owner's files into the owner's interval."""
        start, end, last = (
            _micros(owner.arrival_start),
            _micros(owner.as_of),
            _micros(_limit(self._use_case, self.name, owner)),
        )
        early = when < start
        self.early = int(early.sum())
        lag = self._source.assumed_lag
        if lag is not None and not self._source.takes_late and np.any(early & ~self._guessed):
            sample = self.delivery.rows.slice(
                int(np.argmax(early & ~self._guessed)), 1
            ).to_pylist()[0]
            raise SourceError(
                f"{sample[FILE]}, row {sample[ROW]}: {self.early} rows happened so early that, "
                f"arriving {format_duration(lag)} later, they belong to partitions before "
                f"{owner.key}. Move them, or write late: next under sources.{self.name} to take "
                "them as they come"
            )
        return np.where(when >= last, end - 1, np.maximum(when, start))

    def _kept(self, rows: pa.Table) -> pa.Table:
        """Leave out columns that only other partitions' rows have: one that appears later
        changes no closed partition.
        """
        if not len(rows):
            return rows.select([name for name in rows.column_names if name in (FILE, ROW, ARRIVED)])
        wanted = headers(self._source)
        files = rows.column(FILE).unique().to_pylist()
        there = {
            wanted[header]
            for file in files
            for header in self.delivery.headers.get(file, ())
            if header in wanted
        }
        there |= {FILE, ROW, ARRIVED}
        return rows.select(
            [
                name
                for name in rows.column_names
                if name in there or rows.column(name).null_count < len(rows)
            ]
        )

    def _times(self) -> tuple[Any, Any]:
        """Return each row's arrival in microseconds, and whether it was guessed."""
        source, rows = self._source, self.delivery.rows
        if not rows.num_columns:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool)
        name = source.event_time if source.assumed_lag is not None else source.arrival
        if name not in rows.column_names:
            raise SourceError(_without(self.name, source, self.delivery, name))
        lag = (source.assumed_lag // MICRO) if source.assumed_lag is not None else 0
        with connect() as con:
            con.register("delivered", rows)
            try:
                micros = f"epoch_us({moment(name, source)}) + {lag}"
                found = con.sql(f"SELECT {micros} AS moment FROM delivered").to_arrow_table()
            except duckdb.Error as error:
                raise ConfigError(
                    f"{self._use_case.name}, source {self.name}: {str(error).splitlines()[0]}"
                ) from None
            guessed = np.asarray(found.column("moment").is_null())
            if guessed.any():
                found = self._filled(con, found)
        return found.column("moment").combine_chunks().to_numpy(zero_copy_only=False).astype(
            np.int64
        ), guessed

    def _filled(self, con: duckdb.DuckDBPyConnection, found: pa.Table) -> pa.Table:
        first = partitions.period(
            self._use_case, (self._source.history or self._use_case.history).first.isoformat()
        )
        fallback = _micros((self.owner or first).arrival_start)
        if not self.delivery.ordered:
            con.register("found", found)
            return con.sql(
                f"SELECT coalesce(moment, {fallback}) AS moment FROM found"
            ).to_arrow_table()
        place = pa.array(np.arange(len(found)))
        found = found.append_column("file", self.delivery.rows.column(FILE)).append_column(
            "row", self.delivery.rows.column(ROW)
        )
        con.register("found", found.append_column("place", place))
        return con.sql(
            "SELECT coalesce(moment, last_value(moment IGNORE NULLS) OVER earlier, "
            f"first_value(moment IGNORE NULLS) OVER later, {fallback}) AS moment FROM found "
            "WINDOW earlier AS (PARTITION BY file ORDER BY row, place ROWS BETWEEN UNBOUNDED "
            "PRECEDING AND CURRENT ROW), later AS (PARTITION BY file ORDER BY row, place ROWS "
            "BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) ORDER BY place"
        ).to_arrow_table()


def reach(use_case: UseCase, name: str, key: str) -> list[str]:
    """Return the partitions whose own files a partition reads, itself among them, oldest first."""
    history, here, found = use_case.sources[name].history, partitions.period(use_case, key), [key]
    while (before := partitions.earlier(use_case, found[0])) is not None and partitions.within(
        history, before
    ):
        if _limit(use_case, name, partitions.period(use_case, before)) <= here.arrival_start:
            break
        found.insert(0, before)
    return found if partitioned(use_case.sources[name]) else [key]


def _limit(use_case: UseCase, name: str, owner: Period) -> datetime:
    """Return the moment from which on what arrives by a partition's own files is read by nobody
    any more.
    """
    source = use_case.sources[name]
    spill = source.assumed_lag if source.assumed_lag is not None else source.spill
    return owner.as_of + spill if spill is not None else partitions.following(use_case, owner).as_of


def is_newest(context: StageContext) -> bool:
    """Tell whether this is the run that takes what is late or new: of the newest complete
    partition, not recorded yet.
    """
    recorded = context.result("ingest_data")
    closed = recorded is not None and recorded.state == "done"
    return (
        not closed and partitions.newest_complete(context.use_case, context.started) == context.key
    )


def results(context: StageContext, stage: str) -> list[StageResult]:
    """Return what is recorded of a stage for all partitions."""
    if context.preloaded is not None:
        return [result for (name, _), result in context.preloaded.items() if name == stage]
    return context.records.results.of(context.use_case.name, stage=stage)


def checksum(rows: pa.Table) -> str:
    """Return a quick checksum of rows, whatever their order; unequal ones are compared exactly."""
    body = rows.drop_columns([name for name in (FILE, ROW, ARRIVED) if name in rows.column_names])
    if not len(body):
        return "0"
    with connect() as con:
        con.register("body", body)
        listed = ", ".join(quote(name) for name in sorted(body.column_names))
        return str(
            con.sql(
                f"SELECT count(*) || ':' || coalesce(sum(hash({listed})), 0) FROM body"
            ).fetchall()[0][0]
        )


def content_digest(rows: pa.Table, source: Source) -> str:
    """Return the digest of raw rows: the source's columns and the arrival, not the file or its
    row number.
    """
    body = rows.drop_columns([name for name in (FILE, ROW) if name in rows.column_names])
    return digest(body, sort_by=[name for name in source.key if name in body.column_names])


def joined(parts: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of some tables as one; a column that one of them lacks is null there."""
    filled = [part for part in parts if len(part)] or parts[:1]
    return filled[0] if len(filled) == 1 else pa.concat_tables(filled, promote_options="default")


def _without(name: str, source: Source, delivery: Delivery, column: str) -> str:
    seen = [{"columns": list(header), "files": [file]} for file, header in delivery.headers.items()]
    header = {value: key for key, value in headers(source).items()}.get(column, column)
    return (
        f"source {name}: column {header!r} says when a row arrives, and is not there "
        f"({column_diff(source, seen).text(source)}). Deliver it, or correct arrival and "
        "event_time in the use case"
    )


def _micros(moment: datetime) -> int:
    return int(np.datetime64(moment.replace(tzinfo=None), "us").astype(np.int64))
