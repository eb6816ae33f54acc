"""Record what a partition is meant for, from how the run of the first DAG came about.

No other place looks at how a run came about; later stages read the record.
"""

from __future__ import annotations

from include.clock import utc_now
from include.config.settings import Settings
from include.config.use_case_file import find
from include.pipeline.stage import Mode, Target
from include.pipeline.task_records import task_records
from include.point_in_time import partitions


def decide_intake(run_type: str, key: str, newest: str | None) -> tuple[Mode, Target]:
    """Return mode and target of a run's partition.

    Live are those of the schedule, and a form run of the newest complete partition.
    """
    if run_type == "scheduled" or (run_type != "backfill" and key == newest):
        return "live", "deployed"
    return "backfill", "judged"


def record_intake(
    settings: Settings, use_case: str, key: str, *, run_type: str, actor: str
) -> tuple[Mode, Target]:
    """Record what a partition is meant for, and return that; the record only rises."""
    now = utc_now()
    mode, target = decide_intake(
        run_type, key, partitions.newest_complete(find(use_case, settings.usecase_dirs), now)
    )
    row = task_records(settings).partitions.raise_to(
        use_case, key, mode=mode, target=target, actor=actor, at=now
    )
    return row.mode, row.target
