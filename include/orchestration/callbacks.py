"""Record a task that has failed for good, and alert where its partition is live."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


def on_failure(context: Context) -> None:
    """Record that a task has failed for good; runs in the task's own process."""
    from include.clock import utc_now
    from include.config.settings import settings
    from include.orchestration.runs import run_key, use_case_of
    from include.pipeline.flow import UNPARTITIONED

    run, instance = context["dag_run"], context["ti"]
    use_case, address = use_case_of(run.dag_id), settings().records_address
    try:
        key = "" if run.dag_id.endswith(UNPARTITIONED) else run_key(use_case, context)
    except Exception:  # noqa: BLE001 - a run whose key is wrong has failed for that very reason
        key = run.partition_key or ""
    error = context.get("exception")
    details = {
        "dag": run.dag_id,
        "run": run.run_id,
        "task": instance.task_id,
        "try": instance.try_number,
        "error": type(error).__name__,
        "reason": str(error)[:2000],
    }
    record_failure(address, use_case, key, details)
    if is_live(address, use_case, key):
        path = settings().home / "logs" / "alerts.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(
                json.dumps(
                    {"at": utc_now().isoformat(), "use_case": use_case, "partition": key, **details}
                )
                + "\n"
            )
        log.error("ALERT %s %s: %s failed: %s", use_case, key, instance.task_id, details["reason"])


def is_live(address: str, use_case: str, key: str) -> bool:
    """Tell whether a failure of this partition is somebody's alarm; that of a backfill never is."""
    from include.records.records import Records

    row = Records.open(address).partitions.get(use_case, key) if key else None
    return row is None or row.mode == "live"


def record_failure(address: str, use_case: str, key: str, details: dict[str, Any]) -> None:
    """Append the failure to the audit chain."""
    from include.clock import utc_now
    from include.records.audit import AuditEntry
    from include.records.records import Records

    entry = AuditEntry(
        action="task.failed",
        use_case=use_case,
        subject=key,
        actor="airflow",
        details=details,
        at=utc_now(),
    )
    Records.open(address).audit.append(entry)
