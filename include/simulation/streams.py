"""A seeded simulator of a bank's instalment portfolio, addressable by day: the embedded default
source.

The rows that arrive in an interval depend on seed, customers, start and concept shift alone;
nothing is carried from day to day, so any day costs the same and days may be made in any order.
About 50 events a customer in 180 days (20,000 customers: 1M).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from include.config.durations import midnight
from include.errors import ConfigError
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
    """Return the rows of a stream that arrive in `[first, until)` (UTC), as text, in order of
    arrival.

    `accounts` is master data: all of it, whatever the interval. A field that was not sent is null.

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
    """Yield the rows of `arrivals` some days at a time, so that a long history is never held at
    once.
    """
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
    """Return P(paid within 30 days) of each (account_id, due time in UTC): arrays of whole
    numbers and of datetime64.
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
    """Write one file a stream and day, `<folder>/<stream>/<day>.<format>`, and `accounts.<format>`;
    each is replaced atomically.

    A day's file holds the rows that arrive from `cut_off` on that day to `cut_off` on the next: its
    partition's.
    """
    paths = [
        _replace(
            folder / f"accounts.{file_format}", feed.accounts(open_book(seed, customers, start))
        )
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
            paths.append(_replace(folder / stream / f"{day}.{file_format}", rows))
    return paths


def _replace(path: Path, rows: pa.Table) -> Path:
    from pyarrow import csv, parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        (csv.write_csv if path.suffix == ".csv" else parquet.write_table)(rows, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
