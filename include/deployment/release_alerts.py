"""Deliver alerts about releases and failed tasks, each once, by whoever sees that one is due.

There is no queue beside the records: what is due is what the records tell (`release_ends`,
`task_failures`) and no audit row says is delivered. So an alert that nobody took is due still,
after any kill, until it is older than `release_ends.LATEST`. Nothing that moves a release waits for
an address.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError

from include.alerts import webhook
from include.alerts.alert import Alert
from include.config.settings import Settings
from include.deployment.release_ends import BAD, LATEST, NEWEST, new_alerts, new_ends
from include.errors import Busy, EvergreenError
from include.pipeline.task_failures import failure_alerts
from include.pipeline.task_records import task_records
from include.records.records import AuditEntry, Records

log = logging.getLogger(__name__)

DELIVERED = "alert.delivered"
RETRY_SECONDS = 300.0  # between two goes of a process at an address that takes nothing
Send = Callable[[SecretStr, Alert], int]


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came of the alerts that were due: those that are delivered now, and why no more are."""

    delivered: tuple[str, ...] = ()
    problem: str = ""


def deliver_alerts(
    settings: Settings, use_case: str, *, actor: str, send: Send = webhook.send
) -> Delivery:
    """Deliver what is due of a use case; a failure is told, not raised, and stays due.

    Two processes never do so at once. A kill between the answer and its audit row has an alert
    delivered twice, under one id.
    """
    url = settings.alert_url
    if not url.get_secret_value():
        return Delivery()
    records, done = task_records(settings), list[str]()
    try:
        if not due_alerts(records, use_case):
            return Delivery()
        lease = records.leases.claim(
            use_case,
            "alerts",
            "",
            owner=f"{actor} {uuid.uuid4().hex[:8]}",
            attempt=1,
            ttl=settings.lease_seconds,
        )
        with lease:
            for alert in due_alerts(records, use_case):  # again: another one may have delivered it
                status = send(url, alert)
                done.append(alert.id)
                details = {"event": alert.event, "host": webhook.host_of(url), "status": status}
                now = records.releases.now()
                entry = AuditEntry(
                    DELIVERED, use_case, alert.id, actor, details, now, f"{DELIVERED}/{alert.id}"
                )
                records.audit.append(entry)
    except Busy:
        return Delivery(tuple(done), "another process delivers them")
    except (EvergreenError, SQLAlchemyError, OSError) as error:
        log.error("%s: an alert is not delivered: %s", use_case, error)
        return Delivery(tuple(done), str(error))
    return Delivery(tuple(done))


def due_alerts(records: Records, use_case: str) -> list[Alert]:
    """Return the alerts that nobody has taken yet, the oldest first."""
    rows = records.audit.entries(use_case, action=DELIVERED, limit=10 * NEWEST)
    taken, now = {row.subject for row in rows}, records.releases.now()
    found = new_alerts(records, use_case, now) + _new_failures(records, use_case, now)
    due = [alert for alert in found if alert.id not in taken]
    return sorted(due, key=lambda alert: (alert.at, alert.id))


def _new_failures(records: Records, use_case: str, now: datetime) -> list[Alert]:
    """Return the alerts about failed tasks, without those of a release that has one itself."""
    failures = failure_alerts(records, use_case, now, latest=LATEST, most=NEWEST)
    releasing = f"{use_case}__deploy_model"
    if not any(alert.details["dag"] == releasing for alert in failures):
        return failures
    ended = {one.partition for one in new_ends(records, use_case, now) if one.state in BAD}
    return [
        alert
        for alert in failures
        if alert.details["dag"] != releasing or alert.details["partition"] not in ended
    ]


class Courier:
    """Delivers beside the judge, in a thread: no look at a release waits for an address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._busy = clock, threading.Lock()
        self._seen: dict[str, int] = {}  # the head of the audit log, when nothing was due
        self._not_before: dict[str, float] = {}

    def deliver_soon(self, settings: Settings, use_case: str, *, actor: str) -> bool:
        """Start to deliver, if something may be due; tell whether that was started."""
        if not settings.alert_url.get_secret_value():
            return False
        if self._clock() < self._not_before.get(use_case, 0.0):
            return False
        head = task_records(settings).audit.head()[0]
        # What is due has an audit row: without a new one there is nothing, and this costs one read.
        if head == self._seen.get(use_case) or not self._busy.acquire(blocking=False):
            return False
        # A daemon: a process that ends waits for no address, and the alert is due still.
        threading.Thread(
            target=self._deliver, args=(settings, use_case, actor, head), daemon=True
        ).start()
        return True

    def _deliver(self, settings: Settings, use_case: str, actor: str, head: int) -> None:
        try:
            if deliver_alerts(settings, use_case, actor=actor).problem:
                self._not_before[use_case] = self._clock() + RETRY_SECONDS
            else:
                self._seen[use_case] = head
        finally:
            self._busy.release()


courier = Courier()
