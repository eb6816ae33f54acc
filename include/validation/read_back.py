"""Curated rows and labels of the lake, digested as the record has them: `force` compares both."""

from __future__ import annotations

from collections.abc import Iterator

from include.pipeline.stage import ReadBack, StageContext
from include.pipeline.validation_outputs import ValidationOutputs
from include.records.records import StageResult
from include.validation.curation import curated_digest
from include.validation.labels import label_digest


def read_back(context: StageContext, result: StageResult) -> Iterator[ReadBack]:
    """Yield each partition of curated rows and of labels, with the digests of both sides.

    Records of before the tables' names carried a digest do not name their table.
    """
    use_case, outputs = context.use_case, ValidationOutputs.of(result)
    for name, source in outputs.sources.items():
        if source.rows and name in use_case.sources:
            table = source.table or context.table(f"curated/{name}")
            key = source.stored_under(result.key)
            rows = context.lake.read(table, keys=[key])
            digest = curated_digest(rows, use_case, name)
            yield ReadBack(table, key, source.curated_digest, digest)
    if outputs.labels and outputs.labels.rows:
        table = outputs.labels.table or context.table("labels")
        rows = context.lake.read(table, keys=[result.key])
        yield ReadBack(table, result.key, outputs.labels.digest, label_digest(rows, use_case))
