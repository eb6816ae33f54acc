"""How the task of a step ends as its release does: go on, skip with the reason, or fail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred

from include.config import settings as environment
from include.config.settings import Settings
from include.deployment import judge_release
from include.errors import ArtefactError, Conflict
from include.orchestration import release_tasks, tasks, triggers
from include.orchestration.assets import ended_asset
from include.orchestration.release_tasks import (
    BeginOperator,
    JudgedStepOperator,
    announce_end,
    steer_release,
)
from include.orchestration.triggers import load_question
from include.pipeline.flow import asset_uri
from include.records.records import Records
from tests.builders.airflow_server import airflow_server
from tests.builders.ports import free_ports
from tests.builders.releases import add_model, entry, request, under_way
from tests.builders.webhook_server import WebhookServer, webhook_server


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Make this test a task; return what it puts on XCom."""
    made: dict[str, Any] = {}
    instance = SimpleNamespace(xcom_push=lambda key, value: made.update({key: value}))
    monkeypatch.setattr(release_tasks, "get_current_context", lambda: {"ti": instance})
    return made


def task(step: int | None) -> JudgedStepOperator:
    return JudgedStepOperator(task_id="shadow", step=step, use_case="loans")


def answer(state: str, **changes: Any) -> dict[str, Any]:
    said = f"release r of model 2 is {state}"
    values = {"state": state, "says": said, "reason": "", "kind": "canary", "replayed": False}
    return {
        **values,
        "evidence": {"errors": {"word": "pass", "champion": 0.01, "would_have_seen": 0.2}},
        **changes,
    }


@pytest.mark.parametrize("state", ["running", "watched", "promoted"])
def test_what_goes_on_is_handed_on(state: str, pushed: dict[str, Any]) -> None:
    assert task(0).accept(answer(state))["state"] == state
    assert pushed == {}


@pytest.mark.parametrize("state", ["aborted", "superseded", "none"])
def test_what_ends_without_a_fault_is_skipped_with_the_reason(
    state: str, pushed: dict[str, Any]
) -> None:
    with pytest.raises(AirflowSkipException, match=f"model 2 is {state}"):
        task(0).accept(answer(state))
    assert pushed == {"reason": f"release r of model 2 is {state}"}


def test_the_last_step_that_the_dag_is_left_with_waits_on_for_those_that_it_had(
    pushed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trigger was made when there was a task after it, which somebody has taken away since."""
    asked: list[dict[str, Any]] = []

    def step_over(**arguments: Any) -> None:
        asked.append(arguments)

    monkeypatch.setattr(judge_release, "step_over", step_over)
    monkeypatch.setattr(triggers, "run_key", lambda use_case, context: KEY)
    left = JudgedStepOperator(task_id="shadow", step=0, last=True, use_case="loans")
    with pytest.raises(TaskDeferred) as deferred:
        left.resume({}, answer("running"))
    assert asked[0] == {"use_case": "loans", "key": KEY, "step": 0, "last": True}
    assert deferred.value.trigger.arguments == asked[0]
    assert left.resume({}, answer("watched"))["state"] == "watched"
    assert task(0).resume({}, answer("running"))["state"] == "running"


def test_what_is_rolled_back_fails(pushed: dict[str, Any]) -> None:
    with pytest.raises(ArtefactError, match="model 2 is rolled_back"):
        task(1).accept(answer("rolled_back"))


def test_a_release_without_steps_skips_them_and_is_watched(pushed: dict[str, Any]) -> None:
    for changes in ({"kind": "first"}, {"kind": "direct"}, {"replayed": True}):
        with pytest.raises(AirflowSkipException, match="takes no steps"):
            task(0).accept(answer("watched", **changes))
        assert task(None).accept(answer("promoted", **changes))["state"] == "promoted"


def test_the_evidence_is_a_table_in_the_log(
    pushed: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Airflow's own configuration of logs, which another test may have read, silences ours.
    monkeypatch.setattr(release_tasks.log, "disabled", False)
    monkeypatch.setattr(release_tasks.log, "handlers", [caplog.handler])
    caplog.set_level("INFO", logger=release_tasks.log.name)
    task(0).accept(answer("running", word="pass", reason="all of it"))
    assert "pass: all of it" in caplog.text
    assert "errors         pass  champion 0.01  would have seen 0.2" in caplog.text


KEY = "2026-01-02"
ENDED = ended_asset("shop")


@pytest.fixture
def hooks() -> Iterator[WebhookServer]:
    with webhook_server() as running:
        yield running


class Announcing:
    """The task `announce` of a run, with real records, and servers for Airflow and for alerts."""

    def __init__(self, home: Path, hooks: WebhookServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = Settings(
            home=home, airflow_port=free_ports(1)[0], alert_url=hooks.url.get_secret_value()
        )
        self.records = Records.open(self.settings.records_address)
        self.records.migrate()
        monkeypatch.setattr(release_tasks, "settings", lambda: self.settings)
        monkeypatch.setattr(release_tasks, "run_key", lambda use_case, context: KEY)
        # What the stage records of the partition has tests of its own.
        monkeypatch.setattr(release_tasks, "execute_stage", lambda *_, **__: None)
        for module in (release_tasks, tasks):
            monkeypatch.setattr(module, "get_current_context", lambda: self.context)

    def begin(self, **form: Any) -> SimpleNamespace:
        """Begin a try of a task, by a form; return its event."""
        event = SimpleNamespace(extra=None, add_partitions=lambda key: None)
        run = SimpleNamespace(
            dag_id="shop__deploy_model",
            run_id="r1",
            partition_key=KEY,
            run_type="asset_triggered",
            triggering_user_name=None,
        )
        instance = SimpleNamespace(task_id="announce", xcom_push=lambda **_: None)
        outlets = {ENDED: event}
        self.context = {"dag_run": run, "ti": instance, "outlet_events": outlets, "params": form}
        return event

    def run(self) -> dict[str, Any] | None:
        """Run the task as a try of its own; return its event, None where it was skipped."""
        event = self.begin()
        try:
            announce_end("shop", emits=ENDED)
        except AirflowSkipException:
            assert event.extra is None
            return None
        return dict(event.extra)


@pytest.fixture
def announcing(tmp_path: Path, hooks: WebhookServer, monkeypatch: pytest.MonkeyPatch) -> Announcing:
    return Announcing(tmp_path, hooks, monkeypatch)


def test_the_end_that_a_shell_made_is_an_event_and_an_alert_once(
    announcing: Announcing, hooks: WebhookServer
) -> None:
    release = under_way(announcing.records, KEY)
    assert announcing.run() is None, "it has not ended"
    announcing.records.releases.roll_back(release, "no good", entry("release.rolled_back"))
    with airflow_server(announcing.settings) as airflow:
        told = announcing.run()
        assert told is not None
        assert (told["end"], told["by"], told["reason"]) == ("rolled_back", "test", "no good")
        assert [one["event"] for one in hooks.taken] == ["release.rolled_back"]
        # Cleared by a person, it runs again: Airflow has the event of the first time.
        uri = asset_uri("shop", "release_ended")
        airflow.answers["GET", "/api/v2/assets"] = 200, {"assets": [{"id": 7, "uri": uri}]}
        airflow.answers["GET", "/api/v2/assets/events"] = 200, {"asset_events": [{"extra": told}]}
        assert announcing.run() is None
        assert airflow.bodies == []
    assert len(hooks.taken) == 1


def test_who_takes_no_alert_fails_no_run(announcing: Announcing, hooks: WebhookServer) -> None:
    hooks.statuses = [403]
    release = under_way(announcing.records, KEY)
    announcing.records.releases.abort(release, "a wish", entry("release.aborted"))
    told = announcing.run()
    assert told is not None
    assert (told["end"], len(hooks.taken)) == ("aborted", 1)


def test_a_candidate_that_was_superseded_is_announced_by_the_next_run(
    announcing: Announcing, hooks: WebhookServer
) -> None:
    records = announcing.records
    release = under_way(records, KEY)
    for version, key in ((3, "2026-01-03"), (4, "2026-01-04")):
        request(records, version, key, waits=True)
    records.releases.abort(release, "a wish", entry("release.aborted"))
    with airflow_server(announcing.settings) as airflow:
        airflow.answers["GET", "/api/v2/assets"] = lambda query: (
            200,
            {"assets": [{"id": 7, "uri": query["uri_pattern"]}]},
        )
        airflow.answers["GET", "/api/v2/assets/events"] = 200, {"asset_events": []}
        airflow.answers["POST", "/api/v2/assets/events"] = 200, {}
        assert announcing.run() is not None
        ends = [body["extra"].get("end") for body in airflow.bodies]
    assert ends == ["superseded", None], "the other is the start of the candidate that waits"


def test_a_release_that_is_paused_is_begun_once_it_goes_on(
    announcing: Announcing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage, which has tests of its own, leaves it as it is while it is paused."""
    records, asked = announcing.records, list[str]()

    def begin(stage: str, use_case: str, *, options: dict[str, Any]) -> dict[str, Any]:
        asked.append(options["phase"])
        now = records.releases.running("shop")
        assert now is not None
        if not now.paused:
            records.releases.begin(now, entry())
        return {"key": KEY, "reason": "as it is"}

    monkeypatch.setattr(release_tasks, "run_stage", begin)
    monkeypatch.setattr(environment, "settings", lambda: announcing.settings)
    add_model(records, 1, "2026-01-01")
    records.routes.change("shop", set={"champion": 1}, entry=entry())
    release = records.releases.pause(request(records, 2, KEY), entry())
    announcing.begin()
    operator = BeginOperator(task_id="begin", use_case="shop", every=20)
    with pytest.raises(TaskDeferred) as deferred:
        operator._begin()
    trigger, resume = deferred.value.trigger, getattr(operator, deferred.value.method_name)
    assert (trigger.every, trigger.deadline > time.time() + 86_400) == (20, True)
    question = load_question(trigger.call)
    assert question(**trigger.arguments) is None
    with pytest.raises(TaskDeferred):
        resume(announcing.context, {"timeout": True})
    records.releases.unpause(release, entry())
    answer = question(**trigger.arguments)
    assert answer is not None
    assert answer["state"] == "trying"
    assert resume(announcing.context, answer)["key"] == KEY
    began = records.releases.running("shop")
    assert began is not None
    assert (began.state, asked) == ("running", ["begin"] * 3)


def test_the_form_ends_the_release_that_it_names_and_no_other(announcing: Announcing) -> None:
    release, releases = under_way(announcing.records, KEY), announcing.records.releases
    form = {"action": "abort", "reason": "a wish", "until": None}
    announcing.begin(**form, version=release.challenger + 1)
    with pytest.raises(Conflict, match="there is no release of model 3 to abort"):
        steer_release("shop")
    assert releases.running("shop") == release
    announcing.begin(**form, version=release.challenger)
    assert "of model 2 is aborted: a wish" in steer_release("shop")["done"]
