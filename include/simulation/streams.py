"""The streams of the simulated portfolio, by interval of arrival: the source that is shipped.

The rows that arrive in an interval depend only on seed, customers, start and concept shift; nothing
is carried from day to day, so any day costs the same and days may be made in any order. There are
about 50 events for each customer in 180 days (20,000 customers: 1M).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from include.config.durations import midnight
from include.errors import ConfigError
from include.files import written_aside
from include.simulation import behaviour, feed
from include.simulation.draws import Floats
from include.simulation.portfolio import FIRST_ACCOUNT, open_book

STREAMS = ("instalments", "contacts", "accounts")


def arrivals(
    stream: str,
    first: datetime,
    until: datetime,
    *,
    seed: int,
    customers: int,
    start: date,
    concept_shift: int | None = None,
) -> pa.Table:
    """Return the rows of a stream that arrive in `[first, until)` (UTC), in order of arrival.

    All values are text, as a file has them; a field that was not sent is null. `accounts` is master
    data: all of it, whatever the interval.

    Raises:
        ConfigError: there is no such stream.
    """
    return pa.concat_tables(
        batches(
            stream,
            first,
            until,
            seed=seed,
            customers=customers,
            start=start,
            concept_shift=concept_shift,
        )
    )


def batches(
    stream: str,
    first: datetime,
    until: datetime,
    *,
    seed: int,
    customers: int,
    start: date,
    concept_shift: int | None = None,
) -> Iterator[pa.Table]:
    """Yield the rows of `arrivals` some days at a time: a long history does not fit in memory."""
    if stream not in STREAMS:
        raise ConfigError(
            f"the simulator has no stream {stream!r}; use one of {', '.join(STREAMS)}"
        )
    book = open_book(seed, customers, start)
    if stream == "accounts":
        yield feed.accounts(book)
    else:
        yield from feed.batches(stream, first, until, book=book, concept_shift=concept_shift)


def true_probability(
    account_id: Any,
    due_at: Any,
    *,
    seed: int,
    customers: int,
    start: date,
    concept_shift: int | None = None,
) -> Floats:
    """Return the true probability that instalments are paid within 30 days.

    They are given by arrays of account ids (whole numbers) and due times in UTC (datetime64).
    """
    book = open_book(seed, customers, start)
    account = np.asarray(account_id, dtype=np.int64) - FIRST_ACCOUNT
    day = (np.asarray(due_at).astype("datetime64[D]") - np.datetime64(start, "D")).astype(np.int64)
    return behaviour.probability(behaviour.strength(book, account, day, concept_shift))


def write_days(
    folder: Path,
    first: date,
    last: date,
    *,
    seed: int,
    customers: int,
    start: date,
    concept_shift: int | None = None,
    cut_off: timedelta = timedelta(0),
    file_format: Literal["csv", "parquet"] = "csv",
) -> list[Path]:
    """Write `<stream>/<day>.<format>` for each event stream and day, and `accounts.<format>`.

    A day's file holds the rows that arrive from `cut_off` on that day to `cut_off` on the next day:
    those of its partition. Returns the paths; each file is replaced as a whole.
    """
    paths = [
        _write(folder / f"accounts.{file_format}", feed.accounts(open_book(seed, customers, start)))
    ]
    for day in (first + timedelta(days=step) for step in range((last - first).days + 1)):
        begin = midnight(day) + cut_off
        for stream in STREAMS[:2]:
            rows = arrivals(
                stream,
                begin,
                begin + timedelta(days=1),
                seed=seed,
                customers=customers,
                start=start,
                concept_shift=concept_shift,
            )
            paths.append(_write(folder / stream / f"{day}.{file_format}", rows))
    return paths


def _write(path: Path, rows: pa.Table) -> Path:
    from pyarrow import csv, parquet

    with written_aside(path) as temporary:
        if path.suffix == ".csv":
            csv.write_csv(rows, temporary)
        else:
            parquet.write_table(rows, temporary)
    return path
