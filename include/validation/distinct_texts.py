"""Distinct texts of raw rows, each trimmed, typed and checked once.

A column of a day repeats few texts in many rows. What a text alone decides (its value, whether it
fits its type, range, list and form) is asked of the distinct ones, by the expressions of the
contract. A check that none of them fails is asked of no row.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from include.ingestion.times import aware
from include.ingestion.values import are_bare, cell
from include.lake.coded import one_chunk
from include.lake.sql import quote
from include.validation.cell_rules import Check
from include.validation.contract import iso_times
from include.validation.judgement import TEXT, VALUE, Judgement


@dataclass(frozen=True, slots=True)
class Told:
    """What the distinct texts of raw rows have told.

    `columns` are texts and values by row, under the names that they have in the query of a
    `Judgement`; a repeated value is held once. `passed` are the checks that no text fails,
    `has_both_zones` says that some column may hold times with and without a zone.
    """

    columns: dict[str, pa.ChunkedArray] = field(default_factory=dict)
    passed: set[Check] = field(default_factory=set)
    has_both_zones: bool = False


def ask_texts(con: duckdb.DuckDBPyConnection, judged: Judgement, raw: pa.Table) -> Told:
    """Ask of the distinct texts of raw rows all that a text alone decides.

    `raw` are the rows, in which texts that repeat are dictionaries, one a column.
    """
    columns: dict[str, pa.ChunkedArray] = {}
    passed: set[Check] = set()
    has_both_zones = False
    for name in judged.texts:
        if name in raw.column_names:
            told = _ask(con, judged, name, raw.column(name))
            columns |= told.columns
            passed |= told.passed
            has_both_zones = has_both_zones or told.has_both_zones
    return Told(columns, passed, has_both_zones)


def _ask(
    con: duckdb.DuckDBPyConnection, judged: Judgement, name: str, column: pa.ChunkedArray
) -> Told:
    """Ask the distinct texts of one column."""
    codes, texts = None, column
    if pa.types.is_dictionary(column.type) and len(column):
        codes = one_chunk(column)
        texts = codes.dictionary
    answers = _type(con, judged, name, texts)
    checks = judged.checks_of(name)
    conditions = [check.bad for check in checks]
    if name in iso_times(judged.source):
        as_time = next(iter(judged.values_of(name)))  # the time that it stands for comes first
        kind = aware(f"t.{quote(TEXT + name)}", f"t.{quote(VALUE + as_time)} IS NOT NULL")
        conditions += [kind, f"NOT {kind}"]
    # A row without a text is among the distinct ones only as a missing code.
    has_missing = codes is not None and codes.null_count > 0
    failed = _any_meet(con, conditions, answers, f"{TEXT}{name}" if has_missing else None)
    return Told(
        {each: _by_row(answers.column(each), codes) for each in answers.column_names},
        {check for check, bad in zip(checks, failed, strict=False) if not bad},
        len(failed) > len(checks) and all(failed[-2:]),
    )


def _type(
    con: duckdb.DuckDBPyConnection, judged: Judgement, name: str, texts: pa.ChunkedArray | pa.Array
) -> pa.Table:
    """Return texts of a column as cells are read, and the values that they stand for."""
    given = pa.table({name: texts})
    text = cell(name, judged.source, bare=all(map(are_bare, given.column(name).chunks)))
    values = judged.values_of(name).items()
    listed = [f"{value} AS {quote(VALUE + of)}" for of, value in values]
    is_as_given = text == quote(
        name
    )  # nothing to trim, nothing that means no value: no copy either
    if not is_as_given:
        listed.append(quote(TEXT + name))
    answers = {TEXT + name: given.column(name)} if is_as_given else {}
    if listed:
        con.register("__texts", given)
        told = con.sql(
            f"SELECT {', '.join(listed)} FROM (SELECT {text} AS {quote(TEXT + name)} FROM __texts) "
            "AS t"
        ).to_arrow_table()
        con.unregister("__texts")
        answers |= dict(zip(told.column_names, told.columns, strict=True))
    return pa.table(answers)


def _any_meet(
    con: duckdb.DuckDBPyConnection, conditions: list[str], answers: pa.Table, missing: str | None
) -> tuple[bool, ...]:
    """Tell of each condition whether any answer meets it; `missing` adds an empty one, so named."""
    if not conditions:
        return ()
    listed = ", ".join(f"coalesce(bool_or({condition}), false)" for condition in conditions)
    more = f" UNION ALL BY NAME SELECT NULL AS {quote(missing)}" if missing else ""
    con.register("__answers", answers)
    (found,) = con.execute(f"SELECT {listed} FROM (SELECT * FROM __answers{more}) AS t").fetchall()
    con.unregister("__answers")
    return tuple(found)


def _by_row(values: pa.ChunkedArray, codes: pa.DictionaryArray | None) -> pa.ChunkedArray:
    """Return the values of distinct texts as those of the rows."""
    if codes is None:
        return values
    return pa.chunked_array([pa.DictionaryArray.from_arrays(codes.indices, one_chunk(values))])
