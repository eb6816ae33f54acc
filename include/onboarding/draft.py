"""Draft a use case from one table: each guess says so, and the draft passes `usecase check`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from include.config import durations, use_case_file
from include.config import names as names_of_ours
from include.errors import ConfigError
from include.onboarding.column_roles import Roles, count_decisions, guess_roles
from include.onboarding.column_texts import written
from include.onboarding.drafted_history import history_lines
from include.onboarding.header_words import sounds_late
from include.onboarding.profile import Profile, Table, Worst, moment

RESERVED = {*names_of_ours.ROWS, *names_of_ours.FRAMES}
DAY = timedelta(days=1)


def draft(
    path: Path,
    *,
    given_path: str | None = None,
    name: str | None = None,
    key: str | None = None,
    time: str | None = None,
    label: str | None = None,
) -> tuple[str, str]:
    """Return name and YAML of a use case over the table in `path`.

    `key`, `time` and `label` are headers that a person knows. `given_path` is how the YAML names
    the table (see `path_in`); else its name, for a YAML that stands beside it.

    Raises:
        SourceError: the file is no readable table.
        ConfigError: no column can be the key, the time or the label; the message says which option
            names it.
    """
    table = Table(path)
    name = _name(name or path.name.split(".")[0])
    roles = guess_roles(table, key=key, time=time, label=label)
    given_path = given_path or path.name
    if table.files.glob is not None:
        given_path = f"{given_path}/{table.files.glob}"
    document = "\n".join(_render(name, given_path, table, roles)) + "\n"
    use_case = use_case_file.parse(document, where=f"draft of {path.name}", folder=path.parent)
    worst = table.worst(use_case.sources["rows"], use_case.cadence, use_case.entity.key)
    # A draft never blocks on the table that it was made from.
    if worst.share > use_case.sources["rows"].max_bad:
        document = "\n".join(_render(name, given_path, table, roles, worst)) + "\n"
        use_case_file.parse(document, where=f"draft of {path.name}", folder=path.parent)
    return name, document


def _name(words: str) -> str:
    """Return words as a name: `Loans (2024)` as loans_2024."""
    name = re.sub(r"[^a-z0-9]+", "_", names_of_ours.latin(words).lower()).strip("_")
    name = name if name[:1].isalpha() else f"use_case_{name}".strip("_")
    return name[:48].rstrip("_")


def column_names(
    headers: Sequence[str], own: Collection[str] = (), key: str | None = None
) -> dict[str, str]:
    """Return a column name for each header: letters, digits and _, unique without regard to case.

    None is one of Evergreen's own, but for the headers in `own`. `key` is the header of the entity,
    which also stands in tables of scores.
    """
    names: dict[str, str] = {}
    for header in headers:
        base = (
            re.sub(r"[^A-Za-z0-9]+", "_", names_of_ours.latin(header)).strip("_")[:55] or "column"
        )
        base = base if not base[0].isdigit() else f"c_{base}"
        ours = RESERVED | set(names_of_ours.SCORES) if header == key else RESERVED
        base = f"{base}_value" if base.lower() in ours and header not in own else base
        name, number = base, 2
        while name.lower() in {other.lower() for other in names.values()}:
            name, number = f"{base}_{number}", number + 1
        names[header] = name
    return names


def path_in(folder: Path, table: Path, data_dir: Path) -> str:
    """Return how a YAML in `folder` names a table: relative to it, or to the data folder.

    Raises:
        ConfigError: the table is in neither, where no source may lie, or its name holds characters
            that a path in a YAML may not.
    """
    table = table.resolve()
    for base, prefix in ((folder.resolve(), ""), (data_dir.resolve(), "{data_dir}/")):
        if table.is_relative_to(base):
            relative = str(table.relative_to(base))
            # What a glob, a URI of fsspec or `{partition}` would read as something else.
            if re.search(r"[\\%\0{}~*?\[\]]|::", relative):
                raise ConfigError(f"{table}: its path holds one of \\ % {{ }} ~ * ? [ ]; rename it")
            return prefix + relative
    raise ConfigError(
        f"{table} is neither in {folder} nor in {data_dir}; write the YAML beside the table, or "
        "move the table"
    )


def _render(
    name: str, path: str, table: Table, roles: Roles, worst: Worst | None = None
) -> Iterator[str]:
    """Yield the lines of the YAML, each guess with its comment.

    `worst` is given where `max_bad` has to be raised for the table itself to pass.
    """
    names = {
        header: _plain(column)
        for header, column in column_names(
            [c.header for c in table.columns], _own(roles), roles.entity.header
        ).items()
    }
    entity, event = names[roles.entity.header], names[roles.event.header]
    (cadence, why_cadence), first, last, delay, why_delay, why_last = _times(table, roles)
    yield (
        f"# Drafted by `evergreen new` from {_note(table.path.name)} ({table.rows} rows). Each "
        "guess says so: read them, then"
    )
    yield "# run `evergreen usecase check` and `evergreen usecase check --data` on this file."
    count, rate = count_decisions(table, roles)
    outcome = f"the outcome {_note(_one(roles))} of {_note(roles.label.header)}"
    yield f"# Its rows make {count} decisions; {rate:.1%} of those with an outcome have {outcome}."
    yield f"name: {_plain(name)}"
    yield f"cadence: {cadence}  # guessed from {why_cadence}"
    yield (
        f"history: {{first: {first}, last: {last}}}  # {why_last}; without `last` partitions go "
        "on with the clock"
    )
    kind = _entity_type(roles.entity)
    entity_name = _plain(_name(roles.entity.header))
    yield f"entity: {{name: {entity_name}, key: {entity}, type: {kind}}}  # {roles.why['entity']}"
    yield "sources:"
    yield "  rows:"
    yield f"    path: {json.dumps(path)}"
    yield f"    format: {table.format}"
    yield from _dialect(table)
    yield f"    event_time: {event}  # {roles.why['event']}"
    if roles.arrival is not None:
        yield (
            f"    arrival: {names[roles.arrival.header]}  # guessed: when the row could first "
            "be known"
        )
    else:
        yield (
            "    arrival: event + 0s  # assumed: each row was known at once; name a column, or "
            "a longer delay"
        )
    record = (
        [names[roles.record.header]]
        if roles.record
        else ([entity] if roles.entity.unique else [entity, event])
    )
    yield f"    key: [{', '.join(record)}]  # {roles.why['key']}"
    yield "    empty: allow  # a file that is given once has days without rows"
    if worst is not None:
        yield _max_bad(worst)
    yield f"    columns:  # types guessed from all {table.rows} rows"
    needed = {roles.entity.header, roles.event.header} | (
        {roles.record.header} if roles.record else set()
    )
    for column in table.columns:
        yield (
            f"      {names[column.header]}: "
            f"{_column(column, names, column.header in needed, roles)}"
        )
    for header, nested in table.nested.items():
        yield f"      # {_note(header)}: left out ({_note(nested)}: more than one value a row)"
    yield from _label(table, roles, names, delay, why_delay)
    yield from _features(table, roles, names, cadence)


def _label(
    table: Table, roles: Roles, names: dict[str, str], delay: str, why_delay: str
) -> Iterator[str]:
    yield "label:"
    yield "  source: rows"
    yield (
        f"  column: {names[roles.label.header]}  # {roles.why['label']}; the score is the "
        f"probability of {_note(_one(roles))}"
    )
    if roles.positive is not None:
        ones = [json.dumps(value) for value in roles.positive.ones]
        written = ones[0] if len(ones) == 1 else f"[{', '.join(ones)}]"
        others = ", ".join(map(_note, roles.positive.others))
        yield f"  positive: {written}  # guessed: the rarer outcome counts as 1, {others} as 0"
    if roles.outcome is not None:
        yield f"  label_time: {names[roles.outcome.header]}  # guessed: when the outcome was known"
    else:
        yield (
            "  label_time: event + 0s  # assumed: no column says when the outcome was known; "
            "write the true delay"
        )
    yield f"  delay: {delay}  # {why_delay}"


def _features(table: Table, roles: Roles, names: dict[str, str], cadence: str) -> Iterator[str]:
    yield "features:"
    yield "  row_features:"
    yield "    grain: event"
    yield "    source: rows"
    yield "    visible: with_request  # the row is the decision's own, and the request brings it"
    ttl = durations.format_duration(_ttl(table, roles))
    yield f"    lookback: {ttl}  # guessed from the span: how far back a value may stand"
    yield f"    ttl: {ttl}"
    yield "    columns:"
    for column in roles.features:
        yield (
            f"      {names[column.header]}: {column.type}  # guessed from {column.distinct} "
            f"different values{_late(column)}"
        )
    for column, reason in roles.left_out:
        yield f"      # {names[column.header]}: left out ({reason})"
    yield from history_lines(table, roles, names, cadence)
    yield "gates:"
    least = _min_rows(table, roles)
    yield (
        f"  min_rows: {least}  # guessed: half of a fifth of the rarer outcome; the evaluation "
        "part holds about a fifth"
    )


def _column(column: Profile, names: dict[str, str], needed: bool, roles: Roles) -> str:
    """Return the contract of a column, with what a person should know of it."""
    kind = column.type
    if column in (roles.entity, roles.record):
        kind = _entity_type(column)
    fields = [f"type: {kind}"]
    if names[column.header] not in (column.header, json.dumps(column.header)):
        fields.append(f"header: {json.dumps(column.header)}")
    if needed and column.nulls == 0:
        fields.append("nullable: false")
    fields += [
        field
        for field in written(column.column)
        if kind == column.type or field.startswith("null_values")
    ]
    notes = list(column.notes)
    if column.misfits and kind == column.type:
        shown = ", ".join(map(_note, column.examples))
        notes.insert(0, f"{column.misfits} value(s) do not fit and would go to quarantine: {shown}")
    elif len(fields) > 1 and written(column.column):
        notes.insert(0, "so it is written")
    comment = f"  # guessed: {'; '.join(notes)}" if notes else ""
    return f"{{{', '.join(fields)}}}{comment}"


def _max_bad(worst: Worst) -> str:
    rules = ", ".join(f"{rule} ({count})" for rule, count in worst.rules)
    why = f"{worst.bad} of {worst.rows} rows of one partition fail; of all: {rules}"
    return f"    max_bad: {math.ceil(1_000 * worst.share) / 1_000}  # guessed: {why}"


def _dialect(table: Table) -> Iterator[str]:
    """Yield the fields of a CSV that is not written as most are."""
    dialect = table.dialect
    yield from table.files.fields()
    if table.format not in ("csv", "xlsx"):
        if dialect.get("encoding", "utf-8") != "utf-8":
            yield f"    encoding: {dialect['encoding']}  # guessed: it is not UTF-8"
        return
    if table.format == "csv" and (dialect["separator"] != "," or not dialect["header"]):
        yield f"    separator: {json.dumps(dialect['separator'])}  # guessed from the first lines"
    if not dialect["header"]:
        yield (
            "    header: false  # guessed: the first line is a row; columns are c1, c2, ...: "
            "call them by `name: {header: c1}`"
        )
    if dialect["skip"]:
        yield (
            f"    skip: {dialect['skip']}  # guessed: the lines before the "
            f"{'header' if dialect['header'] else 'first row'}"
        )
    if dialect["escape"] != "double":
        yield f'    escape: {dialect["escape"]}  # guessed: quotes in quotes are written \\"'
    if dialect["encoding"] != "utf-8":
        yield (
            f"    encoding: {dialect['encoding']}  # guessed: it is not UTF-8; see whether its "
            "letters read right"
        )
    if table.broken:
        yield (
            f"    # {table.broken} line(s) could not be split into columns, and would go to "
            "quarantine"
        )


def _times(table: Table, roles: Roles) -> tuple[tuple[str, str], date, date, str, str, str]:
    """Return cadence (and why), first and last key, the label's delay, and why."""
    event = moment(roles.event.header)
    later = [
        moment(column.header) for column in (roles.arrival, roles.outcome) if column is not None
    ]
    lag = table.lag_days(f"greatest({', '.join([event, *later])})", event)
    delay = timedelta(days=math.ceil(lag))
    usual = table.lag_days(f"greatest({', '.join([event, *later])})", event, 0.95)
    why_delay = (
        f"guessed: the latest outcome came {lag:.1f} days after its row (95 % within {usual:.1f})"
    )
    start, end = (_day(value) for value in table.moments(roles.event.header))
    arrived = _day(table.moments(roles.arrival.header)[1]) if roles.arrival else end
    cadence, why_cadence = _cadence(table, roles, (end - start).days + 1)
    mature = int(
        table.scalar(
            f"SELECT count(*) FROM given WHERE {event} + to_days(?) < ?",
            delay.days,
            _midnight(arrived + DAY),
        )
    )
    last, why_last = arrived, "guessed from the file's first and last row"
    # Most rows too young at the last arrival: the file was written later, when outcomes were known.
    if mature < table.rows / 2:
        last, why_last = (
            end + delay + DAY,
            "guessed from the file's first row, and the day on which its last outcome is known",
        )
    keys = durations.period_start(cadence, start), durations.period_start(cadence, last)
    return (
        (cadence, why_cadence),
        *keys,
        durations.format_duration(delay),
        why_delay if later else "assumed, as above",
        why_last,
    )


def _cadence(table: Table, roles: Roles, days: int) -> tuple[str, str]:
    """Return the cadence by the dates' own rhythm, else by their span, and why."""
    at = moment(roles.event.header)
    counts = {
        unit: int(table.scalar(f"SELECT count(DISTINCT date_trunc('{unit}', {at})) FROM given"))
        for unit in ("day", "week", "month")
    }
    for unit in ("month", "week"):
        if counts["day"] == counts[unit] >= 3 and days > 2 * {"month": 28, "week": 7}[unit]:
            return unit, f"the rhythm of {_note(roles.event.header)}: one date a {unit}"
    cadence = "day" if days <= 400 else "week" if days <= 7 * 400 else "month"
    return cadence, f"the span of {_note(roles.event.header)}"


def _ttl(table: Table, roles: Roles) -> timedelta:
    first, last = (_day(value) for value in table.moments(roles.event.header))
    span = timedelta(days=(last - first).days + 2)
    return (
        max(span, timedelta(days=35))
        if roles.entity.unique
        else min(max(span, timedelta(days=35)), timedelta(days=365))
    )


def _min_rows(table: Table, roles: Roles) -> int:
    count, rate = count_decisions(table, roles)
    return max(10, min(500, math.floor(count * min(rate, 1 - rate)) // 10))


def _entity_type(column: Profile) -> str:
    return "int64" if column.type == "int64" and column.misfits == 0 else "string"


def _own(roles: Roles) -> set[str]:
    """Return the headers that may keep a name of ours: they are what it says."""
    own = {roles.event.header} & {"event_timestamp"} | {roles.label.header} & {"label"}
    if roles.arrival is not None:
        own |= {roles.arrival.header} & {"created_timestamp"}
    if roles.outcome is not None:
        own |= {roles.outcome.header} & {"label_timestamp"}
    return own


def _one(roles: Roles) -> str:
    return "1" if roles.positive is None else roles.positive.ones[0]


def _late(column: Profile) -> str:
    return (
        "; its name sounds of after the outcome: remove it unless it is known at the decision"
        if sounds_late(column.header)
        else ""
    )


def _day(value: datetime) -> date:
    return value.astimezone(UTC).date()


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _plain(name: str) -> str:
    """Return a name as YAML reads it back: in quotes where it would be a number or the like."""
    import yaml

    return name if yaml.safe_load(name) == name else json.dumps(name)


def _note(foreign: str) -> str:
    """Return a foreign name as one line of plain characters, safe in a comment."""
    return json.dumps(foreign[:60])
