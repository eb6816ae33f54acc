"""Do what the tasks of `import_predictions` do: import the log, tidy the table, gather evidence."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from airflow.sdk import get_current_context

from include.config.settings import settings
from include.config.use_case_file import find
from include.orchestration.runs import actor_of
from include.orchestration.tasks import lower_priority, skip_task

if TYPE_CHECKING:
    from datetime import datetime

    from include.config.settings import Settings
    from include.lake.tables import Lake
    from include.records.records import Records

log = logging.getLogger(__name__)

WAIT = 120.0  # seconds that a task waits for another import
TIDY_HOUR = 3  # of UTC: then old days are removed even if nobody asks any more


def import_log(use_case: str, *, wait: float = WAIT) -> dict[str, Any]:
    """Import the closed segments of a use case; return how many lines came and were set aside.

    Of a release in its steps it is gathered then what the log says with other tables.

    Raises: as `import_closed`.
    """
    from include.clock import utc_now
    from include.pipeline.lakes import open_lake
    from include.pipeline.task_records import task_records
    from include.predictions.import_segments import import_closed

    lower_priority()
    here, at = settings(), utc_now()
    lake, records = open_lake(here), task_records(here)
    actor = actor_of(get_current_context())
    imported = import_closed(here, lake, records, use_case, at=at, actor=actor, wait=wait)
    return {**dataclasses.asdict(imported), "gathered": _gather(here, lake, records, use_case, at)}


def _gather(here: Settings, lake: Lake, records: Records, use_case: str, at: datetime) -> list[str]:
    """Gather the evidence of a release, of a use case whose file can be read."""
    from include.deployment.gathered import gather
    from include.errors import ConfigError

    try:
        return gather(here, lake, records, find(use_case, here.usecase_dirs), at)
    except ConfigError as error:  # the log is imported all the same
        log.warning("%s: no evidence of a release is gathered: %s", use_case, error)
        return []


def load_log(use_case: str, *, tidied_by: str) -> dict[str, Any]:
    """Import as `import_log`; skip the task that tidies where there is nothing new to tidy.

    Before that the alerts that are due are delivered, and a candidate that waits is started once
    nothing is in its way: every use case is looked at once an hour so, whatever becomes of the
    import.

    Raises: as `import_closed`, and `skip_task`.
    """
    from include.clock import utc_now
    from include.deployment.release_alerts import deliver_alerts

    _start_waiting(use_case)
    deliver_alerts(settings(), use_case, actor=actor_of(get_current_context()))
    imported = import_log(use_case)
    if not imported["segments"] and utc_now().hour != TIDY_HOUR:
        skip_task(tidied_by, imported)
    return imported


def _start_waiting(use_case: str) -> None:
    """Start the candidate that waits: a freeze ends by the clock alone, and nobody acts on it."""
    from include.errors import EvergreenError
    from include.orchestration.healing import start_waiting

    try:
        start_waiting(settings(), use_case, actor=actor_of(get_current_context()))
    except EvergreenError as error:  # the log is imported all the same
        log.warning("%s: what waits is not started now: %s", use_case, error)


def import_before(use_case: str) -> None:
    """Import what there is before something else, which does not fail because of it."""
    try:
        import_log(use_case, wait=0.0)
    except Exception as error:  # noqa: BLE001 - the hourly run tries again, and alerts
        log.warning("%s: the prediction log is not imported now: %s", use_case, error)


def tidy_log(use_case: str) -> dict[str, Any]:
    """Compact closed days, remove old ones; return what was done.

    Raises: as `tidy`.
    """
    from include.clock import utc_now
    from include.pipeline.lakes import open_lake
    from include.pipeline.task_records import task_records
    from include.predictions.retention import tidy

    lower_priority()
    here = settings()
    tidied = tidy(
        here,
        open_lake(here),
        task_records(here),
        find(use_case, here.usecase_dirs),
        at=utc_now(),
        actor=actor_of(get_current_context()),
        wait=WAIT,
    )
    return {
        "compacted": len(tidied.compacted),
        "days": len(tidied.expired),
        "rows": sum(tidied.expired.values()),
        "files": tidied.files,
    }
