"""The YAML of outcomes in a table of their own: its source, and the label as SQL that joins it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta

from include.config import durations
from include.config.durations import lag_after_event
from include.onboarding.answers import Answers
from include.onboarding.column_roles import Roles
from include.onboarding.draft_times import PERIOD, Times
from include.onboarding.draft_yaml import (
    column_lines,
    entity_type,
    max_bad_line,
    one_of,
    place_lines,
    sql_name,
    zero_one,
)
from include.onboarding.outcome_tables import OutcomeTable
from include.onboarding.profile import Worst
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
    if apart.time is None:
        yield "    kind: static  # no column says when an outcome was known"
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
    outcome, label = f"outcome.{sql_name(own[apart.label.header])}", apart.label
    value = zero_one(outcome, label, roles)
    lag = lag_after_event(answers.outcome) if answers.outcome else None
    joins = [f"      LEFT JOIN {sql_name(apart.name)} AS outcome"]
    condition = f"outcome.{key} = decision.{key}"
    if lag is not None or (apart.time is None and roles.outcome is None):
        why = "given" if lag is not None else "assumed: known at once; write the true delay"
        seconds = int((lag or timedelta(0)).total_seconds())
        known = f"decision.event_timestamp + INTERVAL {seconds} SECOND"
        if seconds:
            value = f"CASE WHEN {known} < getvariable('as_of') THEN ({value}) END"
    elif apart.time is not None:
        why = f"guessed: {note(apart.time.header)} says when the outcome was known"
        known = "coalesce(outcome.event_timestamp, decision.event_timestamp)"
        # An outcome from before its decision is that of another.
        condition += " AND outcome.event_timestamp >= decision.event_timestamp"
    else:
        assert roles.outcome is not None
        why = f"guessed: {note(roles.outcome.header)} says when the outcome was known"
        column = f"CAST(decision.{sql_name(names[roles.outcome.header])} AS TIMESTAMPTZ)"
        known = f"coalesce({column}, decision.event_timestamp)"
        value = f"CASE WHEN {known} < getvariable('as_of') THEN ({value}) END"
    yield "label:"
    yield f"  # {roles.why['label']}; the score is the probability of {note(one_of(roles))}."
    yield f"  # label_timestamp: {why}. A decision without an outcome is kept, and has none."
    yield "  sql: |"
    yield "      SELECT"
    # In the order of the columns that a label has.
    yield f"          decision.{entity},"
    yield "          decision.event_timestamp,"
    yield f"          {known} AS label_timestamp,"
    yield f"          {value} AS label"
    yield "      FROM rows AS decision"
    yield from joins
    yield f"          ON {condition}"
    yield f"      WHERE decision.{entity} IS NOT NULL"
    record = names[roles.record.header] if roles.record is not None else names[roles.entity.header]
    if not roles.entity.unique:
        # As of a label on the row: of several rows of one moment the last written one stands.
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
