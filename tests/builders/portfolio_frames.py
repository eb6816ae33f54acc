"""A training frame of the simulated portfolio, made by the shipped SQL over the feed, with its
rows typed by plain DuckDB.
"""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from pathlib import Path

import duckdb
import pyarrow as pa

from include.config.durations import midnight
from include.config.settings import ROOT
from include.config.use_case import UseCase
from include.config.use_case_file import load
from include.lake.tables import Lake
from include.point_in_time.curated import curated_schema
from include.point_in_time.partitions import period
from include.point_in_time.queries import resolve_sql
from include.point_in_time.views import AsOfViews
from include.simulation.streams import arrivals, true_probability


@lru_cache(maxsize=1)
def repayment() -> UseCase:
    """The shipped use case."""
    return load(ROOT / "include" / "usecases" / "repayment.yaml")


def curated(feed: pa.Table, name: str) -> pa.Table:
    """Type the rows of a stream, without its duplicates and its malformed rows."""
    source = repayment().sources[name]
    schema = curated_schema(source)
    static = source.kind == "static"
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.register("feed", feed)
    kinds = {"int64": "BIGINT", "double": "DOUBLE", "string": "VARCHAR", "date32[day]": "DATE"}
    typed = [
        f"try_cast({f.name} AS {kinds.get(str(f.type), 'TIMESTAMPTZ')}) AS {f.name}"
        for f in schema
        if f.name in feed.column_names
    ]
    known = f"TIMESTAMPTZ '{source.valid_from} 00:00Z'"
    times = f", {known} AS event_timestamp, {known} AS created_timestamp" if static else ""
    sound = (
        [f"{key} IS NOT NULL" for key in source.key] + []
        if static
        else [f"{source.key[0]} IS NOT NULL", "event_timestamp IS NOT NULL"]
    )
    sound += [
        f"{name} IN ({', '.join(map(repr, c.values))})"
        for name, c in source.columns.items()
        if c.values and c.nullable is False
    ]
    sound += [
        f"{name} >= {c.min}"
        for name, c in source.columns.items()
        if c.min is not None and c.nullable is False
    ]
    rows = f"SELECT DISTINCT {', '.join(typed)}{times} FROM feed"
    return (
        con.sql(f"SELECT * FROM ({rows}) WHERE {' AND '.join(sound)}").to_arrow_table().cast(schema)
    )


def frame(
    folder: Path,
    *,
    seed: int,
    customers: int,
    first: int,
    days: int,
    concept_shift: int | None = None,
) -> pa.Table:
    """Return the labelled decisions that fall due on `days` days from day `first` of the portfolio.

    Columns: account_id, event_timestamp, label, every feature as known at 02:00 of the due day, and
    `truth`.
    """
    use_case = repayment()
    start = use_case.history.first
    portfolio = {
        "seed": seed,
        "customers": customers,
        "start": start,
        "concept_shift": concept_shift,
    }
    began, done = (
        midnight(start) + timedelta(days=first - 94),
        midnight(start) + timedelta(days=first + days + 34),
    )
    sources = {
        name: curated(arrivals(name, began, done, **portfolio), name) for name in use_case.sources
    }  # type: ignore[arg-type]
    behaviour, profile = (
        resolve_sql(use_case, str(use_case.features[name].sql)) for name in ("behaviour", "profile")
    )
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.register("decisions", sources["instalments"])
    parts = []
    with AsOfViews(con, Lake(str(folder)), use_case, keys=(), more=sources) as views:
        views.at_moment(done, interval_start=began, since=began)
        con.execute(f"CREATE TEMP TABLE labels AS {resolve_sql(use_case, str(use_case.label.sql))}")
        for day in range(first, first + days):
            before = period(use_case, str(start + timedelta(days=day - 1)))
            views.at(before, use_case.features["behaviour"].lookback)
            parts.append(
                views.query(
                    f"WITH behaviour AS ({behaviour}), profile AS ({profile}) SELECT labels.*, "
                    "profile.* EXCLUDE (account_id), behaviour.* EXCLUDE (account_id) FROM "
                    "labels LEFT JOIN profile USING (account_id) LEFT JOIN behaviour USING "
                    "(account_id) WHERE CAST(labels.event_timestamp AS DATE) = "
                    "CAST(getvariable('as_of') AS DATE) ORDER BY account_id"
                )
            )
    whole = pa.concat_tables(parts)
    due = whole.column("event_timestamp").cast(pa.timestamp("us")).to_numpy()
    truth = true_probability(whole.column("account_id").to_numpy(), due, **portfolio)  # type: ignore[arg-type]
    return whole.append_column("truth", pa.array(truth))
