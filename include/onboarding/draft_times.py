"""The times of a draft: cadence, history, the label's delay, how far back features look."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from include.config import durations
from include.errors import ConfigError
from include.onboarding.answers import Answers
from include.onboarding.column_roles import Roles, count_decisions, is_one
from include.onboarding.profile import Table, moment, text
from include.onboarding.yaml_text import note

_DAY = timedelta(days=1)
EVER = "ever"
"""The answer that an outcome counts whenever it comes."""
PERIOD = {"day": 1, "week": 7, "month": 31}
"""Days of the longest period of a cadence."""
HORIZONS = (1, 3, 7, 14, 30, 60, 90, 180, 365, 730, 1095, 1826, 3652)
"""Days within which an outcome may be asked for: up to weeks, months, and 1, 2, 3, 5, 10 years."""
_MOST = 0.95  # of the outcomes 1 that are to come within the time, where others have no time at all


@dataclass(frozen=True, slots=True)
class Times:
    """What a draft says of time, each with its reason."""

    cadence: str
    why_cadence: str
    first: date
    last: date
    why_last: str
    delay: timedelta
    why_delay: str
    horizon: Horizon | None = None


@dataclass(frozen=True, slots=True)
class Horizon:
    """Within how long an outcome counts: where the last come too late, or only the 1 has a time.

    `covered` has for each number of days that may be chosen the share of the outcomes 1 that come
    within it. With `only_ones` the outcome 0 has no time of its own, as of who has not left yet.
    """

    within: timedelta
    covered: tuple[tuple[int, float], ...]
    only_ones: bool = False
    given: bool = False

    @property
    def later(self) -> float | None:
        """The share of the outcomes 1 that come after the time; None where nobody counted it."""
        share = dict(self.covered).get(self.within.days)
        return None if share is None else 1 - share


def guess_times(table: Table, roles: Roles, answers: Answers) -> Times:
    """Return cadence, history and the label's delay, as the rows have them."""
    event = moment(roles.event.header)
    later = [
        moment(column.header) for column in (roles.arrival, roles.outcome) if column is not None
    ]
    latest = f"greatest({', '.join([event, *later])})"
    lag, usual = table.lag_days(latest, event), table.lag_days(latest, event, 0.95)
    delay = timedelta(days=math.ceil(lag))
    why_delay = (
        f"guessed: the latest outcome came {lag:.1f} days after its row (95 % within {usual:.1f})"
        if later
        else "assumed, as above"
    )
    # What a person said of arrival and outcome as durations; both count from the event.
    for answer in (answers.known, answers.outcome):
        said = durations.lag_after_event(answer) if answer else None
        if said is not None and said > delay:
            delay, why_delay = said, "given"
    start, end = (_day(value) for value in table.moments(roles.event.header))
    horizon = None
    if roles.outcome is not None:
        horizon = _horizon(table, roles, answers, delay, end - start)
    if horizon is not None:
        # The outcome of the question is known at its end, whatever happens.
        delay, why_delay = (
            horizon.within + _DAY,
            "the time within which an outcome counts, and a day",
        )
    arrived = _day(table.moments(roles.arrival.header)[1]) if roles.arrival else end
    cadence, why_cadence = _cadence(table, roles, (end - start).days + 1)
    mature = int(
        table.scalar(
            f"SELECT count(*) FROM given WHERE {event} + to_microseconds(?) < ?",
            delay // timedelta(microseconds=1),
            _midnight(arrived + _DAY),
        )
    )
    last, why_last = arrived, "guessed from the file's first and last row"
    # Most rows too young at the last arrival: the file was written later, when outcomes were known.
    if mature < table.rows / 2:
        last, why_last = (
            end + delay + _DAY,
            "guessed from the file's first row, and the day on which its last outcome is known",
        )
    if roles.snapshot:
        why_cadence, why_last = "the one day of the table", "given: the day of the table"
    keys = durations.period_start(cadence, start), durations.period_start(cadence, last)
    return Times(cadence, why_cadence, *keys, why_last, delay, why_delay, horizon)


def _horizon(
    table: Table, roles: Roles, answers: Answers, delay: timedelta, span: timedelta
) -> Horizon | None:
    """Return within how long an outcome should count; None where all can be waited for.

    It is the shortest time in which half of the outcomes 1 come (nearly all, where the outcome 0
    has no time), but no longer than leaves half of the span for decisions whose outcome is known.
    """
    assert roles.outcome is not None
    at, known = moment(roles.event.header), moment(roles.outcome.header)
    outcome, one = text(roles.label.header), is_one(roles)
    missing = table.scalar(
        f"SELECT avg(({known} IS NULL)::INT) FROM given WHERE {outcome} IS NOT NULL AND NOT {one}"
    )
    only_ones = missing is not None and missing > 0.5
    if answers.within == EVER and only_ones:
        raise ConfigError(
            f"{table.path}: within {EVER!r}: only the outcome 1 has a time in "
            f"{roles.outcome.header!r}, and the other is known when a time is over: say which with "
            "--within, such as 90d"
        )
    if answers.within == EVER or not (only_ones or answers.within or delay > span / 2):
        return None
    lag = f"(epoch_us({known}) - epoch_us({at})) / 86400000000.0"
    rows = table.rows_of(
        f"SELECT {', '.join(f'avg(({lag} <= {days})::INT)' for days in HORIZONS)} FROM given WHERE "
        f"{one} AND {known} IS NOT NULL AND {at} IS NOT NULL"
    )
    shares = [
        (days, float(share or 0)) for days, share in zip(HORIZONS, rows[0], strict=True) if share
    ]
    if answers.within is not None:
        within = durations.parse_duration(answers.within)
        return Horizon(within, tuple(shares), only_ones, given=True)
    covered = tuple(pair for pair in shares if timedelta(days=pair[0]) <= span / 2)
    if not covered:
        return Horizon(timedelta(days=HORIZONS[0]), (), only_ones) if only_ones else None
    wanted = _MOST if only_ones else 0.5
    days = next((days for days, share in covered if share >= wanted), covered[-1][0])
    return Horizon(timedelta(days=days), covered, only_ones)


def _cadence(table: Table, roles: Roles, days: int) -> tuple[str, str]:
    """Return the cadence by the dates' own rhythm, else by their span, and why."""
    at = moment(roles.event.header)
    counts = {
        unit: int(table.scalar(f"SELECT count(DISTINCT date_trunc('{unit}', {at})) FROM given"))
        for unit in ("day", "week", "month")
    }
    for unit in ("month", "week"):
        if counts["day"] == counts[unit] >= 3 and days > 2 * {"month": 28, "week": 7}[unit]:
            return unit, f"the rhythm of {note(roles.event.header)}: one date a {unit}"
    cadence = "day" if days <= 400 else "week" if days <= 7 * 400 else "month"
    return cadence, f"the span of {note(roles.event.header)}"


def guess_ttl(table: Table, roles: Roles) -> timedelta:
    """Return how long a row's values count: the span of the rows, of repeating entities a year."""
    first, last = (_day(value) for value in table.moments(roles.event.header))
    span = timedelta(days=(last - first).days + 2)
    return (
        max(span, timedelta(days=35))
        if roles.entity.unique
        else min(max(span, timedelta(days=35)), timedelta(days=365))
    )


def guess_min_rows(table: Table, roles: Roles, horizon: Horizon | None = None) -> int:
    """Return the least rows of each outcome for which a verdict is given."""
    count, rate = count_decisions(table, roles)
    if horizon is not None and horizon.later is not None:
        rate *= 1 - horizon.later  # those that come too late count as 0
    return max(10, min(500, math.floor(count * min(rate, 1 - rate)) // 10))


def _day(value: datetime) -> date:
    return value.astimezone(UTC).date()


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
