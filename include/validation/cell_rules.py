"""The rules of a cell: what a text, and the value that it stands for, may fail.

A rule is named `column: check`. Checks of a cell: null, not_int64, leading_zeros (of a key that is
int64), not_float64, not_finite, not_bool, not_date, not_timestamp, ambiguous_time,
mixed_time_zones, out_of_range, below_min, above_max, not_allowed, no_match.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from include.config.use_case_sources import Column, Source
from include.ingestion.times import NEWEST, OLDEST, aware, is_time
from include.ingestion.values import trimmed_text, typed
from include.lake.sql import text_literal

# A time column of a partition in which times with and without a zone are mixed: the partition, the
# column, and whether those with one are the minority. The minority fails.
Mixed = Sequence[tuple[str, str, bool]]


class Check(NamedTuple):
    """A condition that bad rows meet, and the rule that they fail by it.

    `column` is the raw column whose text alone decides it; None where it takes more of the row.
    """

    bad: str
    rule: str
    column: str | None = None


def key_rules(source: Source, name: str, entity: str | None) -> dict[str, bool]:
    """Return whether a column must have a value (`required`), and whether it is a key (`key`).

    A key names the row or, of events, its entity.
    """
    column = source.columns[name]
    is_entity = name == entity and source.kind == "events"
    return {
        "required": name in source.key or (is_entity and column.nullable is not True),
        "key": name in source.key or is_entity,
    }


def has_rules(column: Column, *, required: bool, key: bool = False) -> bool:
    """Tell whether a value of the column can fail a rule."""
    is_unbound = (
        column.type == "string"
        and column.nullable is not False
        and column.values is None
        and column.regex is None
    )
    return required or not is_unbound


def column_checks(
    name: str,
    column: Column,
    source: Source,
    text: str,
    value: str,
    *,
    required: bool = False,
    key: bool = False,
    mixed: Mixed = (),
) -> list[Check]:
    """Return the checks of a column's cells, in the order in which a row fails by them.

    `text` is the expression of a cell's text, `value` that of its typed value; of a computed column
    both are the value, which hangs on the whole row.
    """
    is_computed = text == value and column.sql is not None
    checks: list[Check] = []

    def add(bad: str, check: str) -> None:
        checks.append(Check(bad, f"{name}: {check}", None if is_computed else name))

    if required or column.nullable is False:
        add(f"{text} IS NULL", "null")
    if column.type == "timestamp":
        checks += time_checks(name, text, value, column.dates, mixed)
    elif column.type != "string" and not is_computed:
        add(f"{text} IS NOT NULL AND {value} IS NULL", f"not_{column.type}")
    if key and column.type == "int64" and not is_computed:
        # 007 and 7 are one number but two names: as a number one of them would pass for a
        # correction of the other. Only what begins with a sign or a zero stands before '1'.
        zeros = f"regexp_matches({text}, '^[+-]?0[0-9]')"
        add(f"CASE WHEN {text} < '1' THEN {zeros} END", "leading_zeros")
    if column.type == "float64":
        add(f"NOT isfinite({value})", "not_finite")
    if column.type == "date":
        add(f"{value} NOT BETWEEN DATE '1900-01-01' AND DATE '2262-04-11'", "out_of_range")
    if column.min is not None and math.isfinite(column.min):
        add(f"{value} < {column.min!r}", "below_min")
    if column.max is not None and math.isfinite(column.max):
        add(f"{value} > {column.max!r}", "above_max")
    if column.values is not None:
        listed = ", ".join(
            typed(trimmed_text(text_literal(item), column, source), column, source)
            for item in column.values
        )
        allowed = f"coalesce({value} IN ({listed}), false)" if listed else "false"
        add(f"{value} IS NOT NULL AND NOT {allowed}", "not_allowed")
    if column.regex is not None:
        shown = f"CAST({value} AS VARCHAR)" if is_computed else text
        add(f"NOT regexp_full_match({shown}, {text_literal(column.regex)})", "no_match")
    return checks


def time_checks(
    name: str, text: str, value: str, dates: str | None, mixed: Mixed = ()
) -> list[Check]:
    """Return the checks of a time's cells, whatever it is the time of.

    A computed time has no text: it is its own (`text` is `value`), and is there or not.
    """
    if text == value:
        return [range_check(name, value)]
    unread, not_timestamp = f"{text} IS NOT NULL AND {value} IS NULL", f"{name}: not_timestamp"
    checks = [
        # By CASE: what was read is not looked at again.
        Check(f"CASE WHEN {unread} THEN NOT {is_time(text, dates)} END", not_timestamp, name),
        # What has the form of a time and is none is one that a clock change makes ambiguous.
        Check(unread, f"{name}: ambiguous_time", name),
    ]
    for minority in (True, False):
        partitions = [
            partition for partition, column, kind in mixed if column == name and kind == minority
        ]
        if partitions:
            listed = ", ".join(text_literal(partition) for partition in partitions)
            kind = aware(text) if minority else f"NOT {aware(text)}"
            bad = f"t.partition IN ({listed}) AND {kind}"
            checks.append(Check(bad, f"{name}: mixed_time_zones"))
    return [*checks, range_check(name, value, name)]


def range_check(name: str, value: str, column: str | None = None) -> Check:
    """Return the check of a time that must be one of business; `column` as `Check` has it."""
    return Check(f"{value} NOT BETWEEN {OLDEST} AND {NEWEST}", f"{name}: out_of_range", column)
