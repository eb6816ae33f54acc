"""What each column of a table is taken for: key, times, label, features. Guessed from names and values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from include.errors import ConfigError
from include.profiling import Profile, Table, moment

ID_NAME = re.compile(r"(^|_)(id|uuid|key|no|nr|number)$", re.IGNORECASE)
WHO = re.compile(r"customer|client|account|user|member|patient|person|loan|card|subscriber|policy|device|machine", re.IGNORECASE)
LABEL = re.compile(
    r"label|target|outcome|default|churn|fraud|paid|repaid|charged_off|converted|response|survived|won|returned|^y$|^class$",
    re.IGNORECASE,
)
EVENT = (
    r"event_?(time|timestamp|date|at)",
    r"decision|appl|approv|order|transaction|due|start|open|visit",
    r"timestamp|date|time|month|day",
)
ARRIVAL = r"created_timestamp|arriv|ingest|load(ed)?_|received|created_at|updated|recorded"
OUTCOME = r"label_(time|timestamp|date|at)|outcome|result|closed|charge|settled|resolved|end"


@dataclass(frozen=True, slots=True)
class Roles:
    """What each column was taken for."""

    entity: Profile
    record: Profile | None
    event: Profile
    arrival: Profile | None
    label: Profile
    outcome: Profile | None
    features: tuple[Profile, ...]
    left_out: tuple[tuple[Profile, str], ...]


def guess_roles(table: Table, *, key: str | None = None, time: str | None = None, label: str | None = None) -> Roles:
    """Return the role of each column; what is given is taken, the rest is guessed from names and values."""
    columns = list(table.columns)
    who, when, what = (
        _given(columns, header, option) for header, option in ((key, "--key"), (time, "--time"), (label, "--label"))
    )
    times = [column for column in columns if column.type in ("date", "timestamp")]
    event = when or _event(table, times)
    taken = [event]
    later = [c for c in times if c not in taken and table.lag_days(moment(c.header), moment(event.header), 0.001) >= 0]
    arrival = next((c for c in later if re.search(ARRIVAL, c.header, re.IGNORECASE)), None)
    outcome = next((c for c in later if c is not arrival and re.search(OUTCOME, c.header, re.IGNORECASE)), None)
    taken += [c for c in (arrival, outcome) if c is not None]
    found = what or _label(table, [c for c in columns if c not in taken])
    taken.append(found)
    entity = who or _entity(table, [c for c in columns if c not in taken])
    taken.append(entity)
    record = next((c for c in columns if c not in taken and c.unique and _id_name(c.header)), None)
    if record is not None:
        taken.append(record)
    features, left_out = [], []
    for column in columns:
        if column not in taken:
            reason = _no_feature(column)
            if reason:
                left_out.append((column, reason))
            else:
                features.append(column)
    if not features:
        raise ConfigError(f"{table.path}: no column is left that could be a feature; add some to the table")
    if entity.unique:  # each entity once: what stands on its row was known when it happened, or there is nothing to score
        arrival = None
    return Roles(entity, record, event, arrival, found, outcome, tuple(features), tuple(left_out))


def _given(columns: Sequence[Profile], header: str | None, option: str) -> Profile | None:
    if header is None:
        return None
    for column in columns:
        if column.header == header:
            if not column.distinct:
                raise ConfigError(f"{option} {header!r} has no values; name another column")
            return column
    raise ConfigError(f"{option} {header!r}: no such column; columns are {[column.header for column in columns]}")


def _event(table: Table, times: Sequence[Profile]) -> Profile:
    if not times:
        asked = [f"{c.header!r} holds {note}" for c in table.columns for note in c.notes if note.startswith(("dates", "times"))]
        raise ConfigError(
            f"{table.path}: no column holds dates (YYYY-MM-DD) or timestamps; Evergreen needs to know when each row happened: "
            + ("; ".join(asked) or "add a column, or convert one to ISO 8601")
        )
    full = [column for column in times if column.nulls == 0] or list(times)
    for pattern in EVENT:
        for column in full:
            named = re.search(pattern, column.header, re.IGNORECASE)
            if named and not re.search(f"{ARRIVAL}|{OUTCOME}", column.header, re.IGNORECASE):
                return column
    return full[0]


def _label(table: Table, columns: Sequence[Profile]) -> Profile:
    def two_valued(column: Profile) -> bool:
        values = table.distinct(column.header)
        return len(values) == 2 and (column.type == "bool" or (column.type == "int64" and values == ["0", "1"]))

    found = [column for column in columns if two_valued(column)]
    named = [column for column in found if LABEL.search(column.header)]
    if not found:
        raise ConfigError(
            f"{table.path}: no column holds just 0 and 1 (or true and false); Evergreen predicts such an outcome: add one, "
            "or write label.sql that makes it"
        )
    if not named and len(found) > 1:
        raise ConfigError(f"{table.path}: {[c.header for c in found]} could each be the label; name it with --label")
    return (named or found)[-1]


def _entity(table: Table, columns: Sequence[Profile]) -> Profile:
    ids = [c for c in columns if c.nulls == 0 and c.type in ("int64", "string") and (_id_name(c.header) or c.unique)]
    if not ids:
        raise ConfigError(f"{table.path}: no column names whom a row is about (such as customer_id); name it with --key")

    def rank(column: Profile) -> tuple[bool, bool, bool, int]:
        repeated = not column.unique and column.distinct > 20
        return (bool(WHO.search(column.header)) and _id_name(column.header), repeated, _id_name(column.header), column.distinct)

    return max(ids, key=rank)


def _id_name(header: str) -> bool:
    return bool(ID_NAME.search(re.sub(r"[^A-Za-z0-9]+", "_", header)))


def _no_feature(column: Profile) -> str:
    if column.type in ("date", "timestamp"):
        return "a time; make a number of it by SQL if it should be a feature"
    if column.distinct == 0:
        return "empty"
    if column.distinct == 1 and column.nulls == 0:
        return "constant"
    if column.type == "string" and column.distinct > 0.5 * (column.rows - column.nulls) and column.distinct > 20:
        return "different on most rows, as names and free text are"
    if column.unique and _id_name(column.header):
        return "an id"
    return ""
