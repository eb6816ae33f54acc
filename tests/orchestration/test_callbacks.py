"""A task that has failed for good: on the audit log always, an alert where it is live."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.alerts import webhook
from include.config.settings import settings
from include.deployment.release_alerts import deliver_alerts
from include.errors import SourceError
from include.orchestration import predictions
from include.orchestration.callbacks import on_failure
from tests.builders.intake import Intake
from tests.builders.stopwatch import Stopwatch
from tests.builders.webhook_server import WebhookServer, webhook_server

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


@pytest.fixture
def server(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookServer]:
    """Who takes alerts, known to this process."""
    with webhook_server() as running:
        monkeypatch.setenv("EVERGREEN_ALERT_URL", running.url.get_secret_value())
        settings.cache_clear()
        yield running


def fail(
    key: str | None,
    form: str | None = None,
    error: Exception | None = None,
    *,
    run_id: str = "r",
    task: str = "ingest",
) -> Any:
    """Let the last try of a task of this key fail."""
    run = SimpleNamespace(
        dag_id="shop__ingest_data", run_id=run_id, partition_key=key, run_after=None
    )
    instance = SimpleNamespace(task_id=task, try_number=4)
    error = error or SourceError("orders.csv: line 3 is cut off")
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


def test_what_a_library_says_is_recorded_without_a_signature(intake: Intake) -> None:
    intake.ask(KEY, mode="live", target="deployed")
    fail(KEY, error=RuntimeError("no https://a.blob/c/x?sv=1&sig=abc%3D"))
    (alert,) = alerts(intake)
    (entry,) = intake.records.audit.entries("shop", action="task.failed")
    assert alert["reason"] == entry.details["reason"] == "no https://a.blob/c/x"


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


def test_people_are_told_of_a_live_run_once_and_of_no_backfill(
    intake: Intake, server: WebhookServer
) -> None:
    intake.ask(KEY, mode="backfill", target="data")
    fail(KEY, run_id="backfill")
    assert server.taken == []
    intake.ask(KEY, mode="live", target="deployed")
    for task in ("ingest", "write"):
        fail(KEY, task=task)
    [told] = server.taken
    assert (told["event"], told["id"]) == ("task.failed", "task.failed/shop__ingest_data/r")
    assert f"task ingest of shop__ingest_data of {KEY} failed: SourceError" in told["text"]
    assert "line 3 is cut off" in told["text"]
    [row] = intake.records.audit.entries("shop", action="alert.delivered")
    assert row.subject == told["id"]


def test_who_takes_nothing_holds_no_task_and_is_asked_again_by_the_hourly_import(
    intake: Intake, server: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever becomes of the import."""
    monkeypatch.setattr(webhook.send, "__kwdefaults__", {"seconds": 0.5, "pauses": (30.0,)})
    server.may_answer.clear()
    stopwatch = Stopwatch()
    fail(KEY)
    assert stopwatch.seconds < 10, "there is one try"
    assert len(alerts(intake)) == 1
    assert intake.records.audit.entries("shop", action="alert.delivered") == []
    server.may_answer.set()
    monkeypatch.setattr(webhook.send, "__kwdefaults__", {"seconds": 60.0, "pauses": (30.0,)})

    def refuse(*_: object, **__: object) -> None:
        raise SourceError("the lake cannot be read")

    run = SimpleNamespace(run_type="scheduled", triggering_user_name=None)
    monkeypatch.setattr(predictions, "get_current_context", lambda: {"dag_run": run})
    monkeypatch.setattr(predictions, "import_log", refuse)
    for _ in range(2):
        with pytest.raises(SourceError, match="the lake"):
            predictions.load_log("shop", tidied_by="tidy")
    [row] = intake.records.audit.entries("shop", action="alert.delivered")
    assert (row.actor, row.subject) == (
        "airflow:scheduled",
        "task.failed/shop__ingest_data/r",
    )


def test_a_failure_where_no_address_is_known_is_delivered_by_another_process(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(KEY)
    assert intake.records.audit.entries("shop", action="alert.delivered") == []
    with webhook_server() as server:
        elsewhere = settings().model_copy(update={"alert_url": server.url})
        done = deliver_alerts(elsewhere, "shop", actor="cli:anna")
        assert done.delivered == ("task.failed/shop__ingest_data/r",)
        assert len(server.taken) == 1


def test_a_disk_that_is_full_keeps_no_alert_back(intake: Intake, server: WebhookServer) -> None:
    (intake.settings.home / "logs").write_text("no folder")
    fail(KEY)
    assert len(server.taken) == 1
