"""A task that has failed for good: on the audit log always, an alert where it is live."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.config.settings import settings
from include.errors import SourceError
from include.orchestration.callbacks import on_failure
from tests.builders.intake import Intake

KEY = "2026-01-01"


@pytest.fixture
def intake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Intake]:
    intake = Intake(tmp_path)
    monkeypatch.setenv("EVERGREEN_HOME", str(intake.settings.home))
    monkeypatch.setenv("EVERGREEN_USECASES", str(intake.settings.usecases))
    settings.cache_clear()
    yield intake
    monkeypatch.undo()
    settings.cache_clear()


def fail(key: str | None, form: str | None = None) -> Any:
    """Let the last try of a task of this key fail."""
    run = SimpleNamespace(dag_id="shop__ingest_data", run_id="r", partition_key=key, run_after=None)
    instance = SimpleNamespace(task_id="ingest", try_number=4)
    error = SourceError("orders.csv: line 3 is cut off")
    on_failure(
        {"dag_run": run, "ti": instance, "params": {"partition": form}, "exception": error}  # type: ignore[typeddict-item]
    )


def alerts(intake: Intake) -> list[dict[str, Any]]:
    path = intake.settings.home / "logs" / "alerts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_live_partition_alerts_and_a_backfill_does_not(intake: Intake) -> None:
    intake.ask(KEY, mode="backfill", target="data")
    fail(KEY)
    assert alerts(intake) == []
    intake.ask(KEY, mode="live", target="deployed")
    fail(KEY)
    (alert,) = alerts(intake)
    assert (alert["use_case"], alert["partition"], alert["task"]) == ("shop", KEY, "ingest")
    assert (alert["error"], alert["reason"]) == ("SourceError", "orders.csv: line 3 is cut off")
    entries = intake.records.audit.entries("shop", action="task.failed")
    assert [(entry.subject, entry.details["try"]) for entry in entries] == [(KEY, 4)] * 2


def test_a_run_whose_key_is_wrong_is_recorded_and_alerts_too(intake: Intake) -> None:
    fail("1 January")
    fail(KEY, form="2026-01-02")
    subjects = [entry.subject for entry in intake.records.audit.entries("shop")]
    assert subjects == ["1 January", KEY]
    assert len(alerts(intake)) == 2, "nobody has said that it is a backfill"


def test_a_run_without_a_partition_alerts_whatever_the_newest_one_is(intake: Intake) -> None:
    """The import of the log is nobody's backfill."""
    intake.ask(KEY, mode="backfill", target="data")
    run = SimpleNamespace(
        dag_id="shop__import_predictions", run_id="r", partition_key=None, run_after=None
    )
    instance = SimpleNamespace(task_id="load", try_number=4)
    error = SourceError("the lake cannot be written")
    on_failure({"dag_run": run, "ti": instance, "params": {}, "exception": error})  # type: ignore[typeddict-item]
    (alert,) = alerts(intake)
    assert (alert["partition"], alert["task"]) == ("", "load")
