"""Decisions: rows of one entity at one moment, and which of several such rows is the decision.

Label and features of a decision must come from one row. Rows of different source keys that share
entity and moment are duplicates: the one with the greatest created time, then the greatest key
stands, whatever its outcome is. A later row of the same key is its correction and no duplicate.
"""

from __future__ import annotations

from include.config.use_case_sources import Source
from include.lake.sql import quote
from include.point_in_time.curated import CREATED, EVENT, record_key


def standing(source: Source, entity: str, relation: str) -> str:
    """Return the query of a partition's curated rows that stand: of one entity, moment and created
    time the greatest key.

    Of rows that were created at different times the reader takes the newest (`frames.spine`, the
    as-of join); an older one is what was known before.
    """
    greatest = ", ".join(f"{quote(name)} DESC NULLS LAST" for name in record_key(source))
    return (
        f"SELECT * FROM {relation} WHERE {quote(entity)} IS NOT NULL QUALIFY row_number() OVER "
        f"(PARTITION BY {quote(entity)}, {EVENT}, {CREATED} ORDER BY {greatest}) = 1"
    )


def repeated(source: Source, entity: str, relation: str) -> str:
    """Return the query of (partition, rows that do not stand, rows that share entity and moment
    with another).
    """
    keys = ", ".join(quote(name) for name in record_key(source))
    return (
        "SELECT partition, sum(__rows - 1)::BIGINT, sum(__rows)::BIGINT FROM (SELECT partition, "
        f"count(DISTINCT ({keys})) AS __rows FROM {relation} WHERE {quote(entity)} IS NOT NULL "
        f"GROUP BY partition, {quote(entity)}, {EVENT}) WHERE __rows > 1 GROUP BY partition"
    )
