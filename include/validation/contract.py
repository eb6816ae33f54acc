"""The contract of a source: the DuckDB query that types its rows and judges them by its columns.

A row fails by its first rule, named `column: check`. Checks: null, not_int64, leading_zeros (of a
key that is int64), not_float64, not_finite, not_bool, not_date, not_timestamp, ambiguous_time,
mixed_time_zones, out_of_range, epoch_zero, in_future, late, below_min, above_max, not_allowed,
no_match. A line that could not be split into columns is `malformed_row`; of two rows of one key and
one created time with different values one is a `conflicting_duplicate`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from include.config.durations import midnight
from include.config.use_case_sources import Column, Source
from include.ingestion import computed
from include.ingestion.columns import ARRIVED, FILE, LATE, MALFORMED, REDRIVEN, ROW
from include.ingestion.computed import NO_TEXT, parts_of
from include.ingestion.times import EPOCH, NEWEST, OLDEST, aware, is_time, utc
from include.ingestion.values import cell, dates_of, trimmed_text, typed
from include.lake.sql import quote, text_literal
from include.point_in_time.curated import CREATED, EVENT, curated_schema, record_key

RULE = "rule"
# Begin the columns of the query: a cell's text, what an expression gives, and the typed value. No
# column of a source begins so.
TEXT, _GIVEN, VALUE = "__t_", "__c_", "__v_"
CONFLICT = "conflicting_duplicate"
DUPLICATE = ""  # stands for a rule of an exact duplicate, which is dropped and counted
DUCK_TYPES = {
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "string": "VARCHAR",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMPTZ",
    "date": "DATE",
}


def mixed_zones_query(source: Source, present: Collection[str], rows: str) -> str | None:
    """Return the query of the time columns that mix naive and aware times; None: no column may.

    It gives (partition, column, whether aware times are the minority). Redriven rows do not count:
    they may come from a time when the source wrote otherwise.
    """
    parts = []
    for name in _time_texts(source):
        if name in present and name not in source.computed and dates_of(name, source) is None:
            delivered = f"{rows} WHERE NOT starts_with({FILE}, '{REDRIVEN}')"
            # The text is named first: `aware` asks for it five times, and would trim it as often.
            texts = f"SELECT partition, {cell(name, source)} AS t FROM {delivered}"
            kinds = f"SELECT partition, {aware('t')} AS k FROM ({texts})"
            parts.append(
                f"SELECT partition, {text_literal(name)} AS name, count_if(k) < count_if(NOT k) "
                f"AS minority FROM ({kinds}) GROUP BY partition HAVING count_if(k) > 0 AND "
                "count_if(NOT k) > 0"
            )
    return " UNION ALL ".join(parts) or None


def judged_query(
    source: Source,
    present: Collection[str],
    rows: str,
    mixed: Sequence[tuple[str, str, bool]],
    *,
    entity: str | None = None,
) -> str:
    """Return the query that types raw rows and names the first rule that each one fails.

    It reads `rows` and the table `__periods` (partition, __as_of). Columns: partition, source_file,
    source_row, arrived_at, the curated columns, `rule`. `mixed` is what `mixed_zones_query` found,
    `entity` the entity's key.
    """
    judged = judgement(source, present, mixed, entity=entity)
    texts, values, parts = judged.texts, judged.values, judged.parts
    text_list = [f"{expression} AS {quote(TEXT + name)}" for name, expression in texts.items()]
    value_list = ", ".join(
        f"{expression} AS {quote(VALUE + name)}" for name, expression in values.items()
    )
    out = ", ".join(
        f"{quote(VALUE + name)} AS {quote(name)}" for name in curated_schema(source).names
    )
    kept = f"{FILE}, {ROW}, {ARRIVED}" + (f", {MALFORMED}" if MALFORMED in present else "")
    return (
        f"WITH texts AS (SELECT {', '.join(['partition', kept, '__periods.__as_of', *text_list])} "
        f"FROM {rows} JOIN __periods USING (partition)), typed AS (SELECT *, {value_list} FROM "
        f"{_computed_rows(source, parts)} AS t) "
        f"SELECT partition, {FILE}, {ROW}, {ARRIVED}, {out}, {judged.rule()} AS {RULE} "
        "FROM typed AS t"
    )


@dataclass(frozen=True, slots=True)
class Judgement:
    """The expressions that type a row and judge it.

    `texts` are of raw columns, `values` of texts (`t.__t_<name>`), `checks` pairs (condition, rule)
    of both. `parts` are the delivered columns of which computed ones are made. What hangs on one
    text alone stands also by the raw column: `cells` are its values by the names under which
    `values` and `checks` know them, `cell_checks` the checks that no other value decides.
    """

    texts: dict[str, str]
    values: dict[str, str]
    checks: list[tuple[str, str]]
    parts: list[str]
    cells: dict[str, dict[str, str]]
    cell_checks: dict[str, list[tuple[str, str]]]

    def rule(self) -> str:
        """Return the expression of the first rule that a row fails."""
        # The order of the checks matters: a row fails by the first.
        rule = " ".join(f"WHEN {bad} THEN {text_literal(check)}" for bad, check in self.checks)
        return f"CASE {rule} END" if rule else "CAST(NULL AS VARCHAR)"


def judgement(
    source: Source,
    present: Collection[str],
    mixed: Sequence[tuple[str, str, bool]],
    *,
    entity: str | None,
) -> Judgement:
    """Return the expressions by which a source's rows are judged, as `judged_query` puts them."""
    texts = {
        name: cell(name, source) if name in present else NO_TEXT
        for name in dict.fromkeys([*source.columns, *source.time_columns])
        if name not in source.computed
    }
    parts = parts_of(source.computed, source)
    values: dict[str, str] = {}
    checks: list[tuple[str, str]] = []
    cells: dict[str, dict[str, str]] = {name: {} for name in texts}
    cell_checks: dict[str, list[tuple[str, str]]] = {name: [] for name in texts}
    if MALFORMED in present:
        checks.append((f"t.{MALFORMED} IS NOT NULL", "malformed_row"))
    _times(source, values, checks, mixed)
    for place, name in enumerate(source.time_columns):
        if name not in source.computed:
            role = EVENT if place == 0 else CREATED
            text, value = f"t.{quote(TEXT + name)}", f"t.{quote(VALUE + role)}"
            cells[name][role] = utc(text, source, dates_of(name, source))
            alone = [(f"{text} IS NULL", f"{name}: null")]
            alone += _time_checks(name, text, value, dates_of(name, source), ())
            # The created time is the later of the moment and the arrival: it is there or not as the
            # moment is, but in range or not by the row.
            cell_checks[name] += alone if place == 0 else alone[:-1]
            if place == 0:
                cell_checks[name].append((f"{value} = {EPOCH}", f"{name}: epoch_zero"))
    for name, column in source.columns.items():
        if name in (EVENT, CREATED):
            continue
        text, value = f"t.{quote(TEXT + name)}", f"t.{quote(VALUE + name)}"
        if name in source.computed:
            values[name] = computed.value(name, source, f"t.{quote(_GIVEN + name)}")
            text = value
        else:
            values[name] = f"t.{quote(name)}" if name in parts else typed(text, column, source)
            cells[name][name] = typed(text, column, source)
            cell_checks[name] += column_checks(
                name, column, source, text, value, mixed=(), **key_rules(source, name, entity)
            )
        checks += column_checks(
            name, column, source, text, value, mixed=mixed, **key_rules(source, name, entity)
        )
    return Judgement(texts, values, checks, parts, cells, cell_checks)


def _computed_rows(source: Source, parts: Sequence[str]) -> str:
    """Return the relation of texts with what the expressions of computed columns give.

    Expressions read the delivered columns (`parts`), typed, by their own names: what is ours beside
    them begins with `__`, as no column of a source does.
    """
    if not source.computed:
        return "texts"
    typed_parts = "".join(
        f", {computed.part(name, source, quote(TEXT + name))} AS {quote(name)}" for name in parts
    )
    given = ", ".join(
        f"{computed.asked(name, source)} AS {quote(_GIVEN + name)}" for name in source.computed
    )
    return f"(SELECT *, {given} FROM (SELECT *{typed_parts} FROM texts))"


def doubled_query(source: Source, judged: str) -> str:
    """Return the query of (__id, __conflict) of good rows that repeat a key and a created time.

    `judged` is a table whose rows are numbered by `__id`. Of equal rows the first stays; of rows
    that differ, the one that sorts last by all its values stays, the others conflict.
    """
    key = ", ".join(quote(name) for name in record_key(source))
    values = ", ".join(quote(name) for name in curated_schema(source).names)
    descending = ", ".join(
        f"{quote(name)} DESC NULLS LAST" for name in curated_schema(source).names
    )
    return (
        f"WITH good AS (SELECT * FROM {judged} WHERE {RULE} IS NULL), twice AS (SELECT partition, "
        f"{key}, {CREATED} FROM good GROUP BY ALL HAVING count(*) > 1), ranked AS (SELECT __id, "
        f"row_number() OVER (PARTITION BY partition, {values} ORDER BY {FILE}, {ROW}) AS __copy, "
        f"dense_rank() OVER (PARTITION BY partition, {key}, {CREATED} ORDER BY {descending}) AS "
        f"__place FROM good SEMI JOIN twice USING (partition, {key}, {CREATED})) SELECT __id, "
        "__copy = 1 AS __conflict FROM ranked WHERE __copy > 1 OR __place > 1"
    )


def key_rules(source: Source, name: str, entity: str | None) -> dict[str, bool]:
    """Return whether a column must have a value (`required`), and whether it is a key (`key`).

    A key names the row or, of events, its entity.
    """
    column = source.columns[name]
    is_entity = name == entity and source.kind == "events"
    return {
        "required": name in source.key or (is_entity and column.nullable is not True),
        "key": name in source.key or is_entity,
    }


def has_rules(column: Column, *, required: bool, key: bool = False) -> bool:
    """Tell whether a value of the column can fail a rule."""
    is_unbound = (
        column.type == "string"
        and column.nullable is not False
        and column.values is None
        and column.regex is None
    )
    return required or not is_unbound


def _time_texts(source: Source) -> list[str]:
    stamps = [name for name, column in source.columns.items() if column.type == "timestamp"]
    return list(dict.fromkeys([*source.time_columns, *stamps]))


def _times(
    source: Source,
    values: dict[str, str],
    checks: list[tuple[str, str]],
    mixed: Sequence[tuple[str, str, bool]],
) -> None:
    """Add the expressions and checks of the event's and the created time."""
    if source.kind == "static":
        assert source.valid_from is not None
        values[EVENT] = f"TIMESTAMPTZ '{midnight(source.valid_from).isoformat(sep=' ')}'"
        values[CREATED] = f"t.{ARRIVED}"
        return
    for place, name in enumerate(source.time_columns):  # by role: one column may be both times
        as_event = place == 0
        value = f"t.{quote(VALUE + (EVENT if as_event else CREATED))}"
        if name in source.computed:
            text = value
            moment = computed.moment(name, source, f"t.{quote(_GIVEN + name)}")
        else:
            text = f"t.{quote(TEXT + name)}"
            moment = utc(text, source, dates_of(name, source))
        checks += [
            (f"{text} IS NULL", f"{name}: null"),
            *_time_checks(name, text, value, dates_of(name, source), mixed),
        ]
        if as_event:
            values[EVENT] = moment
            checks.append((f"{value} = {EPOCH}", f"{name}: epoch_zero"))
            checks.append((f"{value} >= t.__as_of", f"{name}: in_future"))
        else:
            checks.append((f"{value} > t.{ARRIVED}", f"{name}: in_future"))
            values[CREATED] = moment
            taken = f"CASE WHEN {moment} < t.{ARRIVED} THEN t.{ARRIVED} ELSE {moment} END"
            if source.takes_late:
                values[CREATED] = taken
            else:
                # A line of a late row whose own time cannot be read is taken all the same, and
                # fails another rule.
                marked = " OR ".join(
                    f"starts_with(t.{FILE}, '{mark}')" for mark in (REDRIVEN, LATE)
                )
                values[CREATED] = f"CASE WHEN {marked} THEN {taken} ELSE {moment} END"
                checks.append((f"{value} < t.{ARRIVED}", f"{name}: late"))
    if source.assumed_lag is not None:
        values[CREATED] = f"t.{ARRIVED}"


def _time_checks(
    name: str, text: str, value: str, dates: str | None, mixed: Sequence[tuple[str, str, bool]]
) -> list[tuple[str, str]]:
    """Return (condition, rule) of what a time may fail, whatever it is the time of.

    A computed time has no text: it is its own (`text` is `value`), and is there or not.
    """
    out_of_range = (f"{value} NOT BETWEEN {OLDEST} AND {NEWEST}", f"{name}: out_of_range")
    if text == value:
        return [out_of_range]
    unread = f"{text} IS NOT NULL AND {value} IS NULL"
    checks = [
        (f"{unread} AND NOT {is_time(text, dates)}", f"{name}: not_timestamp"),
        # What has the form of a time and is none is one that a clock change makes ambiguous.
        (unread, f"{name}: ambiguous_time"),
    ]
    for minority in (True, False):
        partitions = [
            partition for partition, column, kind in mixed if column == name and kind == minority
        ]
        if partitions:
            listed = ", ".join(text_literal(partition) for partition in partitions)
            kind = aware(text) if minority else f"NOT {aware(text)}"
            checks.append((f"t.partition IN ({listed}) AND {kind}", f"{name}: mixed_time_zones"))
    return [*checks, out_of_range]


def column_checks(
    name: str,
    column: Column,
    source: Source,
    text: str,
    value: str,
    *,
    required: bool = False,
    key: bool = False,
    mixed: Sequence[tuple[str, str, bool]] = (),
) -> list[tuple[str, str]]:
    """Return (condition, rule) of all that a cell may fail.

    `text` is the expression of its text, `value` that of its typed value; of a computed column both
    are the value.
    """
    is_computed = text == value and column.sql is not None
    checks: list[tuple[str, str]] = []
    if required or column.nullable is False:
        checks.append((f"{text} IS NULL", f"{name}: null"))
    if column.type == "timestamp":
        checks += _time_checks(name, text, value, column.dates, mixed)
    elif column.type != "string" and not is_computed:
        checks.append((f"{text} IS NOT NULL AND {value} IS NULL", f"{name}: not_{column.type}"))
    if key and column.type == "int64" and not is_computed:
        # 007 and 7 are one number but two names: as a number one of them would pass for a
        # correction of the other.
        checks.append((f"regexp_matches({text}, '^[+-]?0[0-9]')", f"{name}: leading_zeros"))
    if column.type == "float64":
        checks.append((f"NOT isfinite({value})", f"{name}: not_finite"))
    if column.type == "date":
        checks.append(
            (
                f"{value} NOT BETWEEN DATE '1900-01-01' AND DATE '2262-04-11'",
                f"{name}: out_of_range",
            )
        )
    if column.min is not None and math.isfinite(column.min):
        checks.append((f"{value} < {column.min!r}", f"{name}: below_min"))
    if column.max is not None and math.isfinite(column.max):
        checks.append((f"{value} > {column.max!r}", f"{name}: above_max"))
    if column.values is not None:
        listed = ", ".join(
            typed(trimmed_text(text_literal(item), column, source), column, source)
            for item in column.values
        )
        allowed = f"coalesce({value} IN ({listed}), false)" if listed else "false"
        checks.append((f"{value} IS NOT NULL AND NOT {allowed}", f"{name}: not_allowed"))
    if column.regex is not None:
        shown = f"CAST({value} AS VARCHAR)" if is_computed else text
        checks.append(
            (
                f"NOT regexp_full_match({shown}, {text_literal(column.regex)})",
                f"{name}: no_match",
            )
        )
    return checks
