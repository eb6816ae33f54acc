"""The lines of a draft's YAML, part by part: each guess with its reason as a comment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from include.config import durations
from include.lake.sql import text_literal
from include.onboarding.answers import Answers
from include.onboarding.column_roles import Roles
from include.onboarding.column_texts import written
from include.onboarding.draft_times import Times, guess_min_rows, guess_ttl
from include.onboarding.evidence import Evidence
from include.onboarding.label_values import ONES
from include.onboarding.profile import Profile, Table
from include.onboarding.worst_partition import Worst
from include.onboarding.yaml_text import column_names, note, plain_name, quoted


def names_in(table: Table, roles: Roles) -> dict[str, str]:
    """Return the names of the table's columns in the YAML, by their headers."""
    made = [column.header for column in (roles.event, roles.entity) if column.made]
    own = {roles.event.header} & {"event_timestamp"} | {roles.label.header} & {"label"}
    if roles.arrival is not None:
        own |= {roles.arrival.header} & {"created_timestamp"}
    if roles.outcome is not None:
        own |= {roles.outcome.header} & {"label_timestamp"}
    headers = [*(column.header for column in table.columns), *made]
    return column_names(headers, own, roles.entity.header)


def one_of(roles: Roles) -> str:
    """Return the value of the label that counts as 1, in the table's own words."""
    return roles.shown_one if roles.positive is None else roles.positive.ones[0]


def sql_name(name: str) -> str:
    """Return a column's name as SQL reads it: in quotes where it is a word of the language."""
    from include.lake.sql import connect, quote

    with connect() as con:
        words = con.execute(
            "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'"
        ).fetchall()
    return quote(name) if (name.lower(),) in words else name


def place_lines(table: Table, path: str) -> Iterator[str]:
    """Yield where a source's rows are, and how its files are written."""
    if table.source:
        yield from table.source
        return
    yield f"    path: {quoted(path)}"
    yield f"    format: {table.format}"
    yield from _dialect_lines(table)
    yield from totals_lines(table)
    yield from code_lines(table)


def _dialect_lines(table: Table) -> Iterator[str]:
    """Yield the fields of a CSV that is not written as most are."""
    dialect = table.dialect
    if table.files is not None:
        yield from table.files.fields()
    if table.format not in ("csv", "xlsx"):
        if dialect.get("encoding", "utf-8") != "utf-8":
            yield f"    encoding: {dialect['encoding']}  # guessed: it is not UTF-8"
        return
    if table.format == "csv" and (dialect["separator"] != "," or not dialect["header"]):
        yield f"    separator: {quoted(dialect['separator'])}  # guessed from the first lines"
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
    if dialect["quote"] == "none":
        yield "    quote: none  # guessed: read as marks, quotes would put lines into one value"
    elif dialect["quote"] != '"':
        yield f"    quote: {quoted(dialect['quote'])}  # guessed: values stand in such marks"
    if dialect["escape"] != "double":
        yield f'    escape: {dialect["escape"]}  # guessed: quotes in quotes are written \\"'
    if dialect["encoding"] != "utf-8":
        yield (
            f"    encoding: {dialect['encoding']}  # guessed: it is not UTF-8; see whether its "
            "letters read right"
        )
    if table.repeated:
        yield f"    # {table.repeated} line(s) repeat the header, and are no rows"
    if table.broken:
        yield (
            f"    # {table.broken} line(s) could not be split into columns, and would go to "
            "quarantine"
        )


def column_lines(
    table: Table,
    names: dict[str, str],
    needed: set[str],
    keys: Sequence[Profile],
    kind: str | None = None,
    label: Profile | None = None,
) -> Iterator[str]:
    """Yield the contract of each column, and what is left out of the table.

    `needed` are the headers of what may not be missing, `keys` columns whose values are names, of
    type `kind` where that is given. A total may stand under the `label`: only 0 and 1 are values.
    """
    for column in table.columns:
        name = names[column.header]
        key = any(column is other for other in keys)
        own = (kind or entity_type(column)) if key else column.type
        line = _column(column, name, column.header in needed, own)
        if column is label and table.totals and column.type == "int64" and column.distinct == 2:
            listed = ", ".join(quoted(value) for value in table.distinct(column.header))
            line = line.replace("type: int64", f"type: int64, values: [{listed}]", 1)
        yield f"      {plain_name(name)}: {line}"
    for header, nested in table.nested.items():
        yield f"      # {note(header)}: left out ({note(nested)}: more than one value a row)"


def _column(column: Profile, name: str, needed: bool, kind: str) -> str:
    """Return the contract of a column, with what a person should know of it."""
    fields = [f"type: {kind}"]
    if name != column.header:
        fields.append(f"header: {quoted(column.header)}")
    if needed and column.nulls == 0:
        fields.append("nullable: false")
    fields += [
        field
        for field in written(column.column)
        if kind == column.type or field.startswith("null_values")
    ]
    notes = list(column.notes)
    if column.misfits and kind == column.type:
        shown = ", ".join(map(note, column.examples))
        notes.insert(0, f"{column.misfits} value(s) do not fit and would go to quarantine: {shown}")
    elif len(fields) > 1 and written(column.column):
        notes.insert(0, "so it is written")
    comment = f"  # guessed: {'; '.join(notes)}" if notes else ""
    return f"{{{', '.join(fields)}}}{comment}"


def totals_lines(table: Table) -> Iterator[str]:
    """Yield that the last rows are totals or notes, where they are."""
    if table.totals:
        yield (
            f"    # the last {table.totals} row(s) are totals or notes, and would go to "
            "quarantine: delete them"
        )


def code_lines(table: Table) -> Iterator[str]:
    """Yield, as a comment, the line by which numbers that may be codes mean no value."""
    holders = [column for column in table.columns if column.codes]
    if not holders:
        return
    codes = sorted({code for column in holders for code in column.codes}, key=float)
    listed = ", ".join(map(quoted, codes))
    where = ", ".join(note(column.header) for column in holders[:4])
    more = f" and {len(holders) - 4} more" if len(holders) > 4 else ""
    yield (
        f"    # null_values: [{listed}]  # ASK: do these mean no value? They stand below all "
        f"others in {where}{more}; without its # the line says so"
    )


def max_bad_line(worst: Worst) -> str:
    """Return the line that lets the worst partition of the table pass."""
    rules = ", ".join(f"{rule} ({count})" for rule, count in worst.rules)
    why = f"{worst.bad} of {worst.rows} rows of one partition fail; of all: {rules}"
    return f"    max_bad: {math.ceil(1_000 * worst.share) / 1_000}  # guessed: {why}"


def time_lines(
    roles: Roles, names: dict[str, str], answers: Answers, strays: Mapping[str, object]
) -> Iterator[str]:
    """Yield the source's times; `strays` says of a column which of its times none is guessed by."""
    if roles.snapshot:
        yield f"    snapshot: {answers.snapshot}  # given: the day for which the table stands"
        return
    yield (
        f"    event_time: {plain_name(names[roles.event.header])}  # {roles.why['event']}"
        f"{strays.get(roles.event.header, '')}"
    )
    how = "guessed" if answers.known is None else "given"
    if roles.arrival is not None:
        arrival = plain_name(names[roles.arrival.header])
        yield (
            f"    arrival: {arrival}  # {how}: when the row could first be known"
            f"{strays.get(roles.arrival.header, '')}"
        )
    elif answers.known is not None and durations.lag_after_event(answers.known) is not None:
        yield f"    arrival: {answers.known}  # given: when the row could first be known"
    else:
        yield (
            "    arrival: event + 0s  # assumed: each row was known at once; name a column, or "
            "a longer delay"
        )


def label_lines(
    roles: Roles, names: dict[str, str], answers: Answers, delay: object, why_delay: str
) -> Iterator[str]:
    """Yield the label: its column, what counts as 1, when it is known."""
    yield "label:"
    yield "  source: rows"
    yield (
        f"  column: {plain_name(names[roles.label.header])}  # {roles.why['label']}; the score is "
        f"the probability of {note(one_of(roles))}"
    )
    yield from positive_lines(roles)
    how = "guessed" if answers.outcome is None else "given"
    if roles.outcome is not None:
        outcome = plain_name(names[roles.outcome.header])
        yield f"  label_time: {outcome}  # {how}: when the outcome was known"
    elif answers.outcome is not None:
        yield f"  label_time: {answers.outcome}  # given: when the outcome was known"
    else:
        yield (
            "  label_time: event + 0s  # assumed: no column says when the outcome was known; "
            "write the true delay"
        )
    yield f"  delay: {durations.format_duration(delay)}  # {why_delay}"  # type: ignore[arg-type]


def zero_one(outcome: str, label: Profile, roles: Roles) -> str:
    """Return the expression of an outcome as 1, 0 or no outcome yet."""
    if roles.positive is not None:
        value = f"trim({outcome})" if label.type == "string" else outcome
        ones = ", ".join(
            text_literal(one) if label.type == "string" else one for one in roles.positive.ones
        )
        one = f"{value} IN ({ones})"
    elif label.type == "string":
        one = f"lower(trim({outcome})) IN ({', '.join(map(text_literal, ONES))})"
    else:
        one = f"CAST({outcome} AS INTEGER) = 1"
    return f"CASE WHEN {outcome} IS NOT NULL THEN CAST({one} AS INTEGER) END"


def positive_lines(roles: Roles) -> Iterator[str]:
    """Yield which value of the label counts as 1, where it has to be said."""
    if roles.positive is None:
        return
    ones = [quoted(value) for value in roles.positive.ones]
    listed = ones[0] if len(ones) == 1 else f"[{', '.join(ones)}]"
    others = ", ".join(map(note, roles.positive.others))
    why = "given" if roles.positive.given else f"guessed: {roles.positive.why} counts as 1"
    yield f"  positive: {listed}  # {why}, {others} as 0"


def feature_lines(
    table: Table, roles: Roles, names: dict[str, str], days: Mapping[str, str]
) -> Iterator[str]:
    """Yield the view of the decision's own rows; `days` are computed ones, of which header each."""
    yield "  row_features:"
    yield "    grain: event"
    yield "    source: rows"
    yield "    visible: with_request  # the row is the decision's own, and the request brings it"
    ttl = durations.format_duration(guess_ttl(table, roles))
    yield f"    lookback: {ttl}  # guessed from the span: how far back a value may stand"
    yield f"    ttl: {ttl}"
    yield "    columns:"
    for column in roles.features:
        yield feature_line(column, names[column.header], roles.evidence[column.header])
    for name, header in days.items():
        yield f"      {name}: float64  # the days from {note(header)} to the decision"
    for column, reason in roles.left_out:
        drafted = "a time; its days before the decision are a feature"
        shown = drafted if column.header in days.values() else reason
        yield left_out_line(column, names[column.header], shown)


def last_lines(table: Table, roles: Roles, times: Times) -> Iterator[str]:
    """Yield how to split and to judge."""
    if roles.snapshot:
        yield "training:"
        yield "  split: {by: hash}  # all decisions share one day"
    yield "gates:"
    least = guess_min_rows(table, roles, times.horizon)
    yield (
        f"  min_rows: {least}  # guessed: half of a fifth of the rarer outcome; the evaluation "
        "part holds about a fifth"
    )


def feature_line(column: Profile, name: str, evidence: Evidence | None) -> str:
    """Return the line of a feature, with what makes it doubtful."""
    marks = evidence.marks(column) if evidence is not None else []
    doubt = (
        f"; {'; '.join(map(one_line, marks))}: remove it unless it is known at the decision"
        if marks
        else ""
    )
    return (
        f"      {plain_name(name)}: {column.type}  # guessed from {column.distinct} different "
        f"values{doubt}"
    )


def left_out_line(column: Profile, name: str, reason: str) -> str:
    """Return the comment of a column that is no feature.

    Of what was written later, it only has to lose its `#` to be a feature.
    """
    reason = one_line(reason)
    if "written after the decision" in reason:
        return f"      # {name}: {column.type}  # left out ({reason})"
    return f"      # {name}: left out ({reason})"


def one_line(text: str) -> str:
    """Return a text with foreign values in it as one line of printable characters."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def entity_type(column: Profile) -> str:
    """Return the type of a column whose values are names."""
    return "int64" if column.type == "int64" and column.misfits == 0 else "string"
