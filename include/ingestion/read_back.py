"""The raw rows of the lake, digested as the record has them: `force` compares the two."""

from __future__ import annotations

from collections.abc import Iterator

from include.ingestion.columns import ARRIVED, headers
from include.ingestion.raw_rows import drop_unfilled, partition_digest, version_digest
from include.pipeline.ingest_outputs import IngestOutputs
from include.pipeline.stage import ReadBack, StageContext
from include.records.records import StageResult


def read_back(context: StageContext, result: StageResult) -> Iterator[ReadBack]:
    """Yield each source's partition with its digest on record and that of the lake's rows.

    Without rows there is nothing to read back: a table that was never written has no columns to
    digest.
    """
    sources = context.use_case.sources
    for name, recorded in IngestOutputs.of(result).sources.items():
        if not recorded.rows or name not in sources:
            continue
        table, key = context.table(f"raw/{name}"), recorded.stored_under(result.key)
        rows = context.lake.read(table, keys=[key])
        # The table has the columns of all deliveries; the digest is over those of this one.
        names = headers(sources[name])
        delivered = {
            names.get(column, column) for header in recorded.columns for column in header.columns
        }
        rows = drop_unfilled(rows, keep={ARRIVED, *delivered})
        content_digest = version_digest if recorded.version else partition_digest
        yield ReadBack(table, key, recorded.digest, content_digest(rows, sources[name]))
