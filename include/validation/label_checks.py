"""What no label may be: without a decision, of another value than 0 and 1, two of one moment."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from include.config.use_case import UseCase
from include.errors import ConfigError
from include.lake.sql import quote
from include.point_in_time.curated import CREATED, EVENT

PART = "__partition"  # whose row it is, where those of several partitions are asked together


def refuse_bad_labels(use_case: UseCase, con: duckdb.DuckDBPyConnection, rows: pa.Table) -> None:
    """Refuse labels without a decision or of another value, and two of one decision and moment.

    Raises:
        ConfigError: there are such; names some of the oldest partition that has them.
    """
    if not _is_doubtful(rows, use_case.entity.key):
        return
    key = quote(use_case.entity.key)
    con.register("labels", rows)
    # Two labels of one decision, known at one moment: of these nobody could say which one stands.
    twice = f"count(*) - count(DISTINCT ({key}, {EVENT}, {CREATED}))"
    no_label, no_decision = (
        "label IS NOT NULL AND label NOT IN (0, 1)",
        f"{key} IS NULL OR {EVENT} IS NULL",
    )
    bad = con.execute(
        f"SELECT count(*) FILTER ({no_label}), count(*) FILTER ({no_decision}), {twice} AS doubled "
        f"FROM labels GROUP BY {PART} HAVING count(*) FILTER ({no_label} OR {no_decision}) > 0 OR "
        f"doubled > 0 ORDER BY {PART} LIMIT 1"
    ).fetchall()
    if not bad:
        return
    strange, nameless, doubled = bad[0]
    if strange:
        raise ConfigError(
            f"{use_case.name}: labels are 0, 1 or null; there are values such as "
            f"{_sample(con, no_label)}. Name the value that counts as 1 by label.positive, or "
            "write label.sql"
        )
    if nameless:
        raise ConfigError(
            f"{use_case.name}: a label needs its entity and event_timestamp; there are "
            f"{_sample(con, no_decision)}. Leave them out in the SQL"
        )
    if doubled:
        one = f"({PART}, {key}, {EVENT}, {CREATED})"
        again = f"{one} IN (SELECT {one} FROM labels GROUP BY ALL HAVING count(*) > 1)"
        raise ConfigError(
            f"{use_case.name}: one decision has two labels that became known at one moment, such "
            f"as {_sample(con, again)}; give one row for each {use_case.entity.key} and "
            "event_timestamp"
        )


def _is_doubtful(rows: pa.Table, key: str) -> bool:
    """Tell, of sorted label rows, whether any could be refused.

    A query that says which takes longer than to compute the labels of a partition.
    """
    labels = rows.column("label")
    others = pc.is_in(labels, pa.array([0.0, 1.0, None], pa.float64()))
    if rows.column(key).null_count or rows.column(EVENT).null_count or not pc.all(others).as_py():
        return True
    count = max(0, len(rows) - 1)
    same = pa.chunked_array([pa.repeat(True, count)])
    for name in (PART, key, EVENT, CREATED):
        column = rows.column(name)
        same = pc.and_(same, pc.equal(column.slice(1), column.slice(0, count)))
    # Of a null nobody can tell whether it equals another.
    return bool(pc.any(same).as_py()) or bool(same.null_count)


def _sample(con: duckdb.DuckDBPyConnection, which: str) -> str:
    """Return up to three label rows that meet a condition, in words."""
    query = f"SELECT * EXCLUDE ({PART}) FROM labels WHERE {which} ORDER BY {PART} LIMIT 3"
    rows = con.sql(query).to_arrow_table().to_pylist()
    return " | ".join(", ".join(f"{name}={value}" for name, value in row.items()) for row in rows)
