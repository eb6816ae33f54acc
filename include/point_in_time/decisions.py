"""Decisions: rows of one entity at one moment, and which of several such rows is the decision.

Label and features of a decision must come from one row. Rows of different source keys that share
entity and moment are duplicates: the one with the greatest created time, then the greatest key
stands, whatever its outcome is, and all versions of its record with it. A later row of the same key
is its correction and no duplicate.
"""

from __future__ import annotations

from include.config.use_case_sources import Source
from include.lake.sql import quote
from include.point_in_time.curated import CREATED, EVENT, record_key


def standing_rows(source: Source, entity: str, relation: str, *, by: str = "") -> str:
    """Return the query of the curated rows of a partition that stand.

    `by` is the column of the partition where the rows are of several.

    Of rows of one entity and moment those of one source key stand: of the row that was created
    last, then of the greatest key. All versions of that record stay, since each reader takes its
    own: the label the newest that is known, a request's row the first. So both are of one record,
    which they would not be if a duplicate that was created earlier stayed beside it.
    """
    names = ", ".join(map(quote, record_key(source)))
    key = names if len(record_key(source)) == 1 else f"row({names})"
    newest_first = ", ".join(
        [f"{CREATED} DESC", *(f"{quote(name)} DESC NULLS LAST" for name in record_key(source))]
    )
    of_one = ", ".join([*([by] if by else []), quote(entity), EVENT])
    return (
        f"SELECT * FROM {relation} WHERE {quote(entity)} IS NOT NULL "
        f"QUALIFY {key} IS NOT DISTINCT FROM first_value({key}) OVER (PARTITION BY {of_one} "
        f"ORDER BY {newest_first})"
    )


def repeated_rows(source: Source, entity: str, relation: str) -> str:
    """Return the query that counts rows of different keys that share entity and moment.

    Its columns: the partition, the rows that do not stand, the rows that share.
    """
    keys = ", ".join(quote(name) for name in record_key(source))
    # Distinct keys, since a later row of the same key is a correction.
    shared = (
        f"SELECT partition, count(DISTINCT ({keys})) AS __rows FROM {relation} "
        f"WHERE {quote(entity)} IS NOT NULL GROUP BY partition, {quote(entity)}, {EVENT}"
    )
    return (
        "SELECT partition, sum(__rows - 1)::BIGINT, sum(__rows)::BIGINT "
        f"FROM ({shared}) WHERE __rows > 1 GROUP BY partition"
    )
