"""The YAML of outcomes in a table of their own: its source, and the label as SQL that joins it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from typing import NamedTuple

from include.config import durations
from include.config.durations import lag_after_event
from include.onboarding.answers import Answers
from include.onboarding.column_roles import Roles
from include.onboarding.draft_times import PERIOD, Horizon, Times
from include.onboarding.draft_yaml import (
    column_lines,
    entity_type,
    max_bad_line,
    one_of,
    place_lines,
    sql_name,
    zero_one,
)
from include.onboarding.horizon_lines import horizon_interval, within_comments
from include.onboarding.outcome_tables import OutcomeTable
from include.onboarding.worst_partition import Worst
from include.onboarding.yaml_text import column_names, note, plain_name


def _names_of(apart: OutcomeTable, names: dict[str, str]) -> dict[str, str]:
    """Return the names of its columns; the id is called as in the table of decisions."""
    key = names[apart.match.here.header]
    headers = [c.header for c in apart.table.columns if c is not apart.match.there]
    own = {apart.label.header} & {"label"}
    if apart.time is not None:
        own |= {apart.time.header} & {"event_timestamp", "label_timestamp"}
    listed = column_names([key, *headers], own, key)
    return {apart.match.there.header: key} | {header: listed[header] for header in headers}


def outcome_source_lines(
    apart: OutcomeTable,
    path: str,
    roles: Roles,
    names: dict[str, str],
    times: Times,
    worst: Worst | None,
) -> Iterator[str]:
    """Yield the source of a table of outcomes."""
    own, match, table = _names_of(apart, names), apart.match, apart.table
    yield (
        f"  {plain_name(apart.name)}:  # the outcomes; guessed: {note(match.there.header)} has "
        f"{match.found_here:.1%} of the values of {note(match.here.header)}, which has "
        f"{match.found_there:.1%} of its values"
    )
    yield from place_lines(table, path)
    key = plain_name(own[match.there.header])
    if apart.time is None or apart.is_static:
        why = "many outcomes have no time" if apart.time else "no column says when one was known"
        yield f"    kind: static  # {why}"
        yield f"    valid_from: {times.first}  # assumed: known from the first day"
    else:
        yield f"    event_time: {plain_name(own[apart.time.header])}  # when an outcome was known"
        yield "    arrival: event + 0s  # assumed: each outcome was known at once"
        yield "    empty: allow  # a file that is given once has days without rows"
    yield f"    key: [{key}]  # guessed: an outcome each"
    if worst is not None:
        yield max_bad_line(worst)
    yield f"    columns:  # types guessed from all {table.rows} rows"
    is_key = any(match.here is column for column in (roles.entity, roles.record))
    kind = entity_type(match.here) if is_key else match.here.type
    yield from column_lines(table, own, {match.there.header}, [match.there], kind)


def _time_of(
    apart: OutcomeTable, roles: Roles, names: dict[str, str], own: dict[str, str]
) -> str | None:
    """Return the expression of when an outcome was known, in the query that joins it."""
    if apart.time is not None:
        if not apart.is_static:
            return "outcome.event_timestamp"
        name = sql_name(own[apart.time.header].strip('"'))
        return f"CAST(outcome.{name} AS TIMESTAMPTZ)"
    if roles.outcome is None:
        return None
    name = sql_name(names[roles.outcome.header].strip('"'))
    return f"CAST(decision.{name} AS TIMESTAMPTZ)"


class _Told(NamedTuple):
    """The expressions of a joined outcome: when it was known, what it is, and why so."""

    known: str
    value: str
    why: str


def _told(
    answers: Answers, horizon: Horizon | None, at: str | None, value: str, column: str
) -> _Told:
    """Return when an outcome was known and what it is, as SQL; `at` is its time, of a column.

    What a row says of the outcome is hidden until it was known: not every source is cut by it.
    """
    lag = lag_after_event(answers.outcome) if answers.outcome else None
    as_of = "getvariable('as_of')"
    if at is None or lag is not None:
        why = "given" if lag is not None else "assumed: known at once; write the true delay"
        seconds = int((lag or timedelta(0)).total_seconds())
        known = f"decision.event_timestamp + INTERVAL {seconds} SECOND"
        if seconds:
            value = f"CASE WHEN {known} < {as_of} THEN ({value}) END"
        return _Told(known, value, f"{why}. A decision without an outcome is kept, and has none")
    if horizon is not None:
        until = f"decision.event_timestamp + INTERVAL {horizon_interval(horizon)}"
        return _Told(
            f"least({at}, {until})",
            f"CASE WHEN {at} <= {until} AND {at} < {as_of} THEN ({value}) "
            f"WHEN {until} < {as_of} THEN 0 END",
            f"{column}, or when the time is over: a decision without an outcome by then is a 0",
        )
    return _Told(
        f"coalesce({at}, decision.event_timestamp)",
        f"CASE WHEN {at} < {as_of} THEN ({value}) END",
        f"guessed: {column} says when the outcome was known. A decision without an outcome is "
        "kept, and has none",
    )


def outcome_label_lines(
    apart: OutcomeTable,
    roles: Roles,
    names: dict[str, str],
    answers: Answers,
    times: Times,
) -> Iterator[str]:
    """Yield the label as SQL: each decision with the outcome that its id finds, if there is one."""
    own = _names_of(apart, names)
    entity, key = (
        sql_name(names[each.header].strip('"')) for each in (roles.entity, apart.match.here)
    )
    value = zero_one(f"outcome.{sql_name(own[apart.label.header])}", apart.label, roles)
    at, column = _time_of(apart, roles, names, own), apart.time or roles.outcome
    shown = "" if column is None else note(column.header)
    told = _told(answers, times.horizon, at, value, shown)
    condition = f"outcome.{key} = decision.{key}"
    if apart.time is not None:
        # An outcome from before its decision is that of another.
        before = f"{at} >= decision.event_timestamp"
        condition += f" AND ({at} IS NULL OR {before})" if apart.is_static else f" AND {before}"
    yield "label:"
    yield f"  # {roles.why['label']}; the score is the probability of {note(one_of(roles))}."
    if times.horizon is not None:
        yield from within_comments(roles, times.horizon)
    yield f"  # label_timestamp: {told.why}."
    yield "  sql: |"
    yield "      SELECT"
    # In the order of the columns that a label has.
    yield f"          decision.{entity},"
    yield "          decision.event_timestamp,"
    yield f"          {told.known} AS label_timestamp,"
    yield f"          {told.value} AS label"
    yield "      FROM rows AS decision"
    yield f"      LEFT JOIN {sql_name(apart.name)} AS outcome"
    yield f"          ON {condition}"
    yield f"      WHERE decision.{entity} IS NOT NULL"
    if not roles.entity.unique:
        # As of a label on the row: of several rows of one moment the last written one stands.
        record = names[(roles.record or roles.entity).header]
        yield (
            f"      QUALIFY row_number() OVER (PARTITION BY decision.{entity}, "
            "decision.event_timestamp"
        )
        yield (
            "          ORDER BY decision.created_timestamp DESC, decision."
            f"{sql_name(record.strip(chr(34)))} DESC) = 1"
        )
    back = timedelta(days=math.ceil(times.delay / timedelta(days=1)) + 2 * PERIOD[times.cadence])
    yield (
        f"  lookback: {durations.format_duration(back)}  # the delay and two periods: a decision "
        "is looked at until its outcome is believed"
    )
    yield f"  delay: {durations.format_duration(times.delay)}  # {times.why_delay}"
