"""Draft features as SQL that a person edits: an entity's history as a snapshot view, dates as days.

What is drafted is plain: counts, sums, means, last values, days since, shares of frequent values
and trends over two windows. It is a function of its arguments alone. Only columns that are known
when their row arrives may be given: the history of an outcome would be seen before it was known.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from include.config import names as names_of_ours
from include.lake.sql import quote, text_literal
from include.point_in_time.curated import CREATED, EVENT

MOST = 40  # features of a view; a person reads them all
WINDOWS = {"day": (30, 90), "week": (56, 182), "month": (92, 365)}
"""Days of the short and the long window by cadence: about 1 and 3, 2 and 6, 3 and 12 months."""
TTL = {"day": 7, "week": 21, "month": 93}
"""Days for which a row counts: of a few periods, since each has a row of its own."""
VALUES = 2  # frequent values of a category whose shares are features
LONGEST_VALUE = 40  # letters
LONGEST_NAME = 55  # of 63, so that a number fits behind it
AS_OF = "getvariable('as_of')"
MICROSECONDS = 86_400_000_000  # of a day


@dataclass(frozen=True, slots=True)
class Drafted:
    """A feature: its name, type and expression; `rank` says after what others it is left out."""

    name: str
    kind: str
    sql: str
    rank: int


def draft_snapshot_view(
    source_name: str,
    entity_key: str,
    columns: Mapping[str, str],
    event_time: str,
    cadence: str,
    *,
    view_name: str = "earlier_rows",
    frequent: Mapping[str, Sequence[str]] | None = None,
    taken: Collection[str] = (),
) -> tuple[list[str], str]:
    """Return the YAML lines of a view of what an entity did before `as_of`, and its SQL.

    `columns` are columns of the source with their types, `event_time` is its time, `frequent` has
    the most frequent values of columns of text, the first the most frequent. No feature is called
    as one in `taken`. The lines stand under `features:` and hold the SQL.
    """
    short, long = WINDOWS[cadence]
    given = {
        name: kind
        for name, kind in columns.items()
        if name not in (entity_key, event_time, EVENT, CREATED)
    }
    place = _free_name("place", {*columns, event_time, EVENT, CREATED})
    namer = _Namer({*taken, *columns, entity_key, *names_of_ours.ROWS, *names_of_ours.FRAMES})
    groups = {"": list(_of_all_rows(namer, short, long))}
    for name, kind in given.items():
        values = (frequent or {}).get(name, ())
        groups[name] = list(_of_column(namer, name, kind, values, place, short, long))
    kept = _keep(groups)
    sql = _query(source_name, entity_key, list(given), kept, groups, place, (short, long))
    lines = [
        f"  {view_name}:",
        f"    lookback: {long}d  # the long window of the SQL",
        f"    ttl: {TTL[cadence]}d",
        f"    description: What happened in the {long} days before as_of.",
        "    sql: |  # drafted: edit it, and the columns below with it",
        *(f"      {line}".rstrip() for line in sql.splitlines()),
        "    columns:",
        *(f"      {each.name}: {each.kind}" for group in kept.values() for each in group),
    ]
    return lines, sql


def draft_differences(
    dates: Mapping[str, str], event_time: str, *, taken: Collection[str] = ()
) -> dict[str, tuple[str, str]]:
    """Return for columns of dates and timestamps how many days each lies before the decision.

    By the feature's name: its type, and an expression over the row's own columns, of which
    `event_time` is the decision's moment. It serves as a computed column or in an event view's SQL.
    What lies after the decision is negative.
    """
    namer = _Namer({*taken, *names_of_ours.ROWS, *names_of_ours.FRAMES})
    return {
        namer.name(name, "days_before"): ("float64", _days(quote(event_time), quote(name)))
        for name, kind in dates.items()
        if kind in ("date", "timestamp") and name != event_time
    }


class _Namer:
    """Names of features that are unique without regard to case, and within limits."""

    def __init__(self, taken: Collection[str]) -> None:
        self._taken = {name.lower() for name in taken}

    def name(self, column: str, what: str) -> str:
        """Return a name for what is made of a column."""
        plain = re.sub(r"[^A-Za-z0-9]+", "_", names_of_ours.latin(column)).strip("_") or "column"
        plain = plain if not plain[0].isdigit() else f"c_{plain}"
        room = LONGEST_NAME - len(what) - 1
        name = _free_name(f"{plain[:room].rstrip('_')}_{what}", self._taken)
        self._taken.add(name.lower())
        return name


def _free_name(base: str, taken: Collection[str]) -> str:
    """Return a name, with a number behind it where it is taken, with or without its case."""
    lower, name, number = {each.lower() for each in taken}, base, 2
    while name.lower() in lower:
        name, number = f"{base}_{number}", number + 1
    return name


def _of_all_rows(namer: _Namer, short: int, long: int) -> Iterator[Drafted]:
    """Yield what is made of the rows themselves: how many, how lately, whether more than before."""
    lately = f"FILTER ({_within(short)})"
    yield Drafted(namer.name("rows", f"{long}d"), "int64", "count(*)", 0)
    yield Drafted(namer.name("rows", f"{short}d"), "int64", f"count(*) {lately}", 0)
    # 1 where the short window has as many a day as the long one; there is a row, so no division
    # by nothing.
    yield Drafted(
        namer.name("rows", f"trend_{short}d"),
        "float64",
        f"count(*) {lately} * {long}.0 / {short} / count(*)",
        0,
    )
    yield Drafted(namer.name("days", "since_last"), "float64", _days(AS_OF, f"max({EVENT})"), 0)
    yield Drafted(namer.name("days", "since_first"), "float64", _days(AS_OF, f"min({EVENT})"), 0)


def _of_column(
    namer: _Namer,
    column: str,
    kind: str,
    frequent: Sequence[str],
    place: str,
    short: int,
    long: int,
) -> Iterator[Drafted]:
    """Yield what is made of a column by its type; `place` orders the rows of an entity."""
    name, last = quote(column), f"arg_max({quote(column)}, {quote(place)})"
    if kind in ("int64", "float64"):
        mean = f"avg({name})"
        trend = f"avg({name}) FILTER ({_within(short)}) - {mean}"
        # A sum of whole numbers may be longer than 64 bits.
        total = f"CAST(sum({name}) AS DOUBLE)"
        yield Drafted(namer.name(column, f"mean_{long}d"), "float64", mean, 1)
        yield Drafted(namer.name(column, "last"), kind, last, 2)
        yield Drafted(namer.name(column, f"trend_{short}d"), "float64", trend, 3)
        yield Drafted(namer.name(column, f"sum_{long}d"), "float64", total, 4)
    elif kind == "string":
        for rank, value in zip((1, 3), filter(_writable, frequent[:VALUES]), strict=False):
            share = f"avg(CAST({name} = {text_literal(value)} AS INTEGER))"
            word = re.sub(r"[^A-Za-z0-9]+", "_", names_of_ours.latin(value)).strip("_").lower()
            what = f"share_{word[:20] or 'value'}_{long}d"
            yield Drafted(namer.name(column, what), "float64", share, rank)
        yield Drafted(namer.name(column, "last"), "string", last, 2)
        distinct = f"count(DISTINCT {name})"
        yield Drafted(namer.name(column, f"distinct_{long}d"), "int64", distinct, 4)
    elif kind == "bool":
        share = f"avg(CAST({name} AS INTEGER))"
        yield Drafted(namer.name(column, f"share_{long}d"), "float64", share, 1)
        yield Drafted(namer.name(column, "last"), "bool", last, 2)
    elif kind in ("date", "timestamp"):
        yield Drafted(namer.name(column, "days_ago"), "float64", _days(AS_OF, last), 1)


def _keep(groups: Mapping[str, list[Drafted]]) -> dict[str, list[Drafted]]:
    """Return the features that have room: of all columns the plainest first, in their order."""
    ranked = sorted(
        (
            (each.rank, place, each.name)
            for place, group in enumerate(groups.values())
            for each in group
        )
    )
    kept = {name for _, _, name in ranked[:MOST]}
    return {
        column: [each for each in group if each.name in kept] for column, group in groups.items()
    }


def _query(
    source: str,
    key: str,
    columns: Sequence[str],
    kept: Mapping[str, Sequence[Drafted]],
    groups: Mapping[str, Sequence[Drafted]],
    place: str,
    windows: tuple[int, int],
) -> str:
    """Return the SELECT, with a comment on what each group of features is made of."""
    short, long = windows
    seen = _free_name("seen", {source})
    # By every column: rows that tie in all of them are equal, and either may be the last.
    order = ", ".join([EVENT, CREATED, *map(quote, columns)])
    lines = [
        f"-- What happened to each {_note(key)} in the {long} days before as_of. Change it as you",
        "-- like: one row an entity, and no column of what was written after the outcome.",
        f"WITH {seen} AS (",
        f"    SELECT *, row_number() OVER (PARTITION BY {quote(key)} ORDER BY {order})",
        f"        AS {quote(place)}",
        f"    FROM {quote(source)}",
        f"    WHERE {quote(key)} IS NOT NULL AND {_within(long, where=False)}",
        ")",
        "SELECT",
        f"    {quote(key)},",
    ]
    for column, group in kept.items():
        if not group:
            continue
        about = f"{_note(column)}" if column else "How many rows, how lately, and whether more"
        trend = any(each.rank in (0, 3) and "trend" in each.name for each in group)
        lines.append(f"    -- {about}{f' (trend: the last {short} days)' if trend else ''}")
        lines += [f"    {each.sql} AS {quote(each.name)}," for each in group]
    lines[-1] = lines[-1].removesuffix(",")
    lines += [f"FROM {seen}", f"GROUP BY {quote(key)}"]
    names = {each.name for group in kept.values() for each in group}
    left_out = [each.name for group in groups.values() for each in group if each.name not in names]
    if left_out:
        lines.append(f"-- Left out, since {MOST} are enough to begin with:")
        lines += [f"--   {name}" for name in left_out]
    return "\n".join(lines)


def _within(days: int, *, where: bool = True) -> str:
    """Return the condition that a row happened in the last days before as_of."""
    condition = f"{EVENT} >= {AS_OF} - INTERVAL {days} DAY"
    return f"WHERE {condition}" if where else condition


def _days(later: str, earlier: str) -> str:
    """Return the days from one moment to another, parts of a day too.

    By microseconds: a difference of dates or of times with a zone follows the session's calendar.
    """
    return f"(epoch_us({later}) - epoch_us({earlier})) / {MICROSECONDS}.0"


def _writable(value: str) -> bool:
    """Tell whether a value can stand in a line of YAML as it is."""
    return value.isprintable() and 0 < len(value.strip()) <= LONGEST_VALUE


def _note(foreign: str) -> str:
    """Return a name as a part of a comment: one line of printable letters."""
    return "".join(letter if letter.isprintable() else "?" for letter in foreign[:60])
