"""Which failed tasks people are told of: once a run, of what is live, and lately."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.alerts.alert import Alert
from include.pipeline.task_failures import REASON, failed_task, failure_alerts
from include.records.records import AuditEntry, Records

AT = datetime(2026, 1, 10, 3, tzinfo=UTC)
KEY = "2026-01-09"


@pytest.fixture
def records(tmp_path: Path) -> Records:
    made = Records.open(f"sqlite:///{tmp_path / 'records.db'}")
    made.migrate()
    return made


def fail(
    records: Records,
    task: str = "ingest",
    *,
    dag: str = "shop__ingest_data",
    run: str = "r",
    key: str = KEY,
    error: str = "SourceError",
    reason: str = "line 3 is cut off",
    is_live: bool = True,
    at: datetime = AT,
) -> None:
    details = {"dag": dag, "run": run, "task": task, "try": 4, "error": error, "reason": reason}
    records.audit.append(failed_task("shop", key, details, is_live=is_live, at=at))


def alerts(records: Records, *, now: datetime = AT, most: int = 50) -> list[Alert]:
    return failure_alerts(records, "shop", now, latest=timedelta(days=7), most=most)


def test_a_run_is_told_once_whatever_else_of_it_fails(records: Records) -> None:
    for task in ("ingest", "ingest", "write"):
        fail(records, task)
    fail(records, run="by hand")
    first, second = alerts(records)
    assert (first.id, second.id) == (
        "task.failed/shop__ingest_data/r",
        "task.failed/shop__ingest_data/by hand",
    )
    assert first.text == (
        f"shop: task ingest of shop__ingest_data of {KEY} failed: SourceError: line 3 is cut off; "
        "`evergreen status shop`"
    )
    assert (first.event, first.at, first.details["partition"]) == ("task.failed", AT, KEY)


def test_a_dag_without_partitions_is_told_once_a_day(records: Records) -> None:
    for hour in (0, 1, 2, 30):
        at = AT + timedelta(hours=hour)
        fail(records, "load", dag="shop__import_predictions", run=f"{hour}", key="", at=at)
    found = alerts(records, now=AT + timedelta(days=2))
    assert [one.id.rpartition("/")[2] for one in found] == ["2026-01-10", "2026-01-11"]
    assert "of shop__import_predictions failed" in found[0].text


def test_backfills_what_is_old_and_rows_of_an_earlier_version_are_no_news(records: Records) -> None:
    fail(records, is_live=False)
    fail(records, run="old", at=AT - timedelta(days=8))
    earlier = {"dag": "shop__ingest_data", "run": "x", "task": "t", "try": 1, "error": "E"}
    row = AuditEntry("task.failed", "shop", KEY, "airflow", earlier | {"reason": "r"}, AT)
    records.audit.append(row)
    assert alerts(records) == []


def test_of_many_the_newest_are_told_and_no_backfill_hides_them(records: Records) -> None:
    for number in range(4):
        fail(records, run=f"{number}")
    for number in range(60):
        fail(records, run=f"backfill {number}", is_live=False)
    assert [one.id[-1] for one in alerts(records, most=2)] == ["2", "3"]


def test_the_text_of_an_error_that_is_none_of_ours_stays_here(records: Records) -> None:
    fail(records, error="OperationalError", reason="at postgresql://u:hunter2@db, row (7, 'Ann')")
    fail(records, run="long", reason="x" * 5000)
    foreign, long = alerts(records)
    assert "failed: OperationalError: see the log of the task" in foreign.text
    assert "hunter2" not in str(foreign.plain())
    assert len(long.details["reason"]) == REASON
