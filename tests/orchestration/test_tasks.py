"""What tasks do with what a stage came to: announce it, skip, fail, or have it judged again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowSkipException, DownstreamTasksSkipped

from include.config.settings import ROOT, settings
from include.deployment.candidate import Candidate, decide_release
from include.errors import ConfigError, Conflict, SourceError, Unavailable
from include.orchestration import tasks
from include.pipeline.execution import Report
from tests.builders.airflow_server import AirflowServer, airflow_server
from tests.builders.intake import GOOD, HEAD, Intake
from tests.builders.serving import NAME, Desk, free_port

SECOND = "2026-03-02"
URI = f"evergreen://{NAME}/candidate"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """An installation in which model 2 was judged while nobody served, and model 1 is champion
    now.
    """
    desk, port = Desk(tmp_path), free_port()
    monkeypatch.setenv("EVERGREEN_HOME", str(desk.settings.home))
    monkeypatch.setenv("EVERGREEN_USECASES", desk.settings.usecases)
    monkeypatch.setenv("EVERGREEN_AIRFLOW_PORT", str(port))
    settings.cache_clear()
    desk.candidate(1)
    desk.candidate(2, SECOND)
    desk.record_route(champion=1)
    yield desk
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def airflow(desk: Desk) -> Iterator[AirflowServer]:
    with airflow_server(settings()) as server:
        server.answers["GET", "/api/v2/assets"] = (200, {"assets": [{"id": 7, "uri": URI}]})
        server.answers["POST", "/api/v2/assets/events"] = (200, {})
        yield server


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Make this test the task `request` of a run of deploy_model; return what it puts on XCom."""
    pushed: dict[str, Any] = {}
    instance = SimpleNamespace(
        try_number=1, task_id="request", xcom_push=lambda key, value: pushed.update({key: value})
    )
    run = SimpleNamespace(
        dag_id=f"{NAME}__deploy_model",
        run_id="r",
        partition_key=SECOND,
        run_type="asset",
        triggering_user_name=None,
    )
    context = {"dag_run": run, "ti": instance, "params": {}}
    monkeypatch.setattr(tasks, "get_current_context", lambda: context)
    return pushed


def request() -> Any:
    return tasks.run_stage("deploy_model", NAME, options={"phase": "request"})


def test_an_overtaken_verdict_is_judged_again_once_a_generation(
    desk: Desk, airflow: AirflowServer, task: dict[str, Any]
) -> None:
    with pytest.raises(AirflowSkipException, match="judged against nobody, but model 1 serves"):
        request()
    assert airflow.bodies == [{"asset_id": 7, "partition_key": SECOND, "extra": {"judge_again": 2}}]
    assert "model 1 serves" in task["reason"]
    (entry,) = desk.records.audit.entries(NAME, action="release.judge_again")
    assert (entry.subject, entry.details["version"]) == (SECOND, 2)
    # Nobody has judged it since: it does not go round in circles.
    with pytest.raises(Conflict, match="judge it again"):
        request()
    desk.record_route(weight=0)  # the row moves on
    with pytest.raises(AirflowSkipException):
        request()
    assert len(airflow.bodies) == 2


def test_judged_against_the_new_champion_it_is_released(
    desk: Desk, airflow: AirflowServer, task: dict[str, Any]
) -> None:
    model = desk.records.models.get(NAME, 2)
    assert model is not None
    desk.judge(model, again=True)
    with desk.context("deploy_model", SECOND) as context:
        assert isinstance(decide_release(context), Candidate)
    assert airflow.bodies == []


def test_where_airflow_does_not_answer_it_is_tried_again(desk: Desk, task: dict[str, Any]) -> None:
    with pytest.raises(Unavailable):
        request()
    assert desk.records.audit.entries(NAME, action="release.judge_again") == []


@pytest.fixture
def event(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Make this test a running task with an outlet; return what is put on its event and XCom."""
    event = SimpleNamespace(extra=None, keys=[], xcom={})
    event.add_partitions = event.keys.append
    instance = SimpleNamespace(xcom_push=lambda key, value: event.xcom.update({key: value}))
    run = SimpleNamespace(partition_key=None)
    context = {"ti": instance, "dag_run": run, "outlet_events": {ASSET: event}}
    monkeypatch.setattr(tasks, "get_current_context", lambda: context)
    return event


ASSET = Asset(name="judged", uri="evergreen://shop/judged")


def report(state: str, stage: str = "evaluate_model", **outputs: Any) -> Report:
    return Report(
        stage=stage,
        use_case="shop",
        key="2026-01-01",
        state=state,  # type: ignore[arg-type]
        reason="why",
        outputs=outputs,
    )


def test_a_task_that_ends_well_puts_key_and_verdict_on_its_event(event: SimpleNamespace) -> None:
    summary = tasks.end_task(report("done", verdict="pass", metrics={"auc": 0.8}), emits=ASSET)
    assert event.keys == ["2026-01-01"]
    assert event.extra == {**summary, "verdict": "pass"}
    assert "metrics" not in summary, "outputs do not travel through XCom"


def test_blocked_data_fails_and_a_stage_with_nothing_to_do_is_skipped(
    event: SimpleNamespace,
) -> None:
    with pytest.raises(SourceError, match="why"):
        tasks.end_task(report("blocked", "validate_data"), emits=ASSET)
    for skipped in (report("skipped"), report("held", "deploy_model")):
        with pytest.raises(AirflowSkipException, match="why"):
            tasks.end_task(skipped, emits=ASSET)
    assert (event.extra, event.xcom) == (None, {"reason": "why"})
    assert tasks.end_task(report("held"), emits=ASSET)["state"] == "held", "a verdict is emitted"


def test_the_next_task_is_skipped_with_the_result_on_record(event: SimpleNamespace) -> None:
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        tasks.skip_task("announce", {"state": "done"})
    assert skipped.value.tasks == ["announce"]
    assert event.xcom == {"return_value": {"state": "done"}}


def test_a_computation_goes_behind_the_node_and_does_so_once() -> None:
    code = "import os\nfrom include.orchestration.tasks import lower_priority as lower\n"
    code += "lower(); first = os.nice(0); lower(); print(first, os.nice(0))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    first, second = map(int, done.stdout.split()[-2:])
    assert first == second >= tasks.NICENESS


@pytest.fixture
def intake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Intake]:
    """A use case of which the first day is ingested and validated."""
    intake = Intake(tmp_path, more="empty: allow")
    intake.put(HEAD + GOOD)
    intake.validate("2026-01-01")
    monkeypatch.setenv("EVERGREEN_HOME", str(intake.settings.home))
    monkeypatch.setenv("EVERGREEN_USECASES", str(intake.settings.usecases))
    monkeypatch.setattr(tasks, "lower_priority", lambda: None)
    settings.cache_clear()
    yield intake
    monkeypatch.undo()
    settings.cache_clear()


def run_of(
    monkeypatch: pytest.MonkeyPatch, key: str | None, run_type: str = "scheduled", **form: str
) -> None:
    """Make this test a task of a DAG run."""
    run = SimpleNamespace(
        dag_id="shop__ingest_data",
        run_id="r",
        partition_key=key,
        run_type=run_type,
        run_after=datetime(2026, 1, 6, tzinfo=UTC),
        triggering_user_name=None,
    )
    instance = SimpleNamespace(try_number=1, task_id="load_gap")
    context = {"dag_run": run, "ti": instance, "params": form}
    monkeypatch.setattr(tasks, "get_current_context", lambda: context)


def test_a_live_partition_loads_the_days_before_it_that_nobody_ran(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_of(monkeypatch, "2026-01-04", "backfill")
    assert tasks.prepare_partition("shop") == {
        "key": "2026-01-04",
        "mode": "backfill",
        "target": "judged",
    }
    assert [row.key for row in intake.records.partitions.of("shop")] == ["2026-01-01", "2026-01-04"]
    run_of(monkeypatch, "2026-01-04")
    assert tasks.prepare_partition("shop") == {
        "key": "2026-01-04",
        "mode": "live",
        "target": "deployed",
        "loaded": 2,
        "first": "2026-01-02",
        "last": "2026-01-03",
    }
    states = intake.records.results.states("shop")
    assert states["ingest_data", "2026-01-03"] == "done"
    assert ("ingest_data", "2026-01-04") not in states, "its own task takes it in"


def test_a_range_of_the_form_is_loaded_a_stage_at_a_time(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_of(monkeypatch, None, "manual", first="2026-01-02", last="2026-01-03")
    loaded = tasks.load_range("ingest_data", "shop")
    assert (loaded["first"], loaded["last"]) == ("2026-01-01", "2026-01-03"), "with its lookback"
    assert loaded["done"] + loaded.get("reused", 0) == 3
    rows = {row.key: row.target for row in intake.records.partitions.of("shop")}
    assert rows["2026-01-03"] == "data"


def test_what_was_recorded_is_announced_also_where_it_was_skipped(
    intake: Intake, event: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_of(monkeypatch, "2026-01-01")
    context = tasks.get_current_context()
    context["outlet_events"] = {ASSET: event}
    announced = tasks.announce_result("ingest_data", "shop", emits=ASSET)
    assert (announced["state"], announced["key"]) == ("done", "2026-01-01")
    assert event.extra == announced
    assert event.keys == [], "the run's own key travels by itself"
    with pytest.raises(ConfigError, match="package_model of shop 2026-01-01 is not recorded"):
        tasks.announce_result("package_model", "shop", emits=ASSET)
