"""What each column of a table is taken for: key, times, label, features.

Guessed from names and values.

A guess is checked against the rows before it is offered: entity and time must tell decisions apart,
the time must not be that of the outcome. Where there is a choice that only a person can make, the
draft is refused and names the option.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from include.errors import ConfigError
from include.onboarding.profile import Profile, Table, moment, text
from include.training.free_text import hardly_repeats

# As max_bad of a source: more rows that repeat a decision would block their partition.
MAX_REPEATED = 0.01
MAX_SPELLINGS = 12
# About the share of the rows that a model is fitted on: on fewer rows a text repeats less often.
LEARNT = 0.5

ID_NAME = re.compile(r"(^|_)(id|uuid|guid|key|no|nr|num|number)$")
NO_ID = re.compile(
    r"week|month|day|year|hour|quarter|phone|house|street|zip|post|page|line|floor|room"
    r"|guests?_|count"
)
WHO = re.compile(
    r"customer|client|account|user|member|patient|person|loan|card|subscriber|policy|device|machine"
)
INDEX = re.compile(r"(__index_level_\d+__|unnamed[:_ ]*\d*|)$", re.IGNORECASE)
BIRTH = re.compile(r"birth|born|(^|_)(dob|bday)($|_)|geburt|naissance|nacimiento")
LABEL = re.compile(
    r"label|target|outcome|default|churn|fraud|paid|repaid|charged_off|converted|response"
    r"|survived|(^|_)won($|_)|returned|canceled|cancelled"
    r"|^y$|^class$|attrition|(^|_)bad($|_)|approved"
)
EVENT = (
    r"event_?(time|timestamp|date|at)",
    r"decision|appl|approv|order|transaction|due|start|open|visit|booked|signup|sign_up",
    r"timestamp|date|time|month|day",
)
ARRIVAL = re.compile(
    r"created_timestamp|arriv(ed|al)?_(at|time|on)|ingest|load(ed)?_|received|created_at"
    r"|updated|recorded"
)
OUTCOME = re.compile(
    r"label_(time|timestamp|date|at)|outcome|result|status|closed|closing|charge|settle|resol"
    r"|(^|_)(end|ended|ends)($|_)"
    r"|cancel|churn|terminat|complet|finish|deliver|repaid|paid_(at|on|date)|returned"
)
AFTER = re.compile(
    r"status|closed|closing|result|outcome|charge|settle|resol|recover|refund|collect|cancel"
    r"|churn|terminat|repaid|paid|returned"
    r"|assigned|final|changes$|(^|_)(end|ended)($|_)|days_(late|overdue)|duration"
)


@dataclass(frozen=True, slots=True)
class Positive:
    """The spellings of the label's value that counts as 1, those of the other, and why."""

    ones: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Roles:
    """What each column was taken for; `why` says it of entity, event, label and key in words
    that go into the draft.
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


@dataclass(frozen=True, slots=True)
class Shared:
    """How many rows share entity and time with another, and how many of them would be lost if
    one of each stayed.
    """

    rows: int
    lost: int


def guess_roles(
    table: Table, *, key: str | None = None, time: str | None = None, label: str | None = None
) -> Roles:
    """Return the role of each column; what is given is checked and taken, the rest is guessed from
    names and values.

    Raises: ConfigError: a role has no column, or only a person can say which; the message names the
        option.
    """
    columns = [column for column in table.columns if not _is_index(column)]
    who, when, what = (
        _given(table.columns, header, option)
        for header, option in ((key, "--entity"), (time, "--time"), (label, "--label"))
    )
    times = [column for column in columns if column.type in ("date", "timestamp")]
    event, why_event = _event(table, times, when)
    taken = [event]
    later = [
        c
        for c in times
        if c not in taken and table.lag_days(moment(c.header), moment(event.header), 0.001) >= 0
    ]
    arrival = next((c for c in later if ARRIVAL.search(plain(c.header))), None)
    outcome = next((c for c in later if c is not arrival and OUTCOME.search(plain(c.header))), None)
    taken += [c for c in (arrival, outcome) if c is not None]
    found, why_label = _label(table, [c for c in columns if c not in taken], what)
    positive = _positive(table, found, "--label" if what else "")
    taken.append(found)
    entity, why_entity = _entity(table, [c for c in columns if c not in taken], who, taken)
    taken.append(entity)
    record = next((c for c in columns if c not in taken and c.unique and _id_name(c.header)), None)
    index = [column for column in table.columns if column not in columns and column not in taken]
    left_out = [(column, "the place of a row in a file") for column in index]
    shared = _shared(table, entity, event)
    if shared.lost > MAX_REPEATED * table.rows:
        told = (
            f"{shared.rows} of {table.rows} rows share {entity.header!r} and {event.header!r} "
            "with another"
        )
        if record is None or who is not None:
            raise ConfigError(
                f"{table.path}: {told}, and a decision has one row: name a finer time with "
                "--time, or with --entity a column that each row has of its "
                f"own{'' if record is None else f', such as {record.header!r}'}"
            )
        left_out.append(
            (entity, "names whom several rows are about; the key of the row is the entity")
        )
        why_entity = f"guessed: an entity a row, since {told}"
        entity, record = record, None
    taken += [column for column in (record, entity) if column is not None and column not in taken]
    why_key = "what names a row; a later row of the same key corrects it"
    if record is None and not entity.unique and shared.lost:
        why_key += f"; {shared.lost} rows repeat it and would go to quarantine"
    features = []
    for column in columns:
        if column not in taken:
            reason = _no_feature(table, column, event)
            if reason:
                left_out.append((column, reason))
            else:
                features.append(column)
    if not features:
        raise ConfigError(
            f"{table.path}: no column is left that could be a feature; add some to the table"
        )
    # Each entity once: what stands on its row was known when it happened, or there is nothing to
    # score.
    if entity.unique:
        arrival = None
    why = {
        "entity": why_entity,
        "event": why_event,
        "label": why_label,
        "key": f"guessed: {why_key}",
    }
    return Roles(
        entity,
        record,
        event,
        arrival,
        found,
        positive,
        outcome,
        tuple(features),
        tuple(left_out),
        why,
    )


def plain(header: str) -> str:
    """Return a header in lower case with `_` between its words, whichever way they were divided."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", header)
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")


def decisions(table: Table, roles: Roles) -> tuple[int, float]:
    """Return how many decisions the rows make, and the share of 1 among those with an outcome.

    Of rows that share entity and time the one stands that `decisions.standing` lets stand: the
    greatest key.
    """
    entity, time = text(roles.entity.header), moment(roles.event.header)
    outcome = text(roles.label.header)
    ones = ", ".join(
        _literal(value) for value in (roles.positive.ones if roles.positive else _ONES)
    )
    value = outcome if roles.positive else f"lower({outcome})"
    order = "1" if roles.record is None else f"{text(roles.record.header)} DESC"
    one = (
        f"SELECT {outcome} IS NOT NULL AS known, {value} IN ({ones}) AS one FROM given WHERE "
        f"{entity} IS NOT NULL AND {time} IS NOT NULL QUALIFY row_number() OVER (PARTITION BY "
        f"{entity}, {time} ORDER BY {order}) = 1"
    )
    count = int(table.scalar(f"SELECT count(*) FROM ({one})"))
    return count, float(table.scalar(f"SELECT avg(one::INT) FROM ({one}) WHERE known") or 0)


_ONES = ("1", "1.0", "1.", "true", "t", "yes", "y")
_ZEROS = ("0", "0.0", "0.", "false", "f", "no", "n")


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _given(columns: Sequence[Profile], header: str | None, option: str) -> Profile | None:
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


def _event(table: Table, times: Sequence[Profile], given: Profile | None) -> tuple[Profile, str]:
    if given is not None:
        if given.type not in ("date", "timestamp"):
            raise ConfigError(
                f"--time {given.header!r} holds no dates or times (it is {given.type}); name one "
                "that does"
            )
        return given, "given: when the row happened"
    if not times:
        asked = [
            f"{c.header!r} holds {note}"
            for c in table.columns
            for note in c.notes
            if note.startswith(("dates", "times"))
        ]
        raise ConfigError(
            f"{table.path}: no column holds dates (YYYY-MM-DD) or timestamps; Evergreen needs to "
            "know when each row happened: "
            + ("; ".join(asked) or "add a column, or convert one to ISO 8601")
        )
    could = [
        c
        for c in times
        if not BIRTH.search(plain(c.header)) and not OUTCOME.search(plain(c.header))
    ]
    if not could:
        raise ConfigError(
            f"{table.path}: {_listed(times)} sound(s) like the time of an outcome or a birth, not "
            "of a decision; name the column that says when each row happened with --time (one of "
            "these, if it does)"
        )
    full = [column for column in could if column.nulls == 0] or list(could)
    ranked = [
        column
        for pattern in EVENT
        for column in full
        if re.search(pattern, plain(column.header)) and not ARRIVAL.search(plain(column.header))
    ]
    found = (ranked or full)[0]
    return found, f"guessed: when the row happened{_others(c for c in times if c is not found)}"


def _label(table: Table, columns: Sequence[Profile], given: Profile | None) -> tuple[Profile, str]:
    if given is not None:
        return given, "given"
    values = {
        column.header: table.distinct(column.header) for column in columns if column.distinct <= 2
    }
    two = [column for column in columns if len(values.get(column.header, [])) == 2]
    plainly = [column for column in two if _is_zero_one(values[column.header])]
    two = [column for column in two if column in plainly or column.type in ("int64", "string")]
    named = [column for column in two if LABEL.search(plain(column.header))]
    found = named or plainly
    if not found:
        once = [
            column
            for column in columns
            if column.distinct == 1 and LABEL.search(plain(column.header))
        ]
        more = f"; {_listed(once)} hold(s) one value only" if once else ""
        more += f"; {_listed(two)} hold(s) two values: name the outcome with --label" if two else ""
        raise ConfigError(
            f"{table.path}: no column holds just 0 and 1 (or true and false){more}; Evergreen "
            "predicts such an outcome: add one, or write label.sql that makes it"
        )
    if len(found) > 1:
        raise ConfigError(
            f"{table.path}: {[c.header for c in found]} could each be the label; name it with "
            "--label"
        )
    return found[
        0
    ], f"guessed: it holds two values{_others(c for c in plainly if c is not found[0])}"


def _is_zero_one(values: Sequence[str]) -> bool:
    return {value.lower() in _ONES for value in values} == {True, False} and all(
        value.lower() in (*_ONES, *_ZEROS) for value in values
    )


def _positive(table: Table, column: Profile, option: str) -> Positive | None:
    """Return which value of a label counts as 1, unless it holds 0 and 1: of two outcomes the
    rarer.

    Raises:
        ConfigError: it holds one value, or more than two that are no spellings of two.
    """
    values = table.distinct(column.header, MAX_SPELLINGS + 1)
    if len(values) == 2 and _is_zero_one(values):
        return None
    groups: dict[str, list[str]] = {}
    for value in values:
        groups.setdefault(re.sub(r"\s+", "", value.lower()).rstrip("."), []).append(value)
    where = f"{option} {column.header!r}".strip()
    if len(groups) == 1:
        raise ConfigError(
            f"{table.path}: {where} holds one value only ({values[0]!r}); a label has two, name "
            "another with --label"
        )
    if len(groups) > 2:
        raise ConfigError(
            f"{table.path}: {where} holds more than two values, such as {values[:3]}; a label has "
            "two: add such a column, or write the YAML by hand with label.positive or label.sql"
        )

    def count(spellings: Sequence[str]) -> int:
        listed = ", ".join(_literal(value) for value in spellings)
        return int(
            table.scalar(f"SELECT count(*) FROM given WHERE {text(column.header)} IN ({listed})")
        )

    other, one = sorted(groups.values(), key=count, reverse=True)
    return Positive(tuple(one), tuple(other))


def _entity(
    table: Table, columns: Sequence[Profile], given: Profile | None, taken: Sequence[Profile]
) -> tuple[Profile, str]:
    if given is not None:
        if given in taken:
            raise ConfigError(
                f"--entity {given.header!r} is the label or a time already; name another column"
            )
        return given, f"given: {_entities(given)}"
    ids = [
        c
        for c in columns
        if c.nulls == 0 and c.type in ("int64", "string") and (_id_name(c.header) or c.unique)
    ]
    if not ids:
        raise ConfigError(
            f"{table.path}: no column names whom a row is about (such as customer_id); name it "
            "with --entity"
        )

    def rank(column: Profile) -> tuple[bool, bool, bool, bool, int]:
        """Rank people above rows, their repeated ids above unique ones, but a unique id above
        other repeated columns.
        """
        named = _id_name(column.header)
        who = bool(WHO.search(plain(column.header))) and named
        repeated = not column.unique and column.distinct > 20
        return (who, who and repeated, named and column.unique, named, column.distinct)

    found = max(ids, key=rank)
    return found, f"guessed: {_entities(found)}{_others(c for c in ids if c is not found)}"


def _entities(column: Profile) -> str:
    return (
        "each entity has one row"
        if column.unique
        else f"{column.distinct} entities over {column.rows} rows"
    )


def _shared(table: Table, entity: Profile, event: Profile) -> Shared:
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
    return bool(INDEX.match(column.header)) or (
        column.header.lower() in ("index", "level_0") and column.unique
    )


def _id_name(header: str) -> bool:
    name = plain(header)
    return bool(ID_NAME.search(name)) and not NO_ID.search(name)


def _no_feature(table: Table, column: Profile, event: Profile) -> str:
    if column.type in ("date", "timestamp"):
        return "a time; make a number of it by SQL if it should be a feature"
    if column.distinct == 0:
        return "empty"
    if column.distinct == 1 and column.nulls == 0:
        return "constant"
    if column.type == "string" and hardly_repeats(*_first_rows(table, column, event)):
        return "different on most rows, as names and free text are"
    if _id_name(column.header) and (column.unique or WHO.search(plain(column.header))):
        return "an id"
    return ""


def _first_rows(table: Table, column: Profile, event: Profile) -> tuple[int, int]:
    """Return how many values a column has on the rows that a model would be fitted on, and how
    many of them differ.
    """
    value = text(column.header)
    rows = (
        f"SELECT {value} AS v FROM given ORDER BY {moment(event.header)} LIMIT "
        f"{int(LEARNT * table.rows)}"
    )
    return int(table.scalar(f"SELECT count(v) FROM ({rows})")), int(
        table.scalar(f"SELECT count(DISTINCT v) FROM ({rows})")
    )


def sounds_late(header: str) -> bool:
    """Tell whether a name sounds of what is known only after the outcome."""
    return bool(AFTER.search(plain(header)))


def _others(columns: Iterable[Profile]) -> str:
    named = [json.dumps(column.header[:60]) for column in columns][:4]
    return f"; others: {', '.join(named)}" if named else ""


def _listed(columns: Iterable[Profile]) -> str:
    return ", ".join(repr(column.header) for column in list(columns)[:6])
