"""Outcomes that are known before their decision: then one of the two times is another's.

Times are taken as coarsely as they are written. Of an outcome at 00:00 its day is all that is
known, of one at a full hour, minute or second no more than that, and a decision that ends with its
day, month or year may have been at any moment of it. So what happened at once is early nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from include.config.date_forms import named_by
from include.config.durations import format_duration
from include.config.remedies import remedy
from include.config.use_case import UseCase
from include.config.use_case_sources import Source
from include.lake.sql import connect, quote, text_literal
from include.lake.tables import Lake
from include.point_in_time.curated import label_schema, label_table

MOST = 0.02  # share of the decisions above which it is no slip of a few rows
_DAY_MICROS = 86_400_000_000


@dataclass(frozen=True)
class EarlyOutcomes:
    """How many decisions have an outcome that was known before them, of how many with one.

    `days` is by how many days at the most.
    """

    count: int
    decisions: int
    days: float

    @property
    def share(self) -> float:
        """The share of the decisions."""
        return self.count / self.decisions if self.decisions else 0.0


def find_early(use_case: UseCase, lake: Lake) -> EarlyOutcomes:
    """Count decisions whose first outcome was known before them."""
    key, early = quote(use_case.entity.key), _is_early(use_case)
    with connect() as con:
        lake.scan(con, "labels", label_table(lake, use_case), schema=label_schema(use_case))
        # One row a decision, with the time of its first outcome.
        first = (
            "SELECT event_timestamp AS decided, min(label_timestamp) AS known FROM labels "
            f"WHERE label IS NOT NULL GROUP BY {key}, event_timestamp"
        )
        count, decisions, micros = con.execute(
            f"SELECT count(*) FILTER ({early}), count(*), "
            f"max(epoch_us(decided) - epoch_us(known)) FILTER ({early}) FROM ({first})"
        ).fetchone() or (0, 0, None)
    return EarlyOutcomes(count, decisions, (micros or 0) / _DAY_MICROS)


def describe_early(use_case: UseCase, early: EarlyOutcomes) -> Iterator[str]:
    """Yield what is to be said of early outcomes, with the remedy; nothing where there are none."""
    if not early.count:
        return
    label = use_case.label
    if label.source is None:
        mend = "mend event_timestamp or label_timestamp in label.sql"
    else:
        assumed = remedy(("label", "label_time"), f"event + {format_duration(label.delay)}")
        mend = (
            f"name another event_time of source {label.source} or another column as "
            f"label.label_time, or write {assumed} where no column says it"
        )
    yield (
        f"{early.count} of {early.decisions} outcomes ({early.share:.1%}) were known before their "
        f"decision, up to {early.days:.1f} days: nobody decides on what is known; {mend}"
    )


def _is_early(use_case: UseCase) -> str:
    """Return the condition of `decided` and `known` under which an outcome was early."""
    name = use_case.label.source
    source = None if name is None else use_case.sources[name]
    zone = text_literal("UTC" if source is None else source.timezone)
    local, begun = f"timezone({zone}, known)", f"timezone({zone}, {_begun(source)})"
    # A date is 00:00 UTC whatever the zone of its source is.
    day = (
        "CASE WHEN date_trunc('day', timezone('UTC', known)) = timezone('UTC', known) "
        "THEN timezone('UTC', known) "
        f"WHEN date_trunc('day', {local}) = {local} THEN {local} END"
    )
    unit = _unit(source, use_case.label.label_time)
    coarse = " ".join(
        f"WHEN date_trunc('{each}', {local}) = {local} THEN {local} < date_trunc('{each}', {begun})"
        for each in ("hour", "minute", "second")
    )
    return (
        f"CASE WHEN {day} IS NOT NULL THEN {day} < date_trunc('{unit}', {begun}) {coarse} "
        f"ELSE {local} < {begun} END"
    )


def _begun(source: Source | None) -> str:
    """Return the first moment at which a decision can have been made."""
    if source is None or source.date_means != "end_of_day":
        return "decided"
    after = "(decided + INTERVAL 1 MICROSECOND)"
    whole = f"date_trunc('{_unit(source, source.event_time)}', decided)"
    return f"CASE WHEN date_trunc('day', {after}) = {after} THEN {whole} ELSE decided END"


def _unit(source: Source | None, name: str) -> str:
    """Return what a date of a column names: a day, or more."""
    column = None if source is None else source.columns.get(name)
    named = "day" if column is None else named_by(column.dates)
    return "day" if named is None or named == "moment" else named
