"""Whether the lake holds what is on record: the rows of a stage's tables, read back and digested as the stage did."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from include.config.use_case import UseCase
from include.lake.digests import digest
from include.lake.tables import Lake
from include.records.records import StageResult

TIMES = ("event_timestamp", "created_timestamp")


def differing(lake: Lake, use_case: UseCase, result: StageResult) -> list[str]:
    """Return the `table partition` of a recorded result whose rows in the lake have another digest than the record says."""
    if result.state not in ("done", "blocked"):
        return []
    read = {"ingestion": _raw, "validation": _validated, "features": _features, "training": _training_set}.get(result.stage)
    compared = read(lake, use_case, result) if read else ()
    return sorted(f"{table} {key}" for table, key, recorded, there in compared if recorded != there)


# Each gives (table, partition, digest on record, digest of the lake's rows). Without rows there is nothing to read back: a
# table that was never written has no columns to digest.
_Compared = Iterator[tuple[str, str, str, str]]


def _raw(lake: Lake, use_case: UseCase, result: StageResult) -> _Compared:
    from include.ingestion.arrival import content_digest
    from include.ingestion.sources import ARRIVED, headers
    from include.ingestion.static_versions import content_digest as version_digest

    for name, fact in result.outputs.get("sources", {}).items():
        table, key = f"{use_case.name}/raw/{name}", fact.get("version", result.key)
        if not fact["rows"] or name not in use_case.sources:
            continue
        rows = lake.read(table, keys=[key])
        # The table has the columns of all deliveries; the digest is over those of this one.
        known = headers(use_case.sources[name])
        delivered = {known.get(column, column) for header in fact["columns"] for column in header["columns"]}
        lacking = [column for column in rows.column_names if column not in {*delivered, ARRIVED} and _is_null(rows, column)]
        told = version_digest if "version" in fact else content_digest
        yield table, key, fact["digest"], told(rows.drop_columns(lacking), use_case.sources[name])


def _validated(lake: Lake, use_case: UseCase, result: StageResult) -> _Compared:
    from include.validation.curation import curated_digest
    from include.validation.labels import label_digest

    for name, fact in result.outputs.get("sources", {}).items():
        if fact["rows"] and name in use_case.sources:
            table, key = fact.get("table", f"{use_case.name}/curated/{name}"), fact.get("version", result.key)
            yield table, key, fact["curated_digest"], curated_digest(lake.read(table, keys=[key]), use_case, name)
    made = result.outputs.get("labels") or {}
    if made.get("rows"):
        table = made.get("table", f"{use_case.name}/labels")
        yield table, result.key, made["digest"], label_digest(lake.read(table, keys=[result.key]), use_case)


def _features(lake: Lake, use_case: UseCase, result: StageResult) -> _Compared:
    for views in result.outputs.get("feature_sets", {}).values():
        for made in views.values():
            if made["rows"]:
                rows = lake.read(made["table"], keys=[result.key])
                yield made["table"], result.key, made["digest"], digest(rows, sort_by=[use_case.entity.key, *TIMES])


def _training_set(lake: Lake, use_case: UseCase, result: StageResult) -> _Compared:
    if made := result.outputs.get("training_set"):
        rows = lake.read(made["table"], keys=[result.key], version=made["table_version"])
        yield made["table"], result.key, made["digest"], digest(rows, sort_by=["event_timestamp", use_case.entity.key])


def _is_null(rows: pa.Table, column: str) -> bool:
    return bool(rows.column(column).null_count == len(rows))
