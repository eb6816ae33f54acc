"""Times of a table that are mistyped, or stand for no time: nothing of a draft is guessed by them.

One row of 2099 would else decide how long the history is, how long its periods are, and how far
back features look. What stands after the moment of drafting, or at 1970-01-01 00:00, the contract
sets aside as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from include.ingestion.times import EPOCH
from include.lake.sql import quote
from include.onboarding.profile import Table, moment

_FEW = 1_000  # of so many rows one at either end may be mistyped
_NEAR = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class Strays:
    """How many rows of a table have a time of a column that is left out, by why."""

    later: int = 0
    epoch: int = 0
    far: int = 0

    def __str__(self) -> str:
        """Return them as the end of a comment; empty where there are none."""
        told = [
            f"{count} row(s) {where}"
            for count, where in (
                (self.later, "after now"),
                (self.epoch, "at 1970-01-01 00:00"),
                (self.far, "far from all others"),
            )
            if count
        ]
        return f"; left out of the guesses of time: {', '.join(told)}" if told else ""


def leave_out_strays(table: Table, header: str, now: datetime) -> Strays:
    """Take times of a column that are none out of what is guessed from; say how many.

    They are no times any more in `given`. Where most rows are of the future none is left out.
    """
    if header in table.strays:
        return table.strays[header]
    at, micro = moment(header), f"epoch_us({moment(header)})"
    zero, late = f"{at} = {EPOCH}", f"{micro} > {round(now.timestamp() * 1_000_000)}"
    # What is not at either of both, in order: of the first and the last few only a gap tells more.
    query = (
        f"SELECT count(*) FILTER ({late}), count(*) FILTER ({zero}), "
        f"count(*) FILTER (NOT ({late}) AND NOT ({zero})) FROM given WHERE {at} IS NOT NULL"
    )
    later, epoch, usual = table.rows_of(query)[0]
    if later + epoch >= usual:
        strays = Strays()
    else:
        few = max(1, usual // _FEW)
        inner = (
            f"SELECT {micro} AS m FROM given WHERE {at} IS NOT NULL AND NOT ({late}) "
            f"AND NOT ({zero}) ORDER BY m LIMIT {usual - 2 * few} OFFSET {few}"
        )
        low, high = table.rows_of(f"SELECT min(m), max(m) FROM ({inner})")[0]
        far = "false"
        if low is not None:
            gap = max(high - low, _NEAR // timedelta(microseconds=1))
            far = f"NOT ({micro} BETWEEN {low - gap} AND {high + gap})"
        count = f"SELECT count(*) FROM given WHERE NOT ({late}) AND NOT ({zero}) AND {far}"
        strays = Strays(later, epoch, table.scalar(count))
        if strays != Strays():
            name = quote(header)
            kept = f"CASE WHEN NOT ({late} OR {zero} OR {far}) THEN {name} END AS {name}"
            table.rows_of(
                f"CREATE OR REPLACE TEMP TABLE given AS SELECT * REPLACE ({kept}) FROM given"
            )
    table.strays[header] = strays
    return strays
