"""What the lake holds of curated rows and labels, digested as the record says: what `force`
compares beside the computation.
"""

from __future__ import annotations

from collections.abc import Iterator

from include.pipeline.stage import ReadBack, StageContext
from include.records.records import StageResult
from include.validation.curation import curated_digest
from include.validation.labels import label_digest


def read_back(context: StageContext, result: StageResult) -> Iterator[ReadBack]:
    """Yield the partitions of curated rows and of labels with their digests on record and those
    of the lake's rows.
    """
    use_case = context.use_case
    for name, fact in result.outputs.get("sources", {}).items():
        if fact["rows"] and name in use_case.sources:
            table, key = (
                fact.get("table", context.table(f"curated/{name}")),
                fact.get("version", result.key),
            )
            rows = context.lake.read(table, keys=[key])
            yield ReadBack(table, key, fact["curated_digest"], curated_digest(rows, use_case, name))
    made = result.outputs.get("labels") or {}
    if made.get("rows"):
        table = made.get("table", context.table("labels"))
        rows = context.lake.read(table, keys=[result.key])
        yield ReadBack(table, result.key, made["digest"], label_digest(rows, use_case))
