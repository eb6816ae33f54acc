"""What a written form of dates names: a moment, a day, or something longer.

DuckDB's strptime gives the first day of what is named. Its fields of the week are read in some
companies only: %U and %W beside a year, and then %w, but not %u; %V beside %G, and then %u. Names
of days (%a, %A) are read nowhere. A quarter has no field.
"""

from __future__ import annotations

import re
from typing import Literal

from include.config.use_case_columns import UNIX

Named = Literal["moment", "day", "week", "month", "year"]

_FIELD = re.compile(r"%(?:%|-?([A-Za-z]))")
_QUARTER = re.compile(r"[Qq]%-?m")
# What says the day, by fields other than the names of days, and what that makes it; in any order.
_NAMED: dict[frozenset[str], Named] = {
    **dict.fromkeys(map(frozenset, ("Ymd", "Yj", "YUw", "YWw", "GVu", "x")), "day"),
    **dict.fromkeys(map(frozenset, ("YU", "YW", "GV")), "week"),
    frozenset("Ym"): "month",
    frozenset("Y"): "year",
}
_CLOCK = frozenset("HIMSpfgnXTc")
_SAME = {"y": "Y", "b": "m", "B": "m", "h": "m"}
_WEEKDAYS, _ZONES = frozenset("aA"), frozenset("zZ")


def named_by(dates: str | None) -> Named | None:
    """Return what a text of the form `dates` of a column names, None where it cannot be told.

    Without one it is an ISO date; whether a time follows, each text says for itself.
    """
    if dates is None:
        return "day"
    if dates in UNIX:
        return "moment"
    fields = {_SAME.get(letter, letter) for letter in _FIELD.findall(dates) if letter} - _ZONES
    if fields & _CLOCK:
        return "moment"
    named = _NAMED.get(frozenset(fields - _WEEKDAYS))
    if named is None or _QUARTER.search(dates) or (fields & _WEEKDAYS and named != "day"):
        return None
    return named


def counts_days_or_weeks(dates: str) -> bool:
    """Tell whether a form names a day or a week by its number in a year that may lack it."""
    return named_by(dates) in ("day", "week") and re.search("%-?[jUWV]", dates) is not None


def is_aware(dates: str) -> bool:
    """Tell whether a form says its zone: by an offset, or as letters of the form itself."""
    return "%z" in dates or re.search(r"(Z|UTC|GMT)$", dates) is not None
