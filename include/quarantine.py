"""The quarantine: rows that failed validation, with the rule that failed, as people want to see them."""

from __future__ import annotations

from typing import Any

from include.config import Settings
from include.lake import PARTITION, Lake
from include.usecase import UseCase

SHOWN = 200


def listed(
    settings: Settings, use_case: UseCase, partition: str | None, limit: int
) -> tuple[tuple[str, ...], list[tuple[Any, ...]], int]:
    """Return columns, the first rows and the number of all quarantined rows, of one partition or of all.

    Raises:
        ConfigError: the partition is no key of the use case.
    """
    from include.partitions import period

    keys = None if partition is None else [period(use_case, partition).key]
    lake, total = Lake(settings.lake_root), 0
    rows: list[tuple[Any, ...]] = []
    for source in use_case.sources:
        found = lake.read(f"{use_case.name}/quarantine/{source}", keys=keys)
        if not found.num_columns:
            continue
        total += len(found)
        for row in found.slice(0, max(0, limit - len(rows))).to_pylist():
            known = (row.pop(PARTITION, ""), source, row.pop("source_file", ""), row.pop("source_row", ""))
            rule = row.pop("rule", None) or row.pop("reason", "")
            rest = ", ".join(f"{name}={value!r}" for name, value in row.items() if value is not None)
            rows.append((*known, rule, rest[:SHOWN]))
    return ("partition", "source", "file", "row", "rule", "values"), rows, total
