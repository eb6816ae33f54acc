"""Raw rows judged by their distinct texts: each text is trimmed, typed and checked once.

A column of a day repeats few texts in many rows. What hangs on a text alone (its value, whether it
fits its type, range, list and form) is asked of the distinct ones, by the expressions of the
contract. A check that none of them fails is asked of no row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import duckdb
import pyarrow as pa

from include.config.use_case_sources import Source
from include.ingestion.columns import ARRIVED, FILE, MALFORMED, ROW
from include.ingestion.times import aware
from include.ingestion.values import dates_of
from include.lake.sql import PARTITION, TIMESTAMP, quote
from include.point_in_time.curated import CREATED, curated_schema
from include.validation.contract import RULE, TEXT, VALUE, Judgement, judgement

_MOMENT = "__moment"  # of the created time, before the arrival is looked at
Mixed = Sequence[tuple[str, str, bool]]


def judge_texts(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    raw: pa.Table,
    find_mixed: Callable[[], Mixed],
    *,
    entity: str | None,
) -> pa.Table:
    """Return what `judged_query` gives of raw rows, in their order, repeated values held once.

    `raw` are the rows with texts as dictionaries where they repeat, of a source without computed
    columns. `find_mixed` counts times with and without zones; it is asked only where a column has
    both.
    """
    present, plain = set(raw.column_names), judgement(source, raw.column_names, (), entity=entity)
    told: dict[str, pa.ChunkedArray] = {}
    unfailed: set[tuple[str, str]] = set()
    has_both = False
    for name in plain.texts:
        if name in present:
            found, passed, both = _ask(con, source, plain, name, raw.column(name))
            told |= found
            unfailed |= passed
            has_both = has_both or both
    asked = judgement(source, present, find_mixed() if has_both else (), entity=entity)
    return _rows(con, source, raw, asked, told, unfailed)


def _ask(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    asked: Judgement,
    name: str,
    column: pa.ChunkedArray,
) -> tuple[dict[str, pa.ChunkedArray], set[tuple[str, str]], bool]:
    """Type and check the distinct texts of a column.

    Returns its texts and values by row, the checks that none fails, and whether it holds times with
    and without zones.
    """
    codes, texts = None, column
    if pa.types.is_dictionary(column.type) and column.num_chunks:
        codes = column.combine_chunks()
        codes = codes.chunk(0) if isinstance(codes, pa.ChunkedArray) else codes
        texts = codes.dictionary
    con.register("__texts", pa.table({name: texts}))
    values = "".join(
        f", {expression} AS {quote(VALUE + value)}"
        for value, expression in asked.cells[name].items()
    )
    answers = con.sql(
        f"SELECT *{values} FROM (SELECT {asked.texts[name]} AS {quote(TEXT + name)} "
        "FROM __texts) AS t"
    ).to_arrow_table()
    con.register("__answers", answers)
    checks = list(dict.fromkeys(asked.cell_checks[name]))
    conditions = [bad for bad, _ in checks]
    is_iso = name in source.time_columns or _is_time(source, name)
    if is_iso and dates_of(name, source) is None:
        kind = aware(f"t.{quote(TEXT + name)}")
        conditions += [kind, f"NOT {kind}"]
    # A row without a text is among the distinct ones only as a missing code.
    missing = " UNION ALL BY NAME SELECT NULL" if codes is not None and codes.null_count else ""
    if missing:
        missing += f" AS {quote(TEXT + name)}"
    failed: tuple[bool, ...] = ()
    if conditions:
        listed = ", ".join(f"coalesce(bool_or({bad}), false)" for bad in conditions)
        (failed,) = con.execute(
            f"SELECT {listed} FROM (SELECT * FROM __answers{missing}) AS t"
        ).fetchall()
    con.unregister("__texts")
    con.unregister("__answers")
    passed = {check for check, bad in zip(checks, failed, strict=False) if not bad}
    both = len(failed) > len(checks) and all(failed[-2:])
    return (
        {each: _by_row(answers.column(each), codes) for each in answers.column_names},
        passed,
        both,
    )


def _rows(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    raw: pa.Table,
    asked: Judgement,
    told: dict[str, pa.ChunkedArray],
    unfailed: set[tuple[str, str]],
) -> pa.Table:
    """Return the judged rows: what the texts told, and what only a whole row says."""
    kept = [PARTITION, FILE, ROW, ARRIVED, *([MALFORMED] if MALFORMED in raw.column_names else [])]
    lacking = [name for name in asked.texts if name not in raw.column_names]
    # Put beside the rows and not joined to them: a join keeps no order, and values are put together
    # by the places of their rows.
    moments = dict(con.execute("SELECT partition, __as_of FROM __periods").fetchall())
    partition = raw.column(PARTITION).unify_dictionaries().combine_chunks()
    if isinstance(partition, pa.ChunkedArray):
        partition = partition.chunk(0)
    as_of = pa.array([moments[key] for key in partition.dictionary.to_pylist()], TIMESTAMP)
    columns = {name: raw.column(name) for name in kept} | told
    columns["__as_of"] = as_of.take(partition.indices)
    # The created time hangs on the arrival too: told is only its moment.
    moment = columns.pop(VALUE + CREATED, None)
    if moment is not None:
        columns[_MOMENT] = moment
    con.register("__told", pa.table(columns))
    checks = [check for check in asked.checks if check not in unfailed]
    values = dict(asked.values)
    if moment is not None:
        own = asked.cells[source.time_columns[1]][CREATED]
        values[CREATED] = values[CREATED].replace(own, f"t.{_MOMENT}")
    texts = "".join(f", {asked.texts[name]} AS {quote(TEXT + name)}" for name in lacking)
    computed = {name: expression for name, expression in values.items() if VALUE + name not in told}
    computed |= {CREATED: values[CREATED]}
    listed = "".join(
        f", {expression} AS {quote(VALUE + name)}" for name, expression in computed.items()
    )
    out = ", ".join(f"{quote(VALUE + name)} AS {quote(name)}" for name in computed)
    rule = Judgement({}, {}, checks, [], {}, {}).rule()
    by_row = con.sql(
        f"WITH texts AS (SELECT *{texts} FROM __told), typed AS (SELECT *{listed} FROM texts AS t) "
        f"SELECT {out}, {rule} AS {RULE} FROM typed AS t"
    ).to_arrow_table()
    con.unregister("__told")
    made = {name: by_row.column(name) for name in by_row.column_names}
    values_of = {
        name: made[name] if name in made else told[VALUE + name]
        for name in curated_schema(source).names
    }
    return pa.table(
        {name: raw.column(name) for name in (PARTITION, FILE, ROW, ARRIVED)}
        | values_of
        | {RULE: made[RULE]}
    )


def _is_time(source: Source, name: str) -> bool:
    return name in source.columns and source.columns[name].type == "timestamp"


def _by_row(values: pa.ChunkedArray, codes: pa.DictionaryArray | None) -> pa.ChunkedArray:
    if codes is None:
        return values
    distinct = values.combine_chunks()
    if isinstance(distinct, pa.ChunkedArray):
        distinct = pa.concat_arrays(distinct.chunks)
    return pa.chunked_array([pa.DictionaryArray.from_arrays(codes.indices, distinct)])
