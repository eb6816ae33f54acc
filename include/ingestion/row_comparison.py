"""Comparison of raw rows: which offered ones are new, which stand again, which are left.

Rows are compared by the columns of their source, a null being equal to a null. Columns that one
side lacks count as null there. Rows of closed partitions carry `__belongs`, the partition, and
equal only rows of the same one. Parts of the key that are computed are no columns of raw rows: they
are put beside them while keys are compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from include.config.use_case_sources import Source
from include.ingestion.columns import ARRIVED, BELONGS, CORRECTS, FILE, GUESSED, LATE, ROW
from include.ingestion.computed import texts_query
from include.lake.sql import PARTITION, connect, quote

_KEY = "__key_"


def find_new_rows(offered: pa.Table, known: Sequence[pa.Table], source: Source) -> pa.Table:
    """Return the offered rows that equal no known one, in their order.

    The column `__corrects` tells which of them have the key of a known row.
    """
    if not len(offered):
        return offered
    names = [*_compared_columns(offered), BELONGS]
    asked, key = _with_key(offered, source)
    picked = list(dict.fromkeys([*names, *key]))
    with connect() as con:
        con.register("offered", asked.append_column("__place", pa.array(np.arange(len(offered)))))
        parts = [f"SELECT {_picked(picked, asked)} FROM offered WHERE false"]
        for index, table in enumerate(table for table in known if len(table)):
            told, _ = _with_key(table, source)
            con.register(f"known{index}", told)
            parts.append(f"SELECT {_picked(picked, told)} FROM known{index}")
        con.execute(f"CREATE TEMP TABLE known AS {' UNION ALL '.join(parts)}")
        same_key = f"{_equal('o', 'k', key)} AND k.{BELONGS} = o.{BELONGS}" if key else "false"
        new = con.sql(
            f"SELECT o.__place, EXISTS (SELECT 1 FROM known AS k WHERE {same_key}) AS corrects "
            "FROM offered AS o WHERE NOT EXISTS (SELECT 1 FROM known AS k WHERE "
            f"{_same('o', 'k', names)}) ORDER BY o.__place"
        ).to_arrow_table()
    return offered.take(new.column(0)).append_column(CORRECTS, new.column(1))


def find_restored_rows(
    offered: pa.Table, new: pa.Table, taken: pa.Table, source: Source
) -> pa.Table:
    """Return the rows on record that are offered again where a late correction had replaced them.

    `taken` are the late rows that were taken, `new` what `find_new_rows` found of the offered ones.
    What stands again corrects the correction.
    """
    names = [*_compared_columns(offered), BELONGS]
    asked, own_key = _with_key(offered, source)
    if not len(taken) or not own_key:
        return pa.table({})
    told, _ = _with_key(taken, source)
    key = [*own_key, BELONGS]
    keys, made = ", ".join(map(quote, key)), [name for name in key if name.startswith(_KEY)]
    left_out = f" EXCLUDE ({', '.join(map(quote, made))})" if made else ""
    with connect() as con:
        con.register("offered", asked)
        con.register("fresh", new.select(names) if len(new) else offered.slice(0, 0))
        con.register("taken", told)
        return con.sql(
            # Rows that an older record took do not say whose they are, and so nothing of what
            # stands again.
            f"WITH newest AS (SELECT {_picked([*names, *made], told)} FROM taken WHERE "
            f"starts_with({FILE}, '{LATE}') QUALIFY {PARTITION} = max({PARTITION}) OVER "
            f"(PARTITION BY {keys})), still AS (SELECT n.* FROM newest AS n SEMI JOIN offered AS "
            "o ON "
            f"{_same('n', 'o', names)}), gone AS (SELECT {keys} FROM newest ANTI JOIN still "
            f"USING ({keys})) SELECT o.*{left_out}, true AS {CORRECTS} FROM (SELECT * FROM offered "
            f"SEMI JOIN gone USING ({keys})) AS o ANTI JOIN fresh AS f ON {_same('o', 'f', names)}"
        ).to_arrow_table()


def subtract_rows(rows: pa.Table, others: pa.Table) -> pa.Table:
    """Return the rows that are left when each of the others has taken one equal row away."""
    if not len(others) or not len(rows):
        return rows
    names = [name for name in rows.column_names if name not in (FILE, ROW, ARRIVED)]
    columns = ", ".join(map(quote, names))
    with connect() as con:
        numbered = rows.select(names).append_column("__place", pa.array(np.arange(len(rows))))
        con.register("numbered", numbered)
        con.register("others", others)
        left = con.sql(
            # Equal rows are numbered, and the first n of them go where n others equal them.
            f"WITH r AS (SELECT *, row_number() OVER (PARTITION BY {columns} ORDER BY __place) AS "
            f"__copy FROM numbered) SELECT r.__place FROM r LEFT JOIN (SELECT "
            f"{_picked(names, others)}, count(*) AS __taken FROM others GROUP BY ALL) AS t ON "
            f"{_same('r', 't', names)} WHERE r.__copy > coalesce(t.__taken, 0) ORDER BY r.__place"
        ).to_arrow_table()
    return rows.take(left.column(0))


def without_keys_of(rows: pa.Table, others: pa.Table, source: Source) -> pa.Table:
    """Return the rows whose key no other row has; all of them where the key is not there."""
    if not len(rows) or not len(others):
        return rows
    asked, key = _with_key(rows, source)
    told, other_key = _with_key(others, source)
    shared = [name for name in key if name in other_key]
    columns = ", ".join(map(quote, rows.column_names))
    with connect() as con:
        con.register("rows", asked)
        con.register("others", told)
        return con.sql(
            f"SELECT {columns} FROM rows AS r ANTI JOIN others AS o ON "
            f"{_equal('r', 'o', shared) if shared else 'false'}"
        ).to_arrow_table()


def _with_key(rows: pa.Table, source: Source) -> tuple[pa.Table, list[str]]:
    """Return rows with the computed parts of their key, and the columns that hold their key."""
    computed = source.computed
    key = [name for name in source.key if name in rows.column_names and name not in computed]
    made = [name for name in source.key if name in computed]
    if not made:
        return rows, key
    with connect() as con:
        con.register("rows", rows)
        texts = con.sql(texts_query(made, source, rows.column_names, "rows")).to_arrow_table()
    for name in made:
        rows = rows.append_column(f"{_KEY}{name}", texts.column(name))
    return rows, [*key, *(f"{_KEY}{name}" for name in made)]


def _compared_columns(rows: pa.Table) -> list[str]:
    """Return the columns by which rows are compared: the source's own."""
    ours = (FILE, ROW, ARRIVED, PARTITION, GUESSED, BELONGS, CORRECTS)
    return [name for name in rows.column_names if name not in ours]


def _picked(names: Sequence[str], rows: pa.Table) -> str:
    """Return a list of columns for SELECT; one that the table lacks is null."""
    return ", ".join(
        quote(name) if name in rows.column_names else f"NULL AS {quote(name)}" for name in names
    )


def _same(one: str, other: str, names: Sequence[str]) -> str:
    """Return the condition that two rows are equal, a null being equal to a null."""
    return " AND ".join(
        f"{one}.{quote(name)} IS NOT DISTINCT FROM {other}.{quote(name)}" for name in names
    )


def _equal(one: str, other: str, names: Sequence[str]) -> str:
    """Return the condition that two rows have one key; a key with a null in it names no row."""
    return " AND ".join(f"{one}.{quote(name)} = {other}.{quote(name)}" for name in names)
