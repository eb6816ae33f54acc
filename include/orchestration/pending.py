"""Tell whether partitions that a stage needs, and that are not there, are on their way.

While they are, the stage waits; else it fails. Pure: what the records and Airflow say is handed in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from include.pipeline.flow import CHAIN, GOAL, upstream

ACTIVE = ("queued", "running")
TERMINAL = ("failed", "blocked", "held", "skipped")


@dataclass(frozen=True, slots=True)
class SeenRun:
    """A run that Airflow holds: of a stage's DAG for one key, or of `load_history` for a range."""

    dag: str
    state: str
    ended: datetime | None
    first: str
    last: str

    def covers(self, key: str) -> bool:
        """Tell whether the run is, or is also, about a key."""
        return self.first <= key <= self.last


@dataclass(frozen=True, slots=True)
class StageRecord:
    """What is recorded of one stage of one key."""

    stage: str
    state: str
    finished: datetime


def is_coming(
    key: str,
    *,
    stage: str,
    runs: Collection[SeenRun],
    recorded: Mapping[str, StageRecord],
    target: str | None,
    transit: timedelta,
    now: datetime,
) -> bool:
    """Tell whether a key that `stage` needs is on its way through the stages before it.

    It is while Airflow holds a queued or running run of it there; or while it is between two DAGs:
    the stage before was recorded as done, or its run ended well, less than `transit` ago, and the
    target asks for the next. What was only loaded (target data) emits nothing, so it moves on only
    while `load_history` or the intake of a later key loads it.
    """
    earlier = upstream(stage)
    dags = {*earlier, "load_history"}
    runs_of_key = [run for run in runs if run.dag in dags and run.covers(key)]
    if any(run.state in ACTIVE for run in runs_of_key):
        return True
    done = [name for name in earlier if name in recorded and recorded[name].state == "done"]
    following = earlier[len(done)] if len(done) < len(earlier) else None
    if following is None or not done or target is None:
        return False
    if following in recorded and recorded[following].state in TERMINAL:
        return False
    if CHAIN.index(GOAL[target]) < CHAIN.index(following):
        return False
    is_loading_gap = any(
        run.dag == "ingest_data" and run.state in ACTIVE and run.first > key for run in runs
    )
    if target == "data" and not is_loading_gap:
        return False
    # Between two DAGs: the event was emitted, and Airflow has not started the next run yet.
    ended = [
        run.ended
        for run in runs_of_key
        if run.dag == done[-1] and run.state == "success" and run.ended
    ]
    return any(now - moment < transit for moment in (recorded[done[-1]].finished, *ended))


def keys_not_coming(missing: Sequence[str], coming: Collection[str]) -> list[str]:
    """Return the missing keys that are not on their way."""
    return [key for key in missing if key not in coming]
