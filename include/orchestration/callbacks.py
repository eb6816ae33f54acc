"""Record a task that has failed for good, and alert where its partition is live.

Where this process knows no address for alerts, or nobody takes this one, the next hand that does
delivers it from the audit log: the judge, the hourly import of the log, `evergreen heal`.
"""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


def on_failure(context: Context) -> None:
    """Record that a task has failed for good; runs in the task's own process."""
    from include.clock import utc_now
    from include.config.settings import settings
    from include.object_stores import redacted
    from include.orchestration.runs import run_key, use_case_of
    from include.pipeline.flow import UNPARTITIONED
    from include.pipeline.task_failures import failed_task
    from include.records.records import Records

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
        "reason": redacted(str(error))[:2000],  # nothing is ever taken out of the audit log
    }
    is_alarm = is_live(address, use_case, key)
    entry = failed_task(use_case, key, details, is_live=is_alarm, at=utc_now())
    Records.open(address).audit.append(entry)
    if is_alarm:
        _alert(
            use_case, {"at": entry.at.isoformat(), "use_case": use_case, "partition": key} | details
        )


def _alert(use_case: str, told: dict[str, Any]) -> None:
    """Write the failure into the file of alerts, and deliver it where this process knows whom to.

    Airflow ends a process some seconds after its task: there is one try, the next hand has more.
    """
    from include.alerts import webhook
    from include.config.settings import settings
    from include.deployment.release_alerts import deliver_alerts

    log.error(
        "ALERT %s %s: %s failed: %s", use_case, told["partition"], told["task"], told["reason"]
    )
    path = settings().home / "logs" / "alerts.jsonl"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error)
    deliver_alerts(settings(), use_case, actor="airflow", send=partial(webhook.send, pauses=()))


def is_live(address: str, use_case: str, key: str) -> bool:
    """Tell whether a failure of this partition is somebody's alarm; that of a backfill never is."""
    from include.records.records import Records

    row = Records.open(address).partitions.get(use_case, key) if key else None
    return row is None or row.mode == "live"
