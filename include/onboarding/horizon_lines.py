"""The YAML of an outcome that counts within a time only, on the decision's own row."""

from __future__ import annotations

from collections.abc import Iterator

from include.config import durations
from include.onboarding.column_roles import Roles
from include.onboarding.draft_times import PERIOD, Horizon, Times
from include.onboarding.draft_yaml import one_of, sql_name, zero_one
from include.onboarding.yaml_text import note


def label_within_lines(roles: Roles, names: dict[str, str], times: Times) -> Iterator[str]:
    """Yield the label as SQL: whether the outcome 1 came within a time that can be waited for."""
    assert times.horizon is not None
    assert roles.outcome is not None
    entity, known = (
        sql_name(names[each.header].strip('"')) for each in (roles.entity, roles.outcome)
    )
    outcome = sql_name(names[roles.label.header].strip('"'))
    known = f"CAST({known} AS TIMESTAMPTZ)"
    until = f"event_timestamp + INTERVAL {horizon_interval(times.horizon)}"
    value = zero_one(outcome, roles.label, roles)
    yield "label:"
    yield f"  # {roles.why['label']}; the score is the probability of {note(one_of(roles))}."
    yield from within_comments(roles, times.horizon)
    yield "  sql: |"
    yield "      SELECT"
    yield f"          {entity},"
    yield "          event_timestamp,"
    yield f"          least({known}, {until}) AS label_timestamp,"
    yield from within_case(known, until, value, times.horizon)
    yield "      FROM rows"
    yield f"      WHERE {entity} IS NOT NULL"
    if not roles.entity.unique:
        record = names[(roles.record or roles.entity).header].strip('"')
        yield (
            f"      QUALIFY row_number() OVER (PARTITION BY {entity}, event_timestamp ORDER BY "
            f"created_timestamp DESC, {sql_name(record)} DESC) = 1"
        )
    yield (
        f"  lookback: {2 * PERIOD[times.cadence]}d  # two periods: a row has its outcome when "
        "it is read"
    )
    yield f"  delay: {durations.format_duration(times.delay)}  # {times.why_delay}"


def horizon_interval(horizon: Horizon) -> str:
    """Return the time within which an outcome counts, as SQL writes it behind INTERVAL."""
    seconds = int(horizon.within.total_seconds())
    return f"{seconds} SECOND" if seconds % 86_400 else f"{horizon.within.days} DAY"


def within_comments(roles: Roles, horizon: Horizon) -> Iterator[str]:
    """Yield why an outcome counts within a time only, and what else could be chosen."""
    one, days = note(one_of(roles)), durations.format_duration(horizon.within)
    if not horizon.given:
        why = (
            f"Only the outcome {one} has a time, so the other is known when the time is over;"
            if horizon.only_ones
            else "The last comes too late to wait for, so"
        )
        yield f"  # ASK: Within how long does the outcome count? {why}"
    later = (
        ""
        if horizon.later is None
        else f"; {horizon.later:.0%} of the outcomes {one} come later, and count as 0"
    )
    yield f"  # {'given' if horizon.given else 'guessed'}: within {days}{later}."
    if horizon.covered:
        choices = ", ".join(f"{n} days {part:.0%}" for n, part in horizon.covered)
        yield f"  # Choices, with the share that comes within them: {choices}."
    yield "  # Say it with --within, or change the time in the SQL, and delay to a day more."


def within_case(known: str, until: str, value: str, horizon: Horizon) -> Iterator[str]:
    """Yield the CASE of an outcome that counts until a time; `known` is when it came."""
    yield f"          CASE WHEN {known} > {until} THEN 0"
    # Who has no time of an outcome has none yet, and is a 0 once the time is over.
    over = f" OR ({value}) = 0" if horizon.only_ones else ""
    yield f"              WHEN {known} IS NOT NULL{over} THEN ({value}) END AS label"
