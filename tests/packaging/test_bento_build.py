"""The build's child: what it waits for, what it asks, and that nothing it started outlives it.

That a Bento comes of it is in test_package_model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from include.config.settings import ROOT
from include.packaging import bento_build
from include.packaging.bento_build import BuildFailed, TooSlow, end_users


class Scorer(BaseHTTPRequestHandler):
    """A Bento's two routes."""

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/readyz" else 404, {})

    def do_POST(self) -> None:
        row = json.loads(self.rfile.read(int(self.headers["content-length"])))["features"]
        self._answer(200, {"score": row["x"] / 2})

    def _answer(self, status: int, content: dict[str, float]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Scorer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def process(code: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **environment})


def test_a_server_that_is_ready_is_asked_a_row(port: int, tmp_path: Path) -> None:
    server = process("import time; time.sleep(60)")
    try:
        bento_build._await_ready(server, port, tmp_path / "serve.log")
        assert bento_build._ask(port, {"x": 0.5}) == 0.25
    finally:
        server.kill()
        server.wait()


def test_a_server_that_ends_is_told_with_its_code_and_log(tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    log.write_text("no such model\n")
    server = process("raise SystemExit(3)")
    server.wait()
    with pytest.raises(BuildFailed, match=r"ended with code 3; its log ends with:\s+no such model"):
        bento_build._await_ready(server, 1, log)


def test_a_server_that_is_never_ready_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bento_build, "SERVE_SECONDS", 0.2)
    server = process("import time; time.sleep(60)")
    try:
        with pytest.raises(TooSlow, match=r"was not ready after 0 s"):
            bento_build._await_ready(server, bento_build._free_port(), tmp_path / "serve.log")
    finally:
        server.kill()
        server.wait()


def test_who_works_in_a_home_is_ended_and_nobody_else(tmp_path: Path) -> None:
    code = "import time; time.sleep(60)"
    inside = process(code, BENTOML_HOME=str(tmp_path / "home"))
    outside = process(code, BENTOML_HOME=str(tmp_path / "other"))
    try:
        end_users(tmp_path / "home")
        inside.wait(timeout=10)  # it has ended; psutil has taken its code
        assert outside.poll() is None
    finally:
        for left in (inside, outside):
            left.kill()
            left.wait()


def test_without_an_order_it_ends_and_says_why(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "include.packaging.bento_build"],
        cwd=ROOT,
        env={**os.environ, "BENTOML_HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.strip()) == (1, "no order was given")


def test_a_build_installs_nothing_where_there_is_no_uv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bentoml._internal.configuration import get_uv_command

    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("something is installed"))
    get_uv_command.cache_clear()
    bento_build._offer_uv(tmp_path / "bin")
    assert get_uv_command() == [str(tmp_path / "bin" / "uv")]
    get_uv_command.cache_clear()
