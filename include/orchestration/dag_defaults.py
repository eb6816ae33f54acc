"""Define what all DAGs share: defaults, retries, forms and schedules."""

from __future__ import annotations

import logging
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import CronPartitionTimetable, ExceptionRetryPolicy, Param, RetryAction, RetryRule

from include.config.settings import settings
from include.config.use_case import UseCase
from include.config.use_case_file import files, find
from include.errors import ConfigError
from include.orchestration.callbacks import on_failure
from include.orchestration.queues import place_of

log = logging.getLogger(__name__)

START = datetime(2000, 1, 1, tzinfo=UTC)  # of all DAGs, before any history begins
CRON = {"day": "0 0 * * *", "week": "0 0 * * 1", "month": "0 0 1 * *"}
TRANSIENT: list[type[BaseException] | str] = [
    "include.errors.Busy",
    "include.errors.Conflict",
    "include.errors.Unavailable",
]
NETWORK: list[type[BaseException] | str] = [
    "builtins.ConnectionError",
    "builtins.TimeoutError",
    "httpx.TransportError",
    "sqlalchemy.exc.OperationalError",
]
RETRIES = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            exception=TRANSIENT,
            action=RetryAction.RETRY,
            retry_delay=timedelta(seconds=10),
            reason="may pass",
        ),
        RetryRule(
            exception=NETWORK,
            action=RetryAction.RETRY,
            retry_delay=timedelta(seconds=20),
            reason="connection",
        ),
        RetryRule(
            exception="include.errors.EvergreenError",
            action=RetryAction.FAIL,
            reason="a retry cannot change it",
        ),
    ]
)
DEFAULT_ARGS: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(seconds=5),
    "retry_policy": RETRIES,
    "on_failure_callback": on_failure,
    "execution_timeout": timedelta(hours=6),
}


def use_cases() -> list[UseCase]:
    """Return the use cases whose files are right; `dags/use_cases.py` reports the others."""
    return _read_all()[0]


def broken_use_cases() -> list[str]:
    """Return what is wrong with the use case files that cannot be read."""
    return _read_all()[1]


def _read_all() -> tuple[list[UseCase], list[str]]:
    """Return the use cases that can be read, and what is wrong with the others."""
    by_name: dict[str, UseCase] = {}
    problems: list[str] = []
    folders = settings().usecase_dirs
    for path in files(folders):
        try:
            by_name.setdefault(path.stem, find(path.stem, folders))
        except ConfigError as error:
            problems.append(str(error))
    return list(by_name.values()), problems


def dag_arguments(use_case: UseCase, name: str, doc: str | None) -> dict[str, Any]:
    """Return the arguments of `@dag` that no DAG file has to think about."""
    return {
        "dag_id": f"{use_case.name}__{name}",
        "dag_display_name": f"{use_case.name}: {name}",
        "description": (doc or "").strip().splitlines()[0],
        "doc_md": doc,
        "tags": ["evergreen", use_case.name, name],
        "default_args": {
            **DEFAULT_ARGS,
            **place_of(name, settings()),
            "owner": use_case.owner,
        },
        "is_paused_upon_creation": False,
    }


def form(use_case: UseCase, **more: Param) -> dict[str, Param]:
    """Return the form of a stage's DAG: the partition's date, what else it has, and `force`."""
    date = Param(
        None,
        type=["null", "string"],
        format="date",
        title="Partition",
        description=f"First day of the {use_case.cadence}. Empty: the newest complete partition.",
    )
    force = Param(
        False,
        type="boolean",
        title="Force",
        description="Compute again beside the record and compare; a difference fails the task, "
        "the record stands.",
    )
    return {"partition": date, **more, "force": force}


def period_schedule(use_case: UseCase) -> CronPartitionTimetable:
    """Return a schedule with a tick at the end of each period, keyed by the period's first day."""
    return CronPartitionTimetable(
        CRON[use_case.cadence], timezone="UTC", run_offset=-1, key_format="%Y-%m-%d"
    )


def hourly(use_case: UseCase) -> str:
    """Return a schedule of once an hour; use cases have minutes of their own, not all the first."""
    return f"{zlib.crc32(use_case.name.encode()) % 50 + 5} * * * *"


def nightly(use_case: UseCase) -> str:
    """Return a schedule of once a night, when the chain of a day has mostly ended."""
    return f"{zlib.crc32(use_case.name.encode()) % 60} 4 * * *"


def schedule_end(use_case: UseCase) -> datetime | None:
    """Return the end of the schedule; None for a history that goes on.

    A closed one ends as it begins: it has no scheduled run, only backfills.
    """
    return None if use_case.history.last is None else START
