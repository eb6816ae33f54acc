"""An HTTP server that answers in the place of Airflow's API, over a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from include.config.settings import Settings
from include.orchestration.airflow_login import ADMIN, password_file

Answer = tuple[int, Any]


class AirflowServer(ThreadingHTTPServer):
    """Answers by (method, path); what it was asked stands in `requests`, bodies in `bodies`.

    An answer is (status, body), or a function that makes it of the query's parameters.
    """

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answers: dict[tuple[str, str], Answer | Callable[[dict[str, str]], Answer]] = {
            ("POST", "/auth/token"): (201, {"access_token": "x"})
        }
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[Any] = []
        self.logins: list[Any] = []


class _Handler(BaseHTTPRequestHandler):
    server: AirflowServer

    def _answer(self) -> None:
        parts, length = urlsplit(self.path), int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.requests.append((self.command, parts.path))
        if body is not None:
            login = parts.path == "/auth/token"
            (self.server.logins if login else self.server.bodies).append(body)
        answer = self.server.answers.get((self.command, parts.path), (404, {"detail": "not found"}))
        if callable(answer):
            answer = answer({name: values[0] for name, values in parse_qs(parts.query).items()})
        status, content = answer[0], json.dumps(answer[1]).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = _answer

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def airflow_server(settings: Settings) -> Iterator[AirflowServer]:
    """Serve at the port of these settings, with a password where Airflow keeps it."""
    path = password_file(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({ADMIN: "secret"}))
    server = AirflowServer(settings.airflow_port)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run_row(dag_id: str, key: str | None, state: str = "running", **conf: str) -> dict[str, Any]:
    """Return a DAG run as Airflow's API tells it."""
    return {
        "dag_id": dag_id,
        "dag_run_id": f"{dag_id} {key}",
        "state": state,
        "run_type": "manual",
        "partition_key": key,
        "conf": conf,
        "start_date": "2026-01-02T00:00:00Z",
        "end_date": "2026-01-02T00:00:05Z" if state == "success" else None,
    }
