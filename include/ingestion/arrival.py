"""The rows of a read by the partition to which they belong: that of their arrival.

Where there is no arrival to read or to guess (`arrival_times`), a row belongs to the first
partition of the source's history (of its file, where partitions have files).

Where partitions have files of their own (`{partition}`), a row of a file belongs to the partition
of its arrival, if that is the file's own or one that reads this file too (`readable_partitions`).
What arrived before the file's partition belongs to it all the same: nobody could see it before the
file was there. What arrives later than any reader of the file belongs to it too, and validation
sets it aside as not known yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from include.config.durations import format_duration
from include.config.use_case import UseCase
from include.errors import SourceError
from include.ingestion.arrival_times import arrival_times, to_micros
from include.ingestion.columns import ARRIVED, FILE, GUESSED, ROW, headers
from include.ingestion.files import has_partition_files
from include.ingestion.raw_rows import checksum, checksums, drop_unfilled
from include.ingestion.sources import Delivery
from include.lake.sql import TIMESTAMP
from include.pipeline.ingest_outputs import FileHeader
from include.point_in_time import partitions
from include.point_in_time.partitions import Period


class Arrivals:
    """The rows of one read in order of arrival.

    `owner` is the partition whose own files were read, where partitions have such. `early` counts
    the rows of these files that arrived before it.
    """

    def __init__(
        self, name: str, use_case: UseCase, delivery: Delivery, owner: Period | None = None
    ) -> None:
        self.name, self.delivery, self.owner, self._use_case = name, delivery, owner, use_case
        self._source = use_case.sources[name]
        self.early = 0
        first = (self._source.history or use_case.history).first.isoformat()
        fallback = (owner or partitions.period(use_case, first)).arrival_start
        times, self._guessed = arrival_times(name, use_case, delivery, fallback)
        if owner is not None:
            times = self._within_reach(times, owner)
        # Stable: rows of one moment stay in the order in which they were written.
        order = np.argsort(times, kind="stable") if np.any(np.diff(times) < 0) else None
        self._times = times if order is None else times[order]
        self._guessed = self._guessed if order is None else self._guessed[order]
        self._rows = (
            delivery.rows if order is None else delivery.rows.combine_chunks().take(pa.array(order))
        )
        self._checksums: dict[tuple[int, int], str] = {}

    def between(self, start: datetime, end: datetime, *, guessed: bool = False) -> pa.Table:
        """Return the rows that arrived in `[start, end)`, with `arrived_at`.

        With `guessed` the column `__guessed` tells whose arrival was guessed.
        """
        low, high = (
            int(place) for place in np.searchsorted(self._times, [to_micros(start), to_micros(end)])
        )
        arrived = pa.array(self._times[low:high]).cast(TIMESTAMP)
        rows = self._own_columns(self._rows.slice(low, high - low).append_column(ARRIVED, arrived))
        # Rows of no file are counted in their partition.
        if not self.delivery.files and not guessed and rows.num_columns > 1:
            rows = rows.set_column(
                rows.column_names.index(ROW), ROW, pa.array(np.arange(1, len(rows) + 1))
            )
        return rows.append_column(GUESSED, pa.array(self._guessed[low:high])) if guessed else rows

    def checksum(self, start: datetime, end: datetime) -> str:
        """Return the checksum of an interval's rows; a range asks for each again and again."""
        interval = to_micros(start), to_micros(end)
        if interval not in self._checksums:
            self._checksums[interval] = checksum(self.between(start, end))
        return self._checksums[interval]

    def load_checksums(self, periods: Sequence[Period]) -> None:
        """Take the checksums of what arrived in the intervals of some partitions, all together."""
        parts = [self.between(period.arrival_start, period.as_of) for period in periods]
        for period, answer in zip(periods, checksums(parts), strict=True):
            interval = to_micros(period.arrival_start), to_micros(period.as_of)
            self._checksums[interval] = answer

    def headers(self, files: Sequence[str]) -> list[FileHeader]:
        """Return the distinct headers of some files, each with up to three files that have it."""
        files_by_header: dict[tuple[str, ...], list[str]] = {}
        for file in files:
            if file in self.delivery.headers or file in self.delivery.digests:
                header = self.delivery.headers.get(file, ())
                files_by_header.setdefault(header, []).append(file)
        return [
            FileHeader(columns=list(header), files=names[:3], count=len(names))
            for header, names in sorted(files_by_header.items())
        ]

    def _within_reach(self, times: Any, owner: Period) -> Any:
        """Return times within what readers of the owner's files take.

        What no partition would take is moved into the owner's interval.

        Raises:
            SourceError: rows of an assumed arrival are too early, and the source takes none late.
        """
        start, end, limit = (
            to_micros(owner.arrival_start),
            to_micros(owner.as_of),
            to_micros(_reach_end(self._use_case, self.name, owner)),
        )
        early = times < start
        self.early = int(early.sum())
        lag = self._source.assumed_lag
        if lag is not None and not self._source.takes_late and np.any(early & ~self._guessed):
            first = int(np.argmax(early & ~self._guessed))
            sample = self.delivery.rows.slice(first, 1).to_pylist()[0]
            raise SourceError(
                f"{sample[FILE]}, row {sample[ROW]}: {self.early} rows happened so early that, "
                f"arriving {format_duration(lag)} later, they belong to partitions before "
                f"{owner.key}. Move them, or write late: next under sources.{self.name} to take "
                "them as they come"
            )
        return np.where(times >= limit, end - 1, np.maximum(times, start))

    def _own_columns(self, rows: pa.Table) -> pa.Table:
        """Return rows without columns that only other partitions' rows have."""
        if not len(rows):
            return rows.select([name for name in rows.column_names if name in (FILE, ROW, ARRIVED)])
        names = headers(self._source)
        delivered = {
            names[header]
            for file in rows.column(FILE).unique().to_pylist()
            for header in self.delivery.headers.get(file, ())
            if header in names
        }
        return drop_unfilled(rows, keep={FILE, ROW, ARRIVED, *delivered})


def readable_partitions(use_case: UseCase, name: str, key: str) -> list[str]:
    """Return the partitions whose own files a partition reads, itself among them, oldest first."""
    if not has_partition_files(use_case.sources[name]):
        return [key]
    history, period, keys = use_case.sources[name].history, partitions.period(use_case, key), [key]
    while (before := partitions.earlier(use_case, keys[0])) is not None and partitions.within(
        history, before
    ):
        earlier = partitions.period(use_case, before)
        if _reach_end(use_case, name, earlier) <= period.arrival_start:
            break
        keys.insert(0, before)
    return keys


def _reach_end(use_case: UseCase, name: str, owner: Period) -> datetime:
    """Return the moment from which on nobody reads what arrives by a partition's own files."""
    source = use_case.sources[name]
    spill = source.assumed_lag if source.assumed_lag is not None else source.spill
    return owner.as_of + spill if spill is not None else partitions.following(use_case, owner).as_of
