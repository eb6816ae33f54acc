"""Label rows as they are stored: typed, checked, sorted, cut by partition."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from include.config.use_case import UseCase
from include.errors import ConfigError
from include.lake.sql import quote
from include.point_in_time.curated import CREATED, EVENT, label_schema
from include.validation.label_checks import PART, refuse_bad_labels


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
    refuse_bad_labels(use_case, con, rows)
    counts = {pair["values"]: pair["counts"] for pair in pc.value_counts(rows[PART]).to_pylist()}
    body, start, parts = rows.drop_columns([PART]).cast(label_schema(use_case)), 0, {}
    for partition in sorted(keys):
        parts[partition] = body.slice(start, counts.get(partition, 0))
        start += len(parts[partition])
    return parts
