"""Keep the lake's predictions small: closed days compacted once, old days and their files removed.

What is kept, and how long, says the use case (`log.retention`); what was set aside goes with the
day on which it was.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from include.config.settings import Settings
from include.config.use_case import UseCase
from include.lake.tables import Lake
from include.predictions import log as prediction_log
from include.predictions.import_segments import only_one, table_of
from include.predictions.shared import SharedPlace
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
    oldest = f"{(at - use_case.log.retention).astimezone(UTC):%Y-%m-%d}"
    over = f"{(at - GRACE).astimezone(UTC):%Y-%m-%d}"
    table, tidied = table_of(lake, use_case.name), Tidied()
    with only_one(settings, records, use_case.name, wait=wait) as fence:
        tidied.expired = table.expire(oldest, fence)
        tidied.compacted = table.compact(over, fence)
        tidied.files = table.clean()
        tidied.set_aside = _expire_set_aside(settings, use_case.name, oldest)
    if tidied.expired or tidied.set_aside:
        details = {
            "before": oldest,
            "rows": sum(tidied.expired.values()),
            "days": len(tidied.expired),
            "set_aside": len(tidied.set_aside),
        }
        records.audit.append(
            AuditEntry("predictions.expired", use_case.name, oldest, actor, details, at)
        )
    log.info(
        "%s: %d days of predictions compacted, %d removed, %d files deleted",
        use_case.name,
        len(tidied.compacted),
        len(tidied.expired),
        tidied.files,
    )
    return tidied


def _expire_set_aside(settings: Settings, use_case: str, oldest: str) -> list[str]:
    """Delete what was set aside of segments before a day; return the names."""

    def is_old(name: str) -> bool:
        began = prediction_log.began_at(name)
        return began is not None and f"{began:%Y-%m-%d}" < oldest

    removed = []
    folder = prediction_log.folder(settings.home, use_case)
    for path in sorted(folder.glob(f"*{prediction_log.SET_ASIDE}")):
        if is_old(path.name):
            path.unlink(missing_ok=True)
            removed.append(path.name)
    if settings.segments_uri:
        place = SharedPlace(settings.segments_uri)
        for shared in place.set_aside(use_case):
            name = shared.rpartition("/")[2]
            if is_old(name):
                place.remove(shared)
                removed.append(name)
    return removed
