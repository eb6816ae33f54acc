"""Which columns of a table are its times: of the event, of its arrival, of the outcome."""

from __future__ import annotations

import re
from collections.abc import Sequence

from include.config.durations import lag_after_event
from include.errors import ConfigError
from include.onboarding import header_words as words
from include.onboarding.answers import Answers, Undecided
from include.onboarding.date_parts import Expression
from include.onboarding.header_words import plain
from include.onboarding.profile import Profile, Table, moment
from include.onboarding.yaml_text import name_others, name_some


def guess_times_of(
    table: Table,
    times: Sequence[Profile],
    computed: Sequence[Profile],
    given: Profile | None,
    answers: Answers,
    apart: Profile | None = None,
) -> tuple[Profile, Profile | None, Profile | None, str]:
    """Return the columns of event, arrival and the outcome's time, and why it is that event.

    `apart` is the outcome's time where another table says it.
    """
    if answers.snapshot is not None:
        return table.add_snapshot(answers.snapshot), None, None, "given: the day of the table"
    event, why = guess_event(table, times, computed, given)
    arrival, outcome = _later_times(table, times, event)
    if apart is not None:
        outcome, times = apart, [*times, apart]
    if answers.known is not None:
        arrival = _answered(table, times, answers.known, event, "when a row is known")
    if answers.outcome is not None:
        outcome = _answered(table, times, answers.outcome, event, "when the outcome is known")
    return event, arrival, None if outcome is arrival else outcome, why


def guess_event(
    table: Table, times: Sequence[Profile], computed: Sequence[Profile], given: Profile | None
) -> tuple[Profile, str]:
    """Return the column of the time at which each row happened, and why it was taken.

    `computed` are dates made of several columns, the surest first.
    """
    if given is not None:
        if given.type not in ("date", "timestamp"):
            raise ConfigError(
                f"--time {given.header!r} holds no dates or times (it is {given.type}); name one "
                "that does"
            )
        return given, "given: when the row happened"
    if not times and not computed:
        questions = [
            f"{column.header!r} holds {note}"
            for column in table.columns
            for note in column.notes
            if note.startswith(("dates", "times"))
        ]
        raise Undecided(
            f"{table.path}: no column holds dates (YYYY-MM-DD) or timestamps; Evergreen needs to "
            "know when each row happened: "
            + ("; ".join(questions) or "add a column, or convert one to ISO 8601")
            + ". Where nothing says it, such as in a survey, write --snapshot DATE: the day for "
            "which the whole table stands",
            field="snapshot",
            question="For which day does the table stand (YYYY-MM-DD)?",
            choices=(),
            option="--snapshot",
        )
    candidates = [
        column
        for column in times
        if not words.BIRTH.search(plain(column.header))
        and not words.OUTCOME_TIME.search(plain(column.header))
    ]
    computed = [column for column in computed if not _is_of_outcome_or_birth(column)]
    # Of a date and the clock beside it the date is chosen first, as if it stood alone.
    clocks = [c for c in computed if isinstance(c.made, Expression) and c.made.has_clock]
    computed = [column for column in computed if column not in clocks]
    if computed and not any(
        re.search(pattern, plain(column.header))
        for column in candidates
        for pattern in words.EVENT[:2]
    ):
        event = computed[0]
        others = name_others(column for column in (*computed, *times) if column is not event)
        assert isinstance(event.made, Expression)
        parts = ", ".join(map(repr, event.made.parts))
        return event, f"guessed: the date that stands in {parts}{others}"
    if not candidates:
        raise Undecided(
            f"{table.path}: {name_some(times)} sound(s) like the time of an outcome or a birth, "
            "not of a decision; name the column that says when each row happened with --time (one "
            "of these, if it does), or say with --snapshot DATE for which day the table stands",
            field="time",
            question="What is the moment of the decision?",
            choices=tuple(column.header for column in times),
            option="--time",
        )
    full = [column for column in candidates if column.nulls == 0] or candidates
    ranked = [
        column
        for pattern in words.EVENT
        for column in full
        if re.search(pattern, plain(column.header))
        and not words.ARRIVAL.search(plain(column.header))
    ]
    event = (ranked or full)[0]
    others = name_others(column for column in times if column is not event)
    for moment_of in clocks:
        assert isinstance(moment_of.made, Expression)
        if moment_of.made.parts[0] == event.header:
            parts = " and ".join(map(repr, moment_of.made.parts))
            return moment_of, f"guessed: when the row happened, of {parts}{others}"
    return event, f"guessed: when the row happened{others}"


def _answered(
    table: Table, times: Sequence[Profile], answer: str | None, event: Profile, what: str
) -> Profile | None:
    """Return the column that a person named as a time; None where the answer is a duration."""
    if answer is None or lag_after_event(answer) is not None:
        return None
    for column in times:
        if column.header == answer and column is not event:
            return column
    raise ConfigError(
        f"{table.path}: {what}: {answer!r} is neither another column of dates or times "
        f"({name_some(times)}) nor `event + DURATION`"
    )


def _is_of_outcome_or_birth(column: Profile) -> bool:
    """Tell whether a computed date is made of columns that sound of an outcome or a birth."""
    parts = column.made.parts if isinstance(column.made, Expression) else (column.header,)
    return any(
        words.BIRTH.search(plain(part)) or words.OUTCOME_TIME.search(plain(part)) for part in parts
    )


def _later_times(
    table: Table, times: Sequence[Profile], event: Profile
) -> tuple[Profile | None, Profile | None]:
    """Return the columns of arrival and of the outcome's time: hardly ever before the event."""
    later = [
        column
        for column in times
        if column is not event
        and table.lag_days(moment(column.header), moment(event.header), 0.001) >= 0
    ]
    arrival = next((c for c in later if words.ARRIVAL.search(plain(c.header))), None)
    outcome = next(
        (c for c in later if c is not arrival and words.OUTCOME_TIME.search(plain(c.header))), None
    )
    return arrival, outcome
