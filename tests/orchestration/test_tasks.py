"""What tasks do with what a stage came to: announce it, skip, fail, or have it judged again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowSkipException, DownstreamTasksSkipped

from include.config.settings import ROOT, settings
from include.deployment.candidate import Candidate, decide_release
from include.errors import Conflict, SourceError, Unavailable
from include.orchestration import tasks
from include.pipeline.execution import Report
from tests.builders.airflow_server import AirflowServer, airflow_server
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
