"""MLflow's server, started as the supervisor starts it: it shows to whoever knows the password, and
lets nobody write.
"""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from include import clock
from include.config.settings import Settings
from include.installation.child import Child, end
from include.installation.mlflow_login import ADMIN, PASSWORD, is_admitted
from include.installation.services import children
from include.models.mlflow_client import connected
from include.processes import tail
from tests.builders.browser import browser
from tests.builders.ports import free_ports

# Every route that the server knows, of Flask's table and FastAPI's, as (method, path).
TABLES = """
import json, sys
from mlflow.server import app
from mlflow.server.auth import create_app
def paths(routes):
    for route in routes:
        if hasattr(route, "methods"):
            yield from ((method, route.path) for method in route.methods)
        else:
            yield from paths(getattr(route, "routes", None) or [])
found = set(paths(create_app().routes))
for rule in app.url_map.iter_rules():
    found |= {(method, rule.rule) for method in rule.methods}
print(json.dumps(sorted(found)))
"""
# What MLflow answers without a login; it says which server this is, and no more.
OPEN = re.compile(r"/health|/static-files/.*|/(ajax-)?api/3\.0/mlflow/server-info")
WRITES = re.compile(
    r"\b(create|update|delete|restore|log|set|upload|transition|rename|finalize|cancel|grant)\b"
)


class Window:
    """A started server, with a run and a model version in its database."""

    def __init__(self, settings: Settings, child: Child) -> None:
        self.settings, self.child = settings, child
        self.url = f"http://{settings.host}:{settings.mlflow_port}"
        self.password = settings.secret(PASSWORD).get_secret_value()
        with connected(settings) as client:
            self.experiment = client.create_experiment("shown")
            self.run = client.create_run(self.experiment).info.run_id
            client.log_metric(self.run, "auc", 0.75)
            client.create_registered_model("model")
            client.create_model_version("model", str(settings.home), self.run)

    def routes(self) -> list[tuple[str, str]]:
        environment = {**self.child.environment, "_MLFLOW_SGI_NAME": "uvicorn"}
        done = subprocess.run(
            [sys.executable, "-c", TABLES],
            env=environment,
            capture_output=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr.decode()
        return [(method, path) for method, path in json.loads(done.stdout.splitlines()[-1])]

    def client(self, password: str | None = None, user: str = ADMIN) -> httpx.Client:
        auth = None if password is None else (user, password)
        return httpx.Client(base_url=self.url, auth=auth, timeout=30, trust_env=False)

    def content(self) -> tuple[list[str], list[str]]:
        """Return all that the server could have changed: its databases, and the files of home."""
        rows = []
        for name in ("mlflow.db", "mlflow_users.db"):
            with closing(sqlite3.connect(self.settings.home / name)) as con:
                rows += list(con.iterdump())
        home = self.settings.home
        files = sorted(str(path) for path in home.rglob("*") if "logs" not in path.parts)
        return rows, [path for path in files if not path.endswith(("-wal", "-shm", "-journal"))]


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    # A percent sign is more than a letter to the parser of MLflow's configuration.
    home = tmp_path_factory.mktemp("window") / "100%"
    home.mkdir()
    ports = free_ports(3)
    settings = Settings(home=home, airflow_port=ports[0], mlflow_port=ports[1], node_port=ports[2])
    (child,) = children(settings, ["mlflow"])
    with connected(settings):
        pass
    child.start()
    try:
        up = clock.wait_for(lambda: child.healthy() or not child.alive, seconds=300, every=0.25)
        assert up, tail(child.log, 40)
        assert child.alive, tail(child.log, 40)
        yield Window(settings, child)
    finally:
        end([child], grace=10)


def concrete(path: str) -> str:
    """Return a path that a route matches."""
    return re.sub(r"<[^>]+>|\{[^}]+\}", "1", path)


def ask(client: httpx.Client, method: str, path: str) -> int:
    body: Any = {} if method not in ("GET", "HEAD", "OPTIONS") else None
    return client.request(method, path, json=body).status_code


@pytest.mark.slow
def test_every_route_is_refused_but_the_listed_reading_ones(window: Window) -> None:
    routes = window.routes()
    assert len(routes) > 700
    assert len({path for _, path in routes if "/gateway/" in path}) > 20, "FastAPI's are there"
    before = window.content()
    wrong: list[str] = []
    admitted = 0
    with (
        window.client(window.password) as known,
        window.client() as nobody,
        window.client("x" * 43) as liar,
        window.client(window.password, "root") as other,
    ):
        for method, rule in routes:
            path = concrete(rule)
            answers = [ask(one, method, path) for one in (known, nobody, liar, other)]
            if OPEN.fullmatch(path):
                fits = method in ("GET", "HEAD", "OPTIONS") or answers[0] in (401, 403, 405)
            elif is_admitted(method, path):
                admitted += 1
                fits = answers[0] not in (401, 403) and answers[1:] == [401] * 3
            else:
                fits = answers == [403] + [401] * 3
            if not fits:
                wrong.append(f"{method} {path}: {answers}")
    assert wrong == []
    assert admitted > 30
    assert window.content() == before, "a page that was asked changed something"


@pytest.mark.slow
def test_no_listed_route_is_named_as_one_that_writes(window: Window) -> None:
    listed = {path for method, path in window.routes() if is_admitted(method, concrete(path))}
    assert [path for path in listed if WRITES.search(path)] == []


def test_pages_and_their_questions_are_answered(window: Window) -> None:
    read = "/ajax-api/2.0/mlflow"
    with window.client(window.password) as client:
        assert "<html" in client.get("/").text
        found = client.post(f"{read}/runs/search", json={"experiment_ids": [window.experiment]})
        assert [run["info"]["run_id"] for run in found.json()["runs"]] == [window.run]
        history = client.get(
            f"{read}/metrics/get-history", params={"run_id": window.run, "metric_key": "auc"}
        )
        assert [point["value"] for point in history.json()["metrics"]] == [0.75]
        models = client.get(f"{read}/registered-models/search").json()["registered_models"]
        assert [model["name"] for model in models] == ["model"]
        question = {
            "query": "query Run($data: MlflowGetRunInput!) "
            "{ mlflowGetRun(input: $data) { run { info { runId } } } }",
            "variables": {"data": {"runId": window.run}},
        }
        told = client.post("/graphql", json=question).json()["data"]["mlflowGetRun"]
        assert told["run"]["info"]["runId"] == window.run


def test_nobody_puts_a_file_where_airflow_runs_it(window: Window, tmp_path: Path) -> None:
    dags = tmp_path / "dags"
    dags.mkdir()
    body = {"name": "mine", "artifact_location": dags.as_uri()}
    with window.client() as nobody, window.client(window.password) as known:
        for one, refused in ((nobody, 401), (known, 403)):
            for prefix in ("/api", "/ajax-api"):
                made = one.post(f"{prefix}/2.0/mlflow/experiments/create", json=body)
                assert made.status_code == refused
            sent = one.post(
                "/ajax-api/2.0/mlflow/upload-artifact",
                params={"run_uuid": window.run, "path": "evil.py"},
                content=b"print('executed')",
            )
            assert sent.status_code == refused
    assert list(tmp_path.rglob("*.py")) == list(window.settings.home.rglob("*.py")) == []


def test_a_mutation_of_graphql_changes_nothing() -> None:
    """GraphQL is one route for questions and changes alike, so what can be changed is looked at."""
    from mlflow.server.graphql.graphql_schema_extensions import schema

    changes = schema.graphql_schema.mutation_type
    assert changes is not None
    # Two searches, and an echo of MLflow's own tests.
    assert set(changes.fields) == {"mlflowSearchDatasets", "mlflowSearchRuns", "testMutation"}


def test_the_password_is_that_of_the_file_and_in_no_log(window: Window) -> None:
    path = window.settings.home / "secrets" / PASSWORD
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == window.password
    assert window.password not in window.child.log.read_text()
    (changed,) = children(window.settings, ["mlflow"])
    assert changed.environment["MLFLOW_AUTH_ADMIN_PASSWORD"] == window.password


@pytest.mark.slow
def test_the_pages_of_experiment_run_and_model_open_in_a_browser(
    window: Window, tmp_path: Path
) -> None:
    """Each asks its questions by itself; what is not on the list would leave it empty."""
    experiment = f"{window.url}/#/experiments/{window.experiment}"
    with browser(tmp_path / "profile", (ADMIN, window.password)) as page:
        page.open(window.url)
        page.shows("shown")
        assert page.asked_for_login >= 1, "a browser asks for the login, and it is typed"
        for url, text in (
            (f"{experiment}/runs", "shown"),
            (f"{experiment}/runs/{window.run}", "auc"),
            (f"{window.url}/#/models/model", "Version 1"),
        ):
            page.open(url)
            page.shows(text)
    # What is not on the list answers 403: of what pages ask, only the form of its assistant and its
    # gateway, which are switched off. A page that is left while it asks may get other answers.
    refused = [url for status, url in page.refused if status == 403]
    off = ("/mlflow/assistant/", "/mlflow/gateway-proxy")
    assert [url for url in refused if not any(one in url for one in off)] == []
