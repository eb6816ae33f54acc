"""Read from the prediction log what a use case is asked: how much, and the rows of late.

Only what is imported into the lake is read: the import runs every hour, and what is younger changes
no figure of a week.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import duckdb

from include.lake.sql import connect
from include.lake.tables import Lake
from include.predictions.attempts import number_attempts
from include.predictions.import_segments import TABLE
from include.predictions.reading import SCHEMA

LOOKED_BACK = timedelta(days=7)
_DAY = timedelta(days=1)
# A mirrored request is no request of its own, and one that was repeated is one.
ASKED = 'attempt = 1 AND "at" >= $since AND "at" < $until'


class Traffic(NamedTuple):
    """What a use case was asked a day, and how that was counted."""

    requests: float
    entities: float
    days: float
    counted: str

    def plain(self) -> dict[str, Any]:
        """Return it as an audit row keeps it."""
        return {
            "requests_a_day": round(self.requests, 1),
            "entities_a_day": round(self.entities, 1),
            "counted": self.counted,
        }


def count_traffic(lake: Lake, use_case: str, at: datetime) -> Traffic:
    """Return the requests and the distinct entities a day of the seven days before `at`.

    Where the log began later than that it is counted from its beginning on, at least a day.
    Requests without an entity count as one entity each.

    Raises:
        SourceError: the lake cannot be read.
    """
    since = at - LOOKED_BACK
    with connect() as con:
        scan_log(con, lake, use_case, since, at)
        [row] = con.execute(
            'SELECT count(*), count(DISTINCT ("at"::DATE, coalesce(entity, request_id))), '
            f'min("at") FROM asked WHERE {ASKED}',
            {"since": since, "until": at},
        ).fetchall()
    requests, entities, first = row
    began = min(lake.keys(f"{use_case}/{TABLE}"), default="")
    is_younger = first is not None and began >= f"{since:%Y-%m-%d}"
    span = max(_DAY, at - first) if is_younger else LOOKED_BACK
    days = span / _DAY
    counted = (
        f"{requests} requests in the {days:.1f} days before {at:%Y-%m-%d %H:%M} UTC, in the lake's "
        f"table {use_case}/{TABLE}; the distinct entities of each day, on average"
    )
    return Traffic(requests / days, entities / days, days, counted)


def last_rows(lake: Lake, use_case: str, at: datetime, limit: int) -> list[dict[str, Any]]:
    """Return the rows that were asked last, the newest first; without what `pii` cuts out.

    Raises:
        SourceError: the lake cannot be read.
    """
    since = at - LOOKED_BACK
    with connect() as con:
        scan_log(con, lake, use_case, since, at)
        rows = con.execute(
            f"SELECT features FROM asked WHERE {ASKED} AND features IS NOT NULL "
            'ORDER BY "at" DESC, segment, line LIMIT $limit',
            {"since": since, "until": at, "limit": limit},
        ).fetchall()
    return [json.loads(features) for (features,) in rows]


def scan_log(
    con: duckdb.DuckDBPyConnection, lake: Lake, use_case: str, since: datetime, until: datetime
) -> None:
    """Make a view, `asked`, over the days of the log; empty where nothing was ever imported."""
    days = (f"{since:%Y-%m-%d}", f"{until:%Y-%m-%d}")
    lake.scan(con, "logged", f"{use_case}/{TABLE}", schema=SCHEMA, since=days[0], until=days[1])
    number_attempts(con, "logged", "asked")
