"""What each column of a table is taken for: key, times, label, features; by names and values.

A guess is checked against the rows before it is offered: entity and time must tell decisions apart,
the time must not be that of the outcome. Where there is a choice that only a person can make, the
draft is refused and names the option.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from include.errors import ConfigError
from include.lake.sql import text_literal
from include.onboarding import header_words as words
from include.onboarding.answers import NOTHING, Answers
from include.onboarding.date_parts import add_dates
from include.onboarding.evidence import Evidence, find_evidence
from include.onboarding.header_words import sounds_of_id, sounds_of_person
from include.onboarding.label_values import (
    ONES,
    LabelGuess,
    Positive,
    guess_label,
    guess_positive,
    shown_one,
)
from include.onboarding.no_features import why_no_feature
from include.onboarding.profile import Profile, Table, moment, text
from include.onboarding.time_roles import guess_times_of
from include.onboarding.yaml_text import name_others, name_some

# As max_bad of a source: more rows that repeat a decision would block their partition.
MAX_REPEATED = 0.01
_ROW = "each row is an entity of its own, named by the digest of its values"
_NO_ENTITY = "no column names whom a row is about; name one with --entity"
_REPEATED = 20  # different values from which a column may be somebody's id that repeats


@dataclass(frozen=True, slots=True)
class Roles:
    """What each column was taken for.

    `why` says it of entity, event, label and key, in words that go into the draft; `left_out` are
    columns that are no feature, each with the reason, `written_later` of them those that were
    written after the decision. `moments` are all columns that could say when a row happened, and
    `evidence` tells what the rows say of a feature, by its header. `label_rivals` could be the
    outcome by their values; `label_sure` where its name says that it is one. `shown_one` is how the
    file writes the 1 of an outcome of yes and no.
    """

    entity: Profile
    record: Profile | None
    event: Profile
    arrival: Profile | None
    label: Profile
    positive: Positive | None
    outcome: Profile | None
    features: tuple[Profile, ...]
    left_out: tuple[tuple[Profile, str], ...]
    why: dict[str, str]
    evidence: dict[str, Evidence]
    written_later: tuple[Profile, ...]
    moments: tuple[Profile, ...]
    label_rivals: tuple[Profile, ...] = ()
    label_sure: bool = True
    shown_one: str = "1"

    @property
    def snapshot(self) -> bool:
        """Whether the whole table stands for one day."""
        return self.event.made == "snapshot"


@dataclass(frozen=True, slots=True)
class Shared:
    """How many rows share entity and time with another; `lost` if one of each group stays."""

    rows: int
    lost: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of decisions that another table holds, as columns that were joined to them."""

    label: Profile
    time: Profile | None
    why: str


def guess_roles(
    table: Table,
    answers: Answers = NOTHING,
    *,
    alone: bool = True,
    outcome_apart: Outcome | None = None,
) -> Roles:
    """Return the role of each column; `answers` are what a person knows.

    A table that is not `alone` may have no feature: others hold them. `outcome_apart` is the
    outcome where another table holds it.

    Raises:
        ConfigError: a role has no column, or only a person can say which; the message names the
            option.
    """
    columns = [column for column in table.columns if not _is_index(column)]
    computed = () if answers.snapshot else add_dates(table)
    given_entity = _given(table.columns, answers.key, "--entity")
    given_event = _given((*table.columns, *computed), answers.time, "--time")
    given_label = None if outcome_apart else _given(table.columns, answers.label, "--label")
    times = [column for column in columns if column.type in ("date", "timestamp")]
    event, arrival, outcome, why_event = guess_times_of(
        table, times, computed, given_event, answers, outcome_apart.time if outcome_apart else None
    )
    taken = [column for column in (event, arrival, outcome) if column is not None]
    if outcome_apart is not None:
        named = LabelGuess(outcome_apart.label, outcome_apart.why)
    else:
        free = [column for column in columns if column not in taken]
        named = guess_label(table, free, given_label, answers.positive)
    result = named.column
    positive = guess_positive(table, result, "--label" if given_label else "", answers.positive)
    taken.append(result)
    guess = _guess_entity([c for c in columns if c not in taken], given_entity, taken)
    entity, why_entity = guess or (table.add_row_id(), f"guessed: {_ROW}; {_NO_ENTITY}")
    taken.append(entity)
    record = next(
        (c for c in columns if c not in taken and c.unique and sounds_of_id(c.header)), None
    )
    left_out = [
        (column, "the place of a row in a file")
        for column in table.columns
        if column not in columns and column not in taken
    ]
    shared = _count_shared(table, entity, event)
    if shared.lost > MAX_REPEATED * table.rows:
        problem = (
            f"{shared.rows} of {table.rows} rows share {entity.header!r} and {event.header!r} "
            "with another"
        )
        if given_entity is not None:
            such = "" if record is None else f", such as {record.header!r}"
            raise ConfigError(
                f"{table.path}: {problem}, and a decision has one row: name a finer time with "
                f"--time, or with --entity a column that each row has of its own{such}"
            )
        left_out.append(
            (entity, "names whom several rows are about; the key of the row is the entity")
        )
        why_entity = f"guessed: an entity a row, since {problem}"
        entity, record = record or table.add_row_id(), None
    taken += [column for column in (record, entity) if column is not None and column not in taken]
    why_key = "what names a row; a later row of the same key corrects it"
    if record is None and not entity.unique and shared.lost:
        why_key += f"; {shared.lost} rows repeat it and would go to quarantine"
    left = [c for c in columns if c not in taken and all(c is not other for other, _ in left_out)]
    reasons = {column.header: why_no_feature(table, column, event) for column in left}
    left_out += [(c, reasons[c.header]) for c in left if reasons[c.header]]
    features = [column for column in left if not reasons[column.header]]
    evidence = find_evidence(table, features, result, positive)
    later = written_later(table, features, evidence, answers, alone=alone)
    left_out += [
        (
            column,
            why_later(
                column, evidence[column.header], column.header in (answers.written_later or ())
            ),
        )
        for column in later
    ]
    features = [column for column in features if column not in later]
    if not features and alone:
        remedy = "; add some to the table"
        if later:
            remedy = (
                f"; {name_some(later)} seem(s) to be written after the outcome: say "
                "--written-later none if they are not"
            )
        raise ConfigError(f"{table.path}: no column is left that could be a feature{remedy}")
    why = {
        "entity": why_entity,
        "event": why_event,
        "label": named.why,
        "key": f"guessed: {why_key}",
    }
    return Roles(
        entity,
        record,
        event,
        # Each entity once: what stands on its row was known when it happened, or there is nothing
        # to score.
        None if entity.unique and answers.known is None else arrival,
        result,
        positive,
        outcome,
        tuple(features),
        tuple(left_out),
        why,
        evidence,
        later,
        (*computed, *times),
        named.rivals,
        named.sure,
        shown_one(table, result),
    )


def count_decisions(table: Table, roles: Roles) -> tuple[int, float]:
    """Return how many decisions the rows make, and the share of 1 among those with an outcome.

    Of rows that share entity and time the one of the greatest key counts, as in training.
    """
    entity, time = text(roles.entity.header), moment(roles.event.header)
    outcome = text(roles.label.header)
    order = "1" if roles.record is None else f"{text(roles.record.header)} DESC"
    standing = (
        f"SELECT {outcome} IS NOT NULL AS known, {is_one(roles)} AS one FROM given WHERE "
        f"{entity} IS NOT NULL AND {time} IS NOT NULL QUALIFY row_number() OVER (PARTITION BY "
        f"{entity}, {time} ORDER BY {order}) = 1"
    )
    count = int(table.scalar(f"SELECT count(*) FROM ({standing})"))
    return count, float(table.scalar(f"SELECT avg(one::INT) FROM ({standing}) WHERE known") or 0)


def is_one(roles: Roles) -> str:
    """Return the condition over a table's rows that their outcome is the one that counts as 1."""
    outcome = text(roles.label.header)
    ones = ", ".join(map(text_literal, roles.positive.ones if roles.positive else ONES))
    return f"{outcome if roles.positive else f'lower({outcome})'} IN ({ones})"


def _given(columns: Sequence[Profile], header: str | None, option: str) -> Profile | None:
    """Return the column that a person has named by an option."""
    if header is None:
        return None
    for column in columns:
        if column.header == header:
            if not column.distinct:
                raise ConfigError(f"{option} {header!r} has no values; name another column")
            return column
    raise ConfigError(
        f"{option} {header!r}: no such column; columns are {[column.header for column in columns]}"
    )


def why_later(column: Profile, evidence: Evidence | None, given: bool) -> str:
    """Return why a column was left out as written after the decision."""
    marks = "; ".join(evidence.marks(column)) if evidence is not None else ""
    how = "given" if given else "guessed"
    return f"{how}: written after the decision{f'; {marks}' if marks else ''}"


def written_later(
    table: Table,
    features: Sequence[Profile],
    evidence: Mapping[str, Evidence],
    answers: Answers,
    *,
    alone: bool,
) -> tuple[Profile, ...]:
    """Return the columns that were written after the decision: those given, else guessed.

    Of a table that is not `alone`, what was given may be columns of another.

    Raises:
        ConfigError: what was given is no column.
    """
    given = answers.written_later or ()
    headers = [column.header for column in table.columns]
    unknown = [header for header in given if header not in headers]
    if unknown and alone:
        raise ConfigError(
            f"{table.path}: --written-later {unknown}: no such column; columns are {headers}"
        )
    guessed: set[str] = set()
    if answers.written_later is None or answers.at_decision is not None:
        guessed = {header for header in evidence if header not in (answers.at_decision or ())}
    return tuple(
        column
        for column in features
        if column.header in given
        or (column.header in guessed and evidence[column.header].written_later(column))
    )


def _guess_entity(
    columns: Sequence[Profile], given: Profile | None, taken: Sequence[Profile]
) -> tuple[Profile, str] | None:
    """Return the column that says whom a row is about, and why it was taken; None if none does."""
    if given is not None:
        if given in taken:
            raise ConfigError(
                f"--entity {given.header!r} is the label or a time already; name another column"
            )
        return given, f"given: {_count_entities(given)}"
    candidates = [
        column
        for column in columns
        if column.nulls == 0
        and column.type in ("int64", "string")
        and (sounds_of_id(column.header) or column.unique)
    ]
    if not candidates:
        return None

    def rank(column: Profile) -> tuple[bool, bool, bool, bool, int]:
        """Rank people above rows: their ids that repeat, their unique ids, other ids, the rest."""
        is_id = sounds_of_id(column.header)
        is_person = sounds_of_person(column.header) and is_id
        repeats = not column.unique and column.distinct > _REPEATED
        return (is_person, is_person and repeats, is_id and column.unique, is_id, column.distinct)

    entity = max(candidates, key=rank)
    others = name_others(column for column in candidates if column is not entity)
    return entity, f"guessed: {_count_entities(entity)}{others}"


def _count_entities(column: Profile) -> str:
    if column.unique:
        return "each entity has one row"
    return f"{column.distinct} entities over {column.rows} rows"


def _count_shared(table: Table, entity: Profile, event: Profile) -> Shared:
    who, when = text(entity.header), moment(event.header)
    groups = (
        f"SELECT count(*) AS n FROM given WHERE {who} IS NOT NULL AND {when} IS NOT NULL "
        f"GROUP BY {who}, {when} HAVING n > 1"
    )
    rows, count = (
        int(table.scalar(f"SELECT coalesce({what}, 0) FROM ({groups})"))
        for what in ("sum(n)", "count(*)")
    )
    return Shared(rows, rows - count)


def _is_index(column: Profile) -> bool:
    """Tell whether a column is what pandas and R write beside a table: the place of each row."""
    return bool(words.INDEX.match(column.header)) or (
        column.header.lower() in ("index", "level_0") and column.unique
    )
