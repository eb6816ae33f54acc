"""Static sources: whole snapshots, kept by their digest, each known from one partition on.

The first version is known from `valid_from` and is kept in the first partition of the history. A later one becomes known with the
partition that first reads it, if that is newer than all that are ingested; older partitions keep to what was known to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from include import partitions
from include.arrival import results
from include.durations import midnight
from include.lake import TIMESTAMP, digest
from include.sources import ARRIVED, FILE, ROW, Delivery
from include.work import Work

Facts = dict[str, Any]


def take(name: str, work: Work, read: Callable[[], Delivery]) -> tuple[Facts, pa.Table | None]:
    """Return what a partition knows of a static source, and the rows where they are a version that is not stored yet."""
    done = [result for result in results(work, "ingestion") if result.state == "done"]
    known = {result.key: result.outputs["sources"][name] for result in done if name in result.outputs["sources"]}
    if work.key in known and _kept(work, name, known[work.key]["version"]):
        return known[work.key], None
    source, delivery = work.use_case.sources[name], read()
    rows = delivery.rows
    content = digest(rows.drop_columns([c for c in (FILE, ROW) if c in rows.column_names]), sort_by=_sort_by(rows, source.key))
    versions = {fact["version"]: fact for fact in known.values()}
    current = max((version for version in versions if version <= work.key), default=None)
    if current is not None and _kept(work, name, current):
        newest = all(key < work.key for key in known)
        if versions[current]["digest"] == content or not newest:
            return versions[current], None
        current = work.key
    version = current or partitions.period(work.use_case, work.use_case.history.first.isoformat()).key
    assert source.valid_from is not None
    since = work.period.arrival_start if version != _first(work) else midnight(source.valid_from)
    at = np.full(len(rows), np.datetime64(since.replace(tzinfo=None), "us"))
    facts = {
        "rows": len(rows),
        "digest": content,
        "source_digest": "|".join(f"{file}:{sha}" for file, sha in sorted(delivery.digests.items())),
        "files": sorted(delivery.digests),
        "columns": [{"columns": list(header), "files": [file], "count": 1} for file, header in delivery.headers.items()],
        "late": 0,
        "arrival": "valid_from",
        "version": version,
    }
    return facts, rows.append_column(ARRIVED, pa.array(at).cast(TIMESTAMP))


def _first(work: Work) -> str:
    return work.use_case.history.first.isoformat()


def _kept(work: Work, name: str, version: str) -> bool:
    return version in work.lake.keys(work.table(f"raw/{name}"))


def _sort_by(rows: pa.Table, key: list[str]) -> list[str]:
    return [name for name in key if name in rows.column_names]
