"""Tell people of tasks that failed for good: from the audit log, once a run.

Whoever records a failure says whether it is somebody's alarm: that of a live partition, or of a run
without one, is; that of a backfill is not.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from include import errors
from include.alerts.alert import Alert
from include.pipeline.flow import UNPARTITIONED
from include.records.records import AuditEntry, AuditRecord, Records

FAILED = "task.failed"
LOOKED_AT = 500  # newest audit rows: a backfill may fail in many of its partitions
REASON = 600  # characters of a reason that are sent


def failed_task(
    use_case: str, key: str, details: dict[str, Any], *, is_live: bool, at: datetime
) -> AuditEntry:
    """Return the audit row of a task that failed; `details` name its DAG, run, task and error."""
    told = details | {"live": is_live}
    return AuditEntry(FAILED, use_case, key, "airflow", told, at)


def failure_alerts(
    records: Records, use_case: str, now: datetime, *, latest: timedelta, most: int
) -> list[Alert]:
    """Return what people are to know of failed tasks, the oldest first, at most the `most` newest.

    One alert a run, whatever its retries and its other tasks came to; of the DAGs without
    partitions, which run every hour, one a day. What is older than `latest` is nobody's news.
    """
    rows = records.audit.entries(use_case, action=FAILED, limit=LOOKED_AT)
    found: dict[str, Alert] = {}
    for row in rows:
        if row.details.get("live") and row.at >= now - latest:
            found.setdefault(_name(row), _alert(row))
    return list(found.values())[-most:]


def _name(row: AuditRecord) -> str:
    dag, run = row.details["dag"], row.details["run"]
    if str(dag).endswith(UNPARTITIONED):
        run = f"{row.at:%Y-%m-%d}"
    return f"{FAILED}/{dag}/{run}"


def _alert(row: AuditRecord) -> Alert:
    told = row.details
    # The text of another error may hold rows, or an address with its password: it stays in the log.
    is_ours = hasattr(errors, str(told["error"]))
    reason = str(told["reason"])[:REASON] if is_ours else "see the log of the task"
    of = f" of {row.subject}" if row.subject else ""
    return Alert(
        _name(row),
        FAILED,
        row.use_case,
        f"{row.use_case}: task {told['task']} of {told['dag']}{of} failed: {told['error']}: "
        f"{reason}; `evergreen status {row.use_case}`",
        row.at,
        {
            "partition": row.subject,
            **{name: told[name] for name in ("dag", "run", "task", "try", "error")},
            "reason": reason,
        },
    )
