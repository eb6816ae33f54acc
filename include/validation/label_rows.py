"""Label rows as they are stored: typed, sorted, cut by partition, refused where they are none."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from include.config.use_case import UseCase
from include.errors import ConfigError
from include.lake.sql import quote
from include.point_in_time.curated import CREATED, EVENT, label_schema

PART = "__partition"  # whose row it is, where those of several partitions are asked together


def typed(
    use_case: UseCase, con: duckdb.DuckDBPyConnection, query: str, keys: Sequence[str]
) -> dict[str, pa.Table]:
    """Return the label rows that a query gives, by partition, under their stored names, checked and
    sorted.

    The query gives __partition, __entity, the decision's time, __known, the created time and
    __label.

    Raises:
        ConfigError: a label has no entity or time, is not 0, 1 or null, or one decision has two.
    """
    key = quote(use_case.entity.key)
    try:
        rows = con.sql(
            f"SELECT DISTINCT {PART}, __entity AS {key}, {EVENT}, __known AS label_timestamp, "
            f"{CREATED}, __label AS label FROM ({query}) ORDER BY {PART}, {key}, {EVENT}, "
            f"{CREATED}, label_timestamp, label"
        ).to_arrow_table()
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{use_case.name}: a label's value does not fit its type ({reason}); correct the "
            "source's columns"
        ) from None
    _check(use_case, con, rows)
    counts = {pair["values"]: pair["counts"] for pair in pc.value_counts(rows[PART]).to_pylist()}
    body, start, parts = rows.drop_columns([PART]).cast(label_schema(use_case)), 0, {}
    for partition in sorted(keys):
        parts[partition] = body.slice(start, counts.get(partition, 0))
        start += len(parts[partition])
    return parts


def _check(use_case: UseCase, con: duckdb.DuckDBPyConnection, rows: pa.Table) -> None:
    """Refuse labels without a decision or of another value, and two of one decision and moment.

    Raises:
        ConfigError: there are such; names some of the oldest partition that has them.
    """
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


def _sample(con: duckdb.DuckDBPyConnection, which: str) -> str:
    """Return up to three label rows that meet a condition, in words."""
    query = f"SELECT * EXCLUDE ({PART}) FROM labels WHERE {which} ORDER BY {PART} LIMIT 3"
    rows = con.sql(query).to_arrow_table().to_pylist()
    return " | ".join(", ".join(f"{name}={value}" for name, value in row.items()) for row in rows)
