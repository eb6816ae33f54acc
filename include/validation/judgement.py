"""The judgement of a source: the SQL expressions that type its rows and check them.

A row's texts give its typed values, texts and values its checks; the first check that a row fails
is its rule. What a single text decides says so: `distinct_texts` asks it of each text once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from include.config.durations import midnight
from include.config.use_case_sources import Source
from include.ingestion import computed
from include.ingestion.columns import ARRIVED, FILE, LATE, MALFORMED, REDRIVEN, ROW
from include.ingestion.computed import NO_TEXT, parts_of
from include.ingestion.times import EPOCH, utc
from include.ingestion.values import cell, dates_of, typed
from include.lake.sql import PARTITION, quote, text_literal
from include.point_in_time.curated import CREATED, EVENT, curated_schema
from include.validation.cell_rules import (
    Check,
    Mixed,
    column_checks,
    key_rules,
    range_check,
    time_checks,
)

RULE = "rule"
AS_OF = "__as_of"  # of a row's partition
# Begin the columns of the query: a cell's text, what an expression gives, and the typed value. No
# column of a source begins so.
TEXT, _GIVEN, VALUE = "__t_", "__c_", "__v_"
_MOMENT = "__moment"  # the value of the created time's cell, before the arrival is looked at


class Value(NamedTuple):
    """The expression of a typed value; `column` is the raw column whose text alone decides it."""

    expression: str
    column: str | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """The expressions by which a source's rows are judged.

    `texts` are of raw columns, by their names; `values` of texts (`t.__t_<name>`), by their curated
    names; `checks` of both, in the order in which a row fails by them. `kept` are the columns of
    raw rows that they need besides, `parts` the delivered columns of which computed ones are made.
    """

    source: Source
    kept: list[str]
    texts: dict[str, str]
    values: dict[str, Value]
    checks: list[Check]
    parts: list[str]

    def values_of(self, column: str) -> dict[str, str]:
        """Return the expressions of the values that a raw column's text alone decides."""
        return {
            name: value.expression for name, value in self.values.items() if value.column == column
        }

    def checks_of(self, column: str) -> list[Check]:
        """Return the checks that a raw column's text alone decides."""
        return list(dict.fromkeys(check for check in self.checks if check.column == column))

    def query(
        self,
        rows: str,
        shown: Sequence[str] = (),
        *,
        told: Collection[str] = (),
        passed: Collection[Check] = (),
    ) -> str:
        """Return the query of some columns of the rows, of their curated values and their rule.

        `rows` is a relation of raw rows with their partition's `__as_of`. What it holds of texts
        and values by their names in the query is `told`: it is not computed, and not shown. Of the
        checks those that have `passed` are not asked.
        """
        texts = [quote(name) for name in told] + [
            f"{expression} AS {quote(TEXT + name)}"
            for name, expression in self.texts.items()
            if TEXT + name not in told
        ]
        values = [
            f"{self._of_row(name)} AS {quote(VALUE + name)}"
            for name in self.values
            if VALUE + name not in told
        ]
        out = [
            f"{quote(VALUE + name)} AS {quote(name)}"
            for name in curated_schema(self.source).names
            if VALUE + name not in told
        ]
        return (
            f"WITH texts AS (SELECT {', '.join([*self.kept, AS_OF, *texts])} FROM {rows}), typed "
            f"AS (SELECT {', '.join(['*', *values])} FROM {self._computed_rows(told)} AS t) "
            f"SELECT {', '.join([*shown, *out, f'{self._rule(passed)} AS {RULE}'])} "
            "FROM typed AS t"
        )

    def _of_row(self, name: str) -> str:
        """Return the expression of a value in a row; what expressions read is typed already."""
        value = self.values[name]
        return f"t.{quote(name)}" if name == value.column in self.parts else value.expression

    def _rule(self, passed: Collection[Check]) -> str:
        """Return the expression of the first rule that a row fails; null of a good row."""
        rules = [
            f"WHEN {check.bad} THEN {text_literal(check.rule)}"
            for check in self.checks
            if check not in passed
        ]
        return f"CASE {' '.join(rules)} END" if rules else "CAST(NULL AS VARCHAR)"

    def _computed_rows(self, told: Collection[str]) -> str:
        """Return the relation of texts with what the expressions of computed columns give.

        Expressions read the delivered columns (`parts`), typed, by their own names: what is ours
        beside them begins with `__`, as no column of a source does.
        """
        if not self.source.computed:
            return "texts"
        parts = [
            quote(VALUE + name)
            if VALUE + name in told
            else computed.part(name, self.source, quote(TEXT + name))
            for name in self.parts
        ]
        typed_parts = "".join(
            f", {part} AS {quote(name)}" for name, part in zip(self.parts, parts, strict=True)
        )
        given = ", ".join(
            f"{computed.asked(name, self.source)} AS {quote(_GIVEN + name)}"
            for name in self.source.computed
        )
        return f"(SELECT *, {given} FROM (SELECT *{typed_parts} FROM texts))"


def judgement(
    source: Source, present: Collection[str], mixed: Mixed = (), *, entity: str | None = None
) -> Judgement:
    """Return the expressions by which a source's rows are judged.

    `present` are the columns of the raw rows, `mixed` is what `mixed_zones_query` found, `entity`
    the entity's key.
    """
    texts = {
        name: cell(name, source) if name in present else NO_TEXT
        for name in dict.fromkeys([*source.columns, *source.time_columns])
        if name not in source.computed
    }
    kept = [PARTITION, FILE, ROW, ARRIVED]
    values: dict[str, Value] = {}
    checks: list[Check] = []
    if MALFORMED in present:
        kept.append(MALFORMED)
        checks.append(Check(f"t.{MALFORMED} IS NOT NULL", "malformed_row"))
    if source.kind == "static":
        assert source.valid_from is not None
        moment = f"TIMESTAMPTZ '{midnight(source.valid_from).isoformat(sep=' ')}'"
        values |= {EVENT: Value(moment), CREATED: Value(f"t.{ARRIVED}")}
    else:
        _judge_event_time(source, values, checks, mixed)
        if source.assumed_lag is None:
            _judge_created_time(source, values, checks, mixed)
        else:
            values[CREATED] = Value(f"t.{ARRIVED}")
    for name, column in source.columns.items():
        if name in (EVENT, CREATED):
            continue
        text, value = f"t.{quote(TEXT + name)}", f"t.{quote(VALUE + name)}"
        if name in source.computed:
            values[name] = Value(computed.value(name, source, f"t.{quote(_GIVEN + name)}"))
            text = value
        else:
            values[name] = Value(typed(text, column, source), name)
        checks += column_checks(
            name, column, source, text, value, mixed=mixed, **key_rules(source, name, entity)
        )
    return Judgement(source, kept, texts, values, checks, parts_of(source.computed, source))


def _judge_event_time(
    source: Source, values: dict[str, Value], checks: list[Check], mixed: Mixed
) -> None:
    """Add the value and the checks of the time at which a row happened."""
    name, value = source.time_columns[0], f"t.{quote(VALUE + EVENT)}"
    text, values[EVENT] = _time(name, source, value)
    whose = values[EVENT].column
    checks += [
        Check(f"{text} IS NULL", f"{name}: null", whose),
        *time_checks(name, text, value, dates_of(name, source), mixed),
        Check(f"{value} = {EPOCH}", f"{name}: epoch_zero", whose),
        Check(f"{value} >= t.{AS_OF}", f"{name}: in_future"),
    ]


def _judge_created_time(
    source: Source, values: dict[str, Value], checks: list[Check], mixed: Mixed
) -> None:
    """Add the value and the checks of the time from which a row was known.

    That of a row that is taken late is its arrival: nobody knew of it before. So it hangs on the
    text and on the arrival, and whether it is in range is asked of the row.
    """
    name = source.time_columns[1]
    # The first is the name of a value in the same list: not yet a column of `t`.
    cell_value, value = quote(VALUE + _MOMENT), f"t.{quote(VALUE + CREATED)}"
    text, values[_MOMENT] = _time(name, source, cell_value)
    taken = f"CASE WHEN {cell_value} < t.{ARRIVED} THEN t.{ARRIVED} ELSE {cell_value} END"
    checks += [
        Check(f"{text} IS NULL", f"{name}: null", values[_MOMENT].column),
        *time_checks(name, text, cell_value, dates_of(name, source), mixed)[:-1],
        range_check(name, value),
        Check(f"{value} > t.{ARRIVED}", f"{name}: in_future"),
    ]
    if source.takes_late:
        values[CREATED] = Value(taken)
        return
    # A line of a late row whose own time cannot be read is taken all the same, and fails another
    # rule.
    marked = " OR ".join(f"starts_with(t.{FILE}, '{mark}')" for mark in (REDRIVEN, LATE))
    values[CREATED] = Value(f"CASE WHEN {marked} THEN {taken} ELSE {cell_value} END")
    checks.append(Check(f"{value} < t.{ARRIVED}", f"{name}: late"))


def _time(name: str, source: Source, value: str) -> tuple[str, Value]:
    """Return a time column's text, which is its `value` where it is computed, and its value."""
    if name in source.computed:
        return value, Value(computed.moment(name, source, f"t.{quote(_GIVEN + name)}"))
    text = f"t.{quote(TEXT + name)}"
    return text, Value(utc(text, source, dates_of(name, source)), name)
