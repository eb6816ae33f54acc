"""Runs and tasks as Airflow's REST API tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

ACTIVE = ("queued", "running")


@dataclass(frozen=True, slots=True)
class Run:
    """A DAG run; `key` is None for a run that has no partition."""

    dag_id: str
    run_id: str
    state: str
    run_type: str
    key: str | None
    conf: dict[str, Any]
    started: datetime | None
    ended: datetime | None

    @property
    def active(self) -> bool:
        """Whether the run is queued or running."""
        return self.state in ACTIVE

    @property
    def seconds(self) -> float:
        """Duration of a finished run; 0 while it runs."""
        return (self.ended - self.started).total_seconds() if self.started and self.ended else 0.0


@dataclass(frozen=True, slots=True)
class TaskState:
    """One task of a run; `state` is None before it is scheduled."""

    task_id: str
    state: str | None
    seconds: float
    started: datetime | None
    try_number: int


def run_of(row: Mapping[str, Any]) -> Run:
    """Return a run as Airflow's answer has it."""
    return Run(
        dag_id=row["dag_id"],
        run_id=row["dag_run_id"],
        state=row["state"],
        run_type=row["run_type"],
        key=row["partition_key"],
        conf=row["conf"] or {},
        started=moment_of(row["start_date"]),
        ended=moment_of(row["end_date"]),
    )


def moment_of(text: str | None) -> datetime | None:
    """Return a time as Airflow writes it."""
    return datetime.fromisoformat(text) if text else None
