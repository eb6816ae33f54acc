"""Which of several tables holds the decisions, and which only says how they came out.

A table of ids and outcomes has no decisions of its own: each of its rows belongs to one of another
table, which has the moment and the features. Its outcome is joined by the id, through `label.sql`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from include.errors import ConfigError
from include.onboarding.answers import Answers
from include.onboarding.column_roles import MAX_REPEATED, Outcome, guess_roles
from include.onboarding.header_words import LABEL, plain
from include.onboarding.joins import Match, best_match
from include.onboarding.label_values import guess_label
from include.onboarding.profile import Profile, Table, moment, text
from include.onboarding.time_roles import guess_event
from include.onboarding.yaml_text import name_of, note

_EARLY = 0.05  # share of times of outcomes that may lie before their decisions, by mistake


@dataclass(frozen=True, slots=True)
class OutcomeTable:
    """A table of outcomes alone: how its rows find their decisions, its outcome and that's time."""

    name: str
    table: Table
    match: Match
    label: Profile
    time: Profile | None

    @property
    def is_static(self) -> bool:
        """Whether its rows are no events: without a time, or with one that many of them lack."""
        return self.time is None or self.time.nulls > MAX_REPEATED * self.table.rows


@dataclass(frozen=True, slots=True)
class Arranged:
    """Tables by what they are for: decisions, their outcomes where those stand apart, the rest."""

    main: Table
    outcomes: OutcomeTable | None
    others: tuple[Table, ...]


def arrange_tables(tables: Sequence[Table], answers: Answers) -> Arranged:
    """Return which table holds the decisions, and which only their outcomes.

    A table of nothing but ids, an outcome, which its name says, and perhaps its time is joined to
    the table whose rows it is about; else a table with a moment and an outcome holds both.

    Raises:
        ConfigError: no table has an outcome, or its rows are of no other table; it says why.
    """
    if len(tables) == 1:
        return Arranged(tables[0], None, ())
    wrong: list[str] = []
    apart = _outcomes_apart(tables, answers, wrong, named=True)
    main = None if apart is None else _owner(apart, tables)
    if main is None:
        whole = []
        for table in tables:
            try:
                whole.append((table, guess_roles(table, answers, alone=False)))
            except ConfigError as error:
                wrong.append(str(error))
        named = [table for table, roles in whole if LABEL.search(plain(roles.label.header))]
        apart = None if named else _outcomes_apart(tables, answers, wrong, named=False)
        if apart is not None:
            main = _owner(apart, tables)
        elif whole:
            main = (named or [table for table, _ in whole])[0]
    if main is None:
        listed = list(dict.fromkeys(wrong))
        raise ConfigError("\n".join(["no table holds decisions with their outcome:", *listed]))
    used = [main, *([apart.table] if apart else [])]
    return Arranged(main, apart, tuple(t for t in tables if all(t is not one for one in used)))


def _outcomes_apart(
    tables: Sequence[Table], answers: Answers, wrong: list[str], *, named: bool
) -> OutcomeTable | None:
    """Return the first table of outcomes alone; `named`: whose name says that it is an outcome."""
    for table in tables:
        try:
            found = _as_outcomes(table, tables, answers)
        except ConfigError as error:
            wrong.append(str(error))
            continue
        if found is None:
            continue
        given = found.label.header == answers.label
        if given or not named or LABEL.search(plain(found.label.header)):
            return found
    return None


def _owner(apart: OutcomeTable, tables: Sequence[Table]) -> Table:
    return next(t for t in tables if any(c is apart.match.here for c in t.columns))


def _only_outcomes(table: Table, label: Profile) -> bool:
    """Tell whether a table has nothing but an id, the outcome and at most one time."""
    rest = [c for c in table.columns if c is not label]
    times = [c for c in rest if c.type in ("date", "timestamp")]
    others = [c for c in rest if c not in times and c.distinct > 1]
    return len(times) <= 1 and len(others) == 1


def _as_outcomes(table: Table, tables: Sequence[Table], answers: Answers) -> OutcomeTable | None:
    """Return a table as one of outcomes alone; None where it holds more, or no outcome.

    Raises:
        ConfigError: it is one, but its rows are of no other table, or an id has several.
    """
    given = next((c for c in table.columns if c.header == answers.label), None)
    if answers.label is not None and given is None:
        return None
    times = [c for c in table.columns if c.type in ("date", "timestamp")]
    try:
        # The id of a few rows could have two values as well, so it takes no part where it can be
        # told from the rest.
        label = guess_label(
            table, [c for c in table.columns if c not in times and not c.unique], given
        ).column
    except ConfigError:
        return None
    if not _only_outcomes(table, label):
        return None
    # A table that holds the decisions has a moment of its own, which that of an outcome is not.
    id_here = next(c for c in table.columns if c is not label and c not in times and c.distinct > 1)
    found: list[Match] = []
    reasons = []
    for other in tables:
        if other is table:
            continue
        try:
            found.append(best_match(table, [id_here], other))
        except ConfigError as error:
            reasons.append(str(error))
    if not found:
        raise ConfigError("\n".join(reasons))
    # `best_match` goes from the table of outcomes; to whose rows it belongs, most values and an
    # own row each come first.
    best = max(found, key=lambda m: (round(m.found_here, 2), m.there.unique, m.found_there))
    if times and not _comes_later(table, id_here, times[0], best.there, tables):
        return None  # it is the moment of the decision
    repeated = id_here.rows - id_here.nulls - id_here.distinct
    if repeated > MAX_REPEATED * table.rows:
        raise ConfigError(
            f"{table.path}: {repeated} rows repeat the {id_here.header!r} of another, and a "
            "decision has one outcome; leave one row of each, or add to each row the moment of its "
            "decision"
        )
    return OutcomeTable(
        name_of(table.path.name.split(".")[0]),
        table,
        Match(best.there, best.here, best.found_there, best.found_here),
        label,
        times[0] if times else None,
    )


def _comes_later(
    table: Table, key: Profile, time: Profile, there: Profile, tables: Sequence[Table]
) -> bool:
    """Tell whether a time is after the moment of the decision that another table has."""
    owner = next(t for t in tables if any(c is there for c in t.columns))
    when = [c for c in owner.columns if c.type in ("date", "timestamp")]
    if not when:
        return False
    pairs = table.rows_of(
        f"SELECT {text(key.header)} AS k, {text(time.header)} FROM given WHERE k IS NOT NULL "
        "ORDER BY ALL"
    )
    joined = owner.add_joined(time.header, there.header, pairs, time.column.type)
    decided, known = moment(guess_event(owner, when, (), None)[0].header), moment(joined.header)
    both, before, after = owner.rows_of(
        f"SELECT count(*), count(*) FILTER ({known} < {decided}), count(*) FILTER ({known} > "
        f"{decided}) FROM given WHERE {known} IS NOT NULL AND {decided} IS NOT NULL"
    )[0]
    return bool(both) and before <= _EARLY * both and after > before


def joined_outcome(main: Table, apart: OutcomeTable) -> Outcome:
    """Add the outcome, and its time, to the table of decisions; return both columns."""
    key, there = apart.match.here, text(apart.match.there.header)

    def pairs(column: Profile) -> list[tuple[str, str | None]]:
        return [
            (str(k), None if v is None else str(v))
            for k, v in apart.table.rows_of(
                f"SELECT {there} AS k, {text(column.header)} FROM given WHERE k IS NOT NULL "
                "ORDER BY ALL"
            )
        ]

    label = main.add_joined(apart.label.header, key.header, pairs(apart.label))
    if apart.time is None:
        return Outcome(label, None, _why(apart))
    kind = apart.time.column.type
    time = main.add_joined(apart.time.header, key.header, pairs(apart.time), kind)
    return Outcome(label, time, _why(apart))


def _why(apart: OutcomeTable) -> str:
    return (
        f"guessed: {note(apart.label.header)} of {note(apart.table.path.name)}, joined by "
        f"{note(apart.match.there.header)} = {note(apart.match.here.header)}"
    )


def named_apart(apart: OutcomeTable, taken: set[str]) -> OutcomeTable:
    """Return the table of outcomes under a source name that no other has."""
    name, number = apart.name, 2
    while name in taken:
        name, number = f"{apart.name}_{number}", number + 1
    return replace(apart, name=name)


def shown_match(apart: OutcomeTable) -> tuple[str, str, str, str, str]:
    """Return the line of the table of joins: source, columns, shares, and what it gives."""
    match = apart.match
    return (
        apart.name,
        f"{match.there.header} = {match.here.header}",
        f"{match.found_there:.1%}",
        f"{match.found_here:.1%}",
        "the outcome",
    )
