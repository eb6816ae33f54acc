"""Rows of a source that repeat a key and a created time, or that are decisions of one moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.config.use_case_sources import Source
from include.ingestion.columns import FILE, ROW
from include.lake.coded import plain
from include.lake.ordering import is_ordered
from include.lake.sql import PARTITION, quote
from include.point_in_time.curated import CREATED, EVENT, curated_schema, record_key
from include.point_in_time.decisions import repeated_rows

CONFLICT = "conflicting_duplicate"
DUPLICATE = ""  # stands for a rule of an exact duplicate, which is dropped and counted
_SLOTS = 1 << 16
_ID = "__id"  # the place of a row


def find_repeated_keys(
    con: duckdb.DuckDBPyConnection, source: Source, rows: pa.Table, rule: pa.ChunkedArray
) -> Any:
    """Return the places of good rows that may repeat a key and a created time; few others.

    `rows` are curated values with partition and place in their file; of good ones `rule` is null.
    """
    key = record_key(source)
    good = np.flatnonzero(rule.is_null())
    if any(_counts_up(rows.column(name)) for name in key):
        return good[:0]
    return _same_hash(con, rows, [PARTITION, *key, CREATED], good)


def part_versions(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    rows: pa.Table,
    again: Any,
    arrived: Callable[[], pa.ChunkedArray],
) -> pa.Table:
    """Return rows in which versions of a record that came late together have times of their own.

    Of what is taken late, nobody knew before the interval began, so all versions of a record are
    created at that one moment. In order of the time at which they had arrived by themselves each is
    a microsecond later than the one before: so the last one stands, and the first is what a request
    had. `again` are the places of `find_repeated_keys`, `arrived` gives those times of them.
    """
    if source.kind == "static" or not len(again):
        return rows
    few = rows.select([PARTITION, *record_key(source), CREATED]).take(pa.array(again))
    con.register(
        "__again", few.append_column("__arrived", arrived()).append_column(_ID, pa.array(again))
    )
    of_one = ", ".join(map(quote, dict.fromkeys([PARTITION, *record_key(source), CREATED])))
    later = con.sql(
        f"SELECT {_ID}, {CREATED} + to_microseconds(__place) AS __created FROM (SELECT *, "
        f"dense_rank() OVER (PARTITION BY {of_one} ORDER BY __arrived NULLS FIRST) - 1 AS __place "
        f"FROM __again) WHERE __place > 0 ORDER BY {_ID}"
    ).to_arrow_table()
    con.unregister("__again")
    if not len(later):
        return rows
    is_later = np.zeros(len(rows), bool)
    is_later[later.column(_ID).to_numpy()] = True
    place = rows.column_names.index(CREATED)
    created = plain(rows.column(CREATED)).combine_chunks()
    moments = later.column("__created").cast(created.type).combine_chunks()
    return rows.set_column(place, CREATED, pc.replace_with_mask(created, is_later, moments))


def mark_doubled(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    rows: pa.Table,
    rule: pa.ChunkedArray,
    again: Any,
) -> pa.ChunkedArray:
    """Return the rules of rows, with one for those that repeat a key and a created time.

    `again` are the places of `find_repeated_keys`. An exact copy gets the rule DUPLICATE.
    """
    if not len(again):
        return rule
    con.register("__again", rows.take(pa.array(again)).append_column(_ID, pa.array(again)))
    found = con.sql(f"{_doubled_query(source, '__again')} ORDER BY {_ID}").to_arrow_table()
    con.unregister("__again")
    is_doubled = np.zeros(len(rule), bool)
    is_doubled[found.column(_ID).to_numpy()] = True
    names = pc.if_else(found.column("__conflict"), CONFLICT, DUPLICATE)
    return pc.replace_with_mask(rule.combine_chunks(), is_doubled, names.combine_chunks())


def _counts_up(column: pa.ChunkedArray) -> bool:
    """Tell whether a column grows from row to row, as a number of rows does: it repeats nowhere."""
    return not pa.types.is_dictionary(column.type) and is_ordered([column], strictly=True)


def count_repeated(
    con: duckdb.DuckDBPyConnection, source: Source, entity: str, rows: pa.Table, good: Any
) -> dict[str, tuple[int, int]]:
    """Return, by partition, the decisions that do not stand and those that share a moment.

    `entity` is the curated column of the entity's key, `good` the places of curated rows.
    """
    again = _same_hash(con, rows, [PARTITION, entity, EVENT], good)
    if not len(again):
        return {}
    con.register("__again", rows.take(pa.array(again)))
    found = con.execute(repeated_rows(source, entity, "__again")).fetchall()
    con.unregister("__again")
    return {key: (rows, sharing) for key, rows, sharing in found}


def _same_hash(
    con: duckdb.DuckDBPyConnection, rows: pa.Table, names: Sequence[str], good: Any
) -> Any:
    """Return the places of good rows whose values in some columns may be those of another one.

    Equal values have equal hashes, so no other row can repeat one. To sort hashes takes a fraction
    of what it takes to group rows by the values; whether they are equal is asked of these few. Half
    a hash is sorted faster, and gives a hundred false pairs in a million rows.
    """
    con.register("__rows", rows.select(names))
    found = con.sql(f"SELECT hash({', '.join(map(quote, names))}) AS h FROM __rows")
    hashes = found.to_arrow_table().column("h").to_numpy().astype(np.uint32)
    con.unregister("__rows")
    values = hashes if len(good) == len(hashes) else hashes[good]
    ordered = np.sort(values)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(twice):
        return good[:0]
    # First by the last bits alone, which are looked up in no time.
    slots = np.zeros(_SLOTS, bool)
    slots[twice % _SLOTS] = True
    near = np.flatnonzero(slots[values % _SLOTS])
    return good[near[np.isin(values[near], twice)]]


def _doubled_query(source: Source, good: str) -> str:
    """Return the query of (__id, __conflict) of good rows that repeat a key and a created time.

    `good` is a table whose rows are numbered by `__id`. Of equal rows the first stays; of rows that
    differ, the one that sorts last by all its values stays, the others conflict.
    """
    key = ", ".join(quote(name) for name in record_key(source))
    values = ", ".join(quote(name) for name in curated_schema(source).names)
    descending = ", ".join(
        f"{quote(name)} DESC NULLS LAST" for name in curated_schema(source).names
    )
    return (
        f"WITH twice AS (SELECT partition, {key}, {CREATED} FROM {good} GROUP BY ALL HAVING "
        "count(*) > 1), ranked AS (SELECT __id, "
        f"row_number() OVER (PARTITION BY partition, {values} ORDER BY {FILE}, {ROW}) AS __copy, "
        f"dense_rank() OVER (PARTITION BY partition, {key}, {CREATED} ORDER BY {descending}) AS "
        f"__place FROM {good} SEMI JOIN twice USING (partition, {key}, {CREATED})) SELECT __id, "
        "__copy = 1 AS __conflict FROM ranked WHERE __copy > 1 OR __place > 1"
    )
