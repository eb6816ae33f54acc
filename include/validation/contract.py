"""The contract of a source: the DuckDB queries that type its rows and judge them by its columns.

A row fails by its first rule. Those of a single cell are in `cell_rules`; of a row's times there
are epoch_zero, in_future and late besides. A line that could not be split into columns is
`malformed_row`; of two rows of one key and one created time with different values one is a
`conflicting_duplicate`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa

from include.config.use_case_sources import Source
from include.ingestion.columns import ARRIVED, FILE, REDRIVEN, ROW
from include.ingestion.times import aware
from include.ingestion.values import cell, dates_of
from include.lake.sql import PARTITION, TIMESTAMP, text_literal
from include.point_in_time.partitions import Period
from include.validation.cell_rules import Mixed
from include.validation.judgement import AS_OF, judgement


def judged_query(
    source: Source,
    present: Collection[str],
    rows: str,
    mixed: Mixed,
    *,
    entity: str | None = None,
) -> str:
    """Return the query that types raw rows and names the first rule that each one fails.

    It reads the tables `rows` and `__periods` (partition, __as_of). Columns: partition,
    source_file, source_row, arrived_at, the curated columns, `rule`. `mixed` is what
    `mixed_zones_query` found, `entity` the entity's key.
    """
    judged = judgement(source, present, mixed, entity=entity)
    dated = f"(SELECT {rows}.*, __periods.{AS_OF} FROM {rows} JOIN __periods USING ({PARTITION}))"
    return judged.query(dated, [PARTITION, FILE, ROW, ARRIVED])


def periods_table(periods: Sequence[Period]) -> pa.Table:
    """Return the table `__periods` that the contract's query reads: partition, __as_of."""
    return pa.table(
        {
            PARTITION: pa.array([period.key for period in periods], pa.string()),
            AS_OF: pa.array([period.as_of for period in periods], TIMESTAMP),
        }
    )


def mixed_zones_query(source: Source, present: Collection[str], rows: str) -> str | None:
    """Return the query of the time columns that mix naive and aware times; None: no column may.

    It gives (partition, column, whether aware times are the minority). Redriven rows do not count:
    they may come from a time when the source wrote otherwise.
    """
    parts = []
    for name in iso_times(source):
        if name in present:
            delivered = f"{rows} WHERE NOT starts_with({FILE}, '{REDRIVEN}')"
            # The text is named first: `aware` asks for it five times, and would trim it as often.
            texts = f"SELECT {PARTITION}, {cell(name, source)} AS t FROM {delivered}"
            kinds = f"SELECT {PARTITION}, {aware('t')} AS k FROM ({texts})"
            parts.append(
                f"SELECT {PARTITION}, {text_literal(name)} AS name, count_if(k) < count_if(NOT k) "
                f"AS minority FROM ({kinds}) GROUP BY {PARTITION} HAVING count_if(k) > 0 AND "
                "count_if(NOT k) > 0"
            )
    return " UNION ALL ".join(parts) or None


def iso_times(source: Source) -> list[str]:
    """Return the delivered columns whose times may be written with a zone or without."""
    stamps = [name for name, column in source.columns.items() if column.type == "timestamp"]
    return [
        name
        for name in dict.fromkeys([*source.time_columns, *stamps])
        if name not in source.computed and dates_of(name, source) is None
    ]
