"""Do what the first task of `collect_garbage` does: collect what no record needs any more."""

from __future__ import annotations

from typing import Any

from airflow.sdk import get_current_context

from include.config.settings import settings
from include.config.use_case_file import find
from include.orchestration.runs import actor_of
from include.orchestration.tasks import lower_priority

WAIT = 600.0  # seconds that it waits for a stage that uses the files of models


def collect(use_case: str) -> dict[str, Any]:
    """Collect the garbage of a use case; return what was removed, and what was put off.

    Raises: as `collect_garbage.collect`.
    """
    from include.clock import utc_now
    from include.pipeline.task_records import task_records
    from include.retention import collect_garbage

    lower_priority()
    here = settings()
    collected = collect_garbage.collect(
        here,
        task_records(here),
        find(use_case, here.usecase_dirs),
        at=utc_now(),
        actor=actor_of(get_current_context()),
        wait=WAIT,
    )
    return {
        "versions": collected.versions,
        "removed": collected.totals(collected.removed),
        "put_off": collected.put_off[:20],
    }


def actor() -> str:
    """Return who started the run of the task that is at work, for the audit log."""
    return actor_of(get_current_context())
