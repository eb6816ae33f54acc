"""Keep the lake's predictions small: closed days compacted once, old days and their files removed.

What is kept, and how long, says the use case (`log.retention`); what was set aside goes with the
day on which it was.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from include.config.settings import Settings
from include.config.use_case import UseCase
from include.lake.appended import AppendedTable
from include.lake.tables import Lake
from include.predictions import log as prediction_log
from include.predictions.import_segments import only_one, table_of
from include.predictions.shared import SharedPlace
from include.records.columns import json_digest
from include.records.records import AuditEntry, Records

log = logging.getLogger(__name__)

# A day is over once its last segments have been closed and imported; what comes later still, such
# as the segment of a machine that was away, is put together with the rest when it has come.
GRACE = timedelta(hours=3)


@dataclass
class Tidied:
    """What was done: the days compacted, rows by the day removed, files deleted."""

    compacted: list[str] = field(default_factory=list)
    expired: dict[str, int] = field(default_factory=dict)
    set_aside: list[str] = field(default_factory=list)
    files: int = 0


def tidy(
    settings: Settings,
    lake: Lake,
    records: Records,
    use_case: UseCase,
    *,
    at: datetime,
    actor: str,
    wait: float = 60.0,
) -> Tidied:
    """Compact the days that are over, remove those that are too old, delete files nobody reads.

    A day is too old when it ended longer ago than `log.retention`. `at` is now.

    Raises:
        Busy: an import does not end in time.
    """
    oldest = _oldest(use_case, at)
    over = f"{(at - GRACE).astimezone(UTC):%Y-%m-%d}"
    table, tidied = table_of(lake, use_case.name), Tidied()
    with only_one(settings, records, use_case.name, wait=wait) as fence:
        doomed = _find_doomed(settings, use_case.name, table, oldest)
        if doomed.rows or doomed.set_aside:
            # First the row: whatever ends this in between, nothing is gone that none tells of.
            records.audit.append(_entry(use_case.name, oldest, doomed, actor, at))
        tidied.expired = table.expire(oldest, fence)
        tidied.compacted = table.compact(over, fence)
        tidied.files = table.clean()
        tidied.set_aside = _remove_set_aside(settings, use_case.name, doomed.set_aside)
    log.info(
        "%s: %d days of predictions compacted, %d removed, %d files deleted",
        use_case.name,
        len(tidied.compacted),
        len(tidied.expired),
        tidied.files,
    )
    return tidied


def count_expired(
    settings: Settings, lake: Lake, use_case: UseCase, *, at: datetime
) -> dict[str, int]:
    """Return how many predictions of each day `tidy` would remove; changes nothing."""
    return table_of(lake, use_case.name).expired(_oldest(use_case, at))


class _Doomed(NamedTuple):
    rows: dict[str, int]  # by the day
    set_aside: list[str]


def _oldest(use_case: UseCase, at: datetime) -> str:
    """Return the oldest day that is kept."""
    return f"{(at - use_case.log.retention).astimezone(UTC):%Y-%m-%d}"


def _find_doomed(settings: Settings, use_case: str, table: AppendedTable, oldest: str) -> _Doomed:
    return _Doomed(table.expired(oldest), _find_set_aside(settings, use_case, oldest))


def _entry(use_case: str, oldest: str, doomed: _Doomed, actor: str, at: datetime) -> AuditEntry:
    """Return the audit row of what is removed; killed and begun again on a day, it is one row."""
    details = {
        "before": oldest,
        "rows": sum(doomed.rows.values()),
        "days": len(doomed.rows),
        "set_aside": len(doomed.set_aside),
    }
    once = f"predictions.expired/{use_case}/{json_digest([oldest, *doomed])}"
    return AuditEntry("predictions.expired", use_case, oldest, actor, details, at, once)


def _find_set_aside(settings: Settings, use_case: str, oldest: str) -> list[str]:
    """Return the names of what was set aside of segments before a day, here and where shared."""

    def is_old(name: str) -> bool:
        began = prediction_log.began_at(name)
        return began is not None and f"{began:%Y-%m-%d}" < oldest

    folder = prediction_log.folder(settings.home, use_case)
    names = [path.name for path in folder.glob(f"*{prediction_log.SET_ASIDE}")]
    if settings.segments_root:
        place = SharedPlace(settings.segments_root)
        names += [shared.rpartition("/")[2] for shared in place.set_aside(use_case)]
    return sorted(name for name in set(names) if is_old(name))


def _remove_set_aside(settings: Settings, use_case: str, names: list[str]) -> list[str]:
    """Delete what was set aside under some names; return the names."""
    folder = prediction_log.folder(settings.home, use_case)
    for name in names:
        (folder / name).unlink(missing_ok=True)
    if settings.segments_root and names:
        place = SharedPlace(settings.segments_root)
        for shared in place.set_aside(use_case):
            if shared.rpartition("/")[2] in names:
                place.remove(shared)
    return names
