"""The client of Airflow's REST API: pages, a token that runs out, and errors in our words."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include.config.settings import Settings
from include.errors import ConfigError, Conflict, Unavailable
from include.orchestration.airflow_api import AirflowApi
from include.orchestration.airflow_login import password_file
from tests.builders.airflow_server import AirflowServer, airflow_server, run_row
from tests.builders.ports import free_port

RUNS = "/api/v2/dags/~/dagRuns"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, airflow_port=free_port())


@pytest.fixture
def server(settings: Settings) -> Iterator[AirflowServer]:
    with airflow_server(settings) as server:
        yield server


@pytest.fixture
def api(settings: Settings) -> Iterator[AirflowApi]:
    with AirflowApi(settings, timeout=5) as api:
        yield api


def test_a_list_is_read_to_its_last_page(server: AirflowServer, api: AirflowApi) -> None:
    ids = [f"shop__dag_{number}" for number in range(250)]

    def page(query: dict[str, str]) -> tuple[int, Any]:
        offset, limit = int(query["offset"]), int(query["limit"])
        return 200, {"dags": [{"dag_id": name} for name in ids[offset : offset + limit]]}

    server.answers["GET", "/api/v2/dags"] = page
    assert api.dag_ids() == set(ids)
    assert api.dag_ids("shops") == set()
    assert server.requests.count(("GET", "/api/v2/dags")) == 6
    assert server.requests.count(("POST", "/auth/token")) == 1


def test_runs_are_those_of_the_prefix_and_the_key(server: AirflowServer, api: AirflowApi) -> None:
    """Airflow's filters are prefixes: they let through more than was asked for."""
    rows = [
        run_row("shop__train_model", "2026-01-01", "success"),
        run_row("shop__train_model", "2026-01-01T00"),
        run_row("shopping__train_model", "2026-01-01"),
        run_row("shop__load_history", None, first="2026-01-01"),
    ]
    server.answers["GET", RUNS] = (200, {"dag_runs": rows})
    (run,) = api.runs(prefix="shop__", key="2026-01-01")
    assert (run.dag_id, run.active, run.seconds) == ("shop__train_model", False, 5.0)
    assert [run.key for run in api.runs(prefix="shop__")] == ["2026-01-01", "2026-01-01T00", None]
    assert api.runs(prefix="shop__")[-1].conf == {"first": "2026-01-01"}


def test_a_question_that_came_too_early_is_asked_again_and_an_order_is_not(
    server: AirflowServer, settings: Settings
) -> None:
    asked, is_over = itertools.count(), threading.Event()

    def paused(_: dict[str, str]) -> tuple[int, Any]:
        number = next(asked)
        if number == 0:  # too late for whoever asks
            is_over.wait(60)
        return (200, 500, 200)[number], {"is_paused": True}

    path = "/api/v2/dags/shop__train_model"
    server.answers["GET", path] = paused
    server.answers["PATCH", path] = (500, {"detail": "database is locked"})
    with AirflowApi(settings, timeout=5.0) as api:
        try:
            assert api.paused("shop__train_model")
        finally:
            is_over.set()
        assert server.requests.count(("GET", path)) == 3
        with pytest.raises(Unavailable, match="database is locked"):
            api.pause("shop__train_model", True)
        assert server.requests.count(("PATCH", path)) == 1


def test_a_token_that_has_run_out_is_fetched_anew_once(
    server: AirflowServer, api: AirflowApi
) -> None:
    answers = iter([(401, {}), (200, {"is_paused": True}), (401, {}), (401, {"detail": "who?"})])
    server.answers["GET", "/api/v2/dags/shop__train_model"] = lambda _: next(answers)
    assert api.paused("shop__train_model")
    assert server.requests.count(("POST", "/auth/token")) == 2
    with pytest.raises(ConfigError, match=r"\(401\): who\?"):
        api.paused("shop__train_model")


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (409, Conflict, "Airflow: already there"),
        (422, ConfigError, r"refuses POST .*/dagRuns \(422\): already there"),
        (503, Unavailable, r"answered 503 to POST .*already there; see the api-server's log"),
    ],
)
def test_a_refusal_is_told_with_its_reason(
    server: AirflowServer, api: AirflowApi, status: int, kind: type[Exception], message: str
) -> None:
    server.answers["POST", "/api/v2/dags/shop__ingest_data/dagRuns"] = (
        status,
        {"detail": "already there"},
    )
    with pytest.raises(kind, match=message):
        api.trigger("shop__ingest_data", key="2026-01-01")
    assert server.bodies == [
        {"logical_date": None, "conf": {}, "note": None, "partition_key": "2026-01-01"}
    ]


def test_an_event_is_emitted_for_the_asset_of_its_address(
    server: AirflowServer, api: AirflowApi
) -> None:
    assets = [{"id": 1, "uri": "evergreen://shop/raw2"}, {"id": 2, "uri": "evergreen://shop/raw"}]
    server.answers["GET", "/api/v2/assets"] = (200, {"assets": assets})
    server.answers["POST", "/api/v2/assets/events"] = (200, {})
    api.emit("evergreen://shop/raw", "2026-01-01", {"healed": True})
    assert server.bodies == [
        {"asset_id": 2, "partition_key": "2026-01-01", "extra": {"healed": True}}
    ]
    with pytest.raises(ConfigError, match="knows no asset evergreen://shop/curated"):
        api.emit("evergreen://shop/curated", "2026-01-01")


def test_where_nobody_answers_it_says_how_to_start_it(settings: Settings, api: AirflowApi) -> None:
    assert api.health() == {}
    with pytest.raises(Unavailable, match=r"holds no password of 'admin'.*make run"):
        api.dag_ids()
    password_file(settings).parent.mkdir(parents=True)
    password_file(settings).write_text('{"admin": "secret"}')
    with pytest.raises(Unavailable, match=r"does not answer at .*ConnectError.*make run"):
        api.dag_ids()


def test_another_installation_at_the_port_is_told(server: AirflowServer, api: AirflowApi) -> None:
    server.answers["POST", "/auth/token"] = (401, {})
    with pytest.raises(Unavailable, match=r"password of 'admin' in .*EVERGREEN_AIRFLOW_PORT"):
        api.dag_ids()


LISTEN = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    print("up", flush=True)
    connection, _ = listener.accept()
    print(connection.recv(65536), flush=True)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root starts a process of another user")
def test_another_users_process_on_the_port_is_not_sent_the_password(
    settings: Settings, api: AirflowApi
) -> None:
    password_file(settings).parent.mkdir(parents=True)
    password_file(settings).write_text(json.dumps({"admin": "secret-of-the-administrator"}))
    other = subprocess.Popen(
        ["/usr/bin/env", "-i", "python3", "-c", LISTEN, str(settings.airflow_port)],
        user=65534,
        cwd="/",
        stdout=subprocess.PIPE,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"up\n"
        with pytest.raises(Unavailable, match="user 65534, which is not sent Airflow's password"):
            api.dag_ids()
    finally:
        other.kill()
        rest, _ = other.communicate()
    assert rest == b"", "nothing was sent at all"


def test_an_api_server_elsewhere_is_asked_as_the_user_of_the_settings(tmp_path: Path) -> None:
    here = Settings(home=tmp_path, airflow_port=free_port())
    (tmp_path / "evergreen_airflow_op").write_text("o" * 43)
    elsewhere = Settings(
        home=tmp_path / "other",
        secrets_dir=tmp_path,
        airflow_address=here.airflow_url,
        airflow_auth="fab",
        airflow_user="op",
    )
    with airflow_server(here) as server, AirflowApi(elsewhere) as api:
        server.answers["GET", "/api/v2/dags"] = (200, {"dags": [{"dag_id": "shop__ingest_data"}]})
        assert api.dag_ids() == {"shop__ingest_data"}
        assert server.logins == [{"username": "op", "password": "o" * 43}]
    with AirflowApi(elsewhere) as api, pytest.raises(Unavailable, match="AIRFLOW_ADDRESS"):
        api.dag_ids()
