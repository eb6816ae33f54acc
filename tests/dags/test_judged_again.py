"""A release whose verdict was overtaken by another champion: its task is skipped, and the
candidate is judged again, once.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.config.settings import settings
from include.deployment.candidate import Candidate, decide_release
from include.errors import Conflict, Unavailable
from include.orchestration import tasks
from include.orchestration.airflow_api import ADMIN, password_file
from tests.builders.serving import NAME, Desk, free_port

SECOND = "2026-03-02"
URI = f"evergreen://{NAME}/candidate"


class Airflow(ThreadingHTTPServer):
    """What Airflow's API answers to an event, over a real socket; `events` is what was emitted."""

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.events: list[dict[str, Any]] = []


class Handler(BaseHTTPRequestHandler):
    server: Airflow

    def do_GET(self) -> None:
        self._answer(200, {"assets": [{"id": 7, "uri": URI}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/auth/token":
            self._answer(201, {"access_token": "x"})
        else:
            self.server.events.append(body)
            self._answer(200, {})

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """An installation in which model 2 was judged while nobody served, and model 1 is champion
    now.
    """
    desk, port = Desk(tmp_path), free_port()
    monkeypatch.setenv("EVERGREEN_HOME", str(desk.settings.home))
    monkeypatch.setenv("EVERGREEN_USECASES", desk.settings.usecases)
    monkeypatch.setenv("EVERGREEN_AIRFLOW_PORT", str(port))
    path = password_file(desk.settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({ADMIN: "secret"}))
    settings.cache_clear()
    desk.candidate(1)
    desk.candidate(2, SECOND)
    desk.record_route(champion=1)
    yield desk
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def airflow(desk: Desk) -> Iterator[Airflow]:
    server = Airflow(settings().airflow_port)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


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
    desk: Desk, airflow: Airflow, task: dict[str, Any]
) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    with pytest.raises(AirflowSkipException, match="judged against nobody, but model 1 serves"):
        request()
    assert airflow.events == [{"asset_id": 7, "partition_key": SECOND, "extra": {"judge_again": 2}}]
    assert "model 1 serves" in task["reason"]
    (entry,) = desk.records.audit.entries(NAME, action="release.judge_again")
    assert (entry.subject, entry.details["version"]) == (SECOND, 2)
    # Nobody has judged it since: it does not go round in circles.
    with pytest.raises(Conflict, match="judge it again"):
        request()
    desk.record_route(weight=0)  # the row moves on
    with pytest.raises(AirflowSkipException):
        request()
    assert len(airflow.events) == 2


def test_judged_against_the_new_champion_it_is_released(
    desk: Desk, airflow: Airflow, task: dict[str, Any]
) -> None:
    model = desk.records.models.get(NAME, 2)
    assert model is not None
    desk.judge(model, again=True)
    with desk.context("deploy_model", SECOND) as context:
        assert isinstance(decide_release(context), Candidate)
    assert airflow.events == []


def test_where_airflow_does_not_answer_it_is_tried_again(desk: Desk, task: dict[str, Any]) -> None:
    with pytest.raises(Unavailable):
        request()
    assert desk.records.audit.entries(NAME, action="release.judge_again") == []
