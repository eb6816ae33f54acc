"""What the lake holds of raw rows, digested as the record says: what `force` compares beside the
computation.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from include.ingestion.arrival import content_digest
from include.ingestion.columns import ARRIVED, headers
from include.ingestion.static_versions import content_digest as version_digest
from include.pipeline.stage import ReadBack, StageContext
from include.records.records import StageResult


def read_back(context: StageContext, result: StageResult) -> Iterator[ReadBack]:
    """Yield each source's partition with its digest on record and that of the lake's rows.

    Without rows there is nothing to read back: a table that was never written has no columns to
    digest.
    """
    sources = context.use_case.sources
    for name, fact in result.outputs.get("sources", {}).items():
        table, key = context.table(f"raw/{name}"), fact.get("version", result.key)
        if not fact["rows"] or name not in sources:
            continue
        rows = context.lake.read(table, keys=[key])
        # The table has the columns of all deliveries; the digest is over those of this one.
        known = headers(sources[name])
        delivered = {
            known.get(column, column) for header in fact["columns"] for column in header["columns"]
        }
        lacking = [
            column
            for column in rows.column_names
            if column not in {*delivered, ARRIVED} and _is_null(rows, column)
        ]
        told = version_digest if "version" in fact else content_digest
        yield ReadBack(table, key, fact["digest"], told(rows.drop_columns(lacking), sources[name]))


def _is_null(rows: pa.Table, column: str) -> bool:
    return bool(rows.column(column).null_count == len(rows))
