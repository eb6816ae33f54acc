"""The processes of an installation: no secret in their commands, health asked over HTTP."""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from include.config.settings import Settings
from include.installation import services
from tests.builders.ports import free_port


def test_every_process_runs_by_this_python_and_shows_no_secret(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, mlflow_uri="postgresql://u:hunter2@db/mlflow")
    children = services.children(settings)
    assert [child.name for child in children] == [*services.SERVICES]
    for child in children:
        assert child.command[:2] == [sys.executable, "-m"]
        assert "hunter2" not in " ".join(child.command), "`ps` shows arguments"
        assert child.log == tmp_path / "logs" / f"{child.name}.log"
    mlflow = next(child for child in children if child.name == "mlflow")
    assert "hunter2" in mlflow.environment["MLFLOW_BACKEND_STORE_URI"]
    assert [child.name for child in services.children(settings, ["node"])] == ["node"]


def test_a_process_is_healthy_when_it_answers(tmp_path: Path) -> None:
    port, status = free_port(), [200]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0] if self.path == "/live" else 404)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    (node,) = services.children(Settings(home=tmp_path, node_port=port), ["node"])
    assert not node.healthy(), "nothing listens"
    server = HTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert node.healthy()
        status[0] = 503
        assert not node.healthy()
    finally:
        server.shutdown()
        server.server_close()


def test_addresses_are_those_of_the_settings(tmp_path: Path) -> None:
    addresses = dict(services.descriptions(Settings(home=tmp_path, airflow_port=1, node_port=2)))
    assert addresses["Airflow"] == "http://127.0.0.1:1"
    assert addresses["serving node"] == "http://127.0.0.1:2/docs"
    login = "user admin, password in " + str(tmp_path / "secrets" / "mlflow_admin")
    assert addresses["  its login"] == login
    assert addresses["reports"] == str(tmp_path / "reports")
