"""Tell what else was changed while a release was judged, as causes that its errors may have."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from include.records.records import Records, Release

WITHIN = timedelta(hours=1)
ROWS, MOST = 200, 10  # of the audit log that are read, and changes that are told
# What the judge says of the release is no change beside it, and neither is what is told of it.
_ITS_OWN = ("release.", "alert.", "predictions.", "garbage.")


def changes_beside(records: Records, release: Release, now: datetime) -> list[dict[str, Any]]:
    """Return what the audit log has of all use cases since a step began, the newest first.

    At most of the last hour: what a step has stood for longer is not why it fails now. A rollback
    of another use case, a load of features, a migration or a reset: they may be why, or may not.
    """
    since = max(release.entered_at, now - WITHIN)
    rows = [row for row in records.audit.entries(limit=ROWS) if row.at >= since]
    counted = Counter[tuple[str, str]]()
    newest: dict[tuple[str, str], str] = {}
    for row in reversed(rows):
        if row.use_case == release.use_case and row.action.startswith(_ITS_OWN):
            continue
        what = row.action, row.use_case
        counted[what] += 1
        newest.setdefault(what, row.at.isoformat(timespec="seconds"))
    return [
        {
            "cause": "change",
            "change": action,
            "use_case": use_case,
            "count": counted[action, use_case],
            "at": at,
        }
        for (action, use_case), at in list(newest.items())[:MOST]
    ]
