"""A store that fails: a proxy before a real one that delays, cuts connections and answers 503.

It runs in a process of its own (`python -m tests.builders.faulty_proxy PORT TARGET`), since a
client in native code may keep the interpreter while it waits for an answer.
"""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from include.clock import wait_for
from tests.builders.ports import free_port

RULES = "/.faults"
HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "server", "date"}


class Proxy:
    """The test's side: which requests fail, and how."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def fail(self, *rules: dict[str, Any]) -> None:
        """Replace the rules; the first one that fits a request is applied.

        A rule has `do`: `cut` the connection before it is passed on; `lose` its answer, after it
        was; `status` answers that code with `body`; `half` cuts the answer in its middle; `delay`
        by `seconds`; `hold` until `release`. `method` and `path` are patterns; `times` says how
        often, else always.
        """
        self._ask("POST", json.dumps(rules).encode())

    def release(self) -> None:
        """Pass on what is held, and all that comes."""
        self.fail()

    def counts(self) -> list[int]:
        """Return how often each rule was applied."""
        counts: list[int] = json.loads(self._ask("GET"))
        return counts

    def _ask(self, method: str, body: bytes | None = None) -> bytes:
        asked = urllib.request.Request(self.url + RULES, body, method=method)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return bytes(answer.read())


@contextmanager
def faulty_proxy(target: str) -> Iterator[Proxy]:
    """Run a proxy before a server."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.builders.faulty_proxy", str(port), target],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.DEVNULL,
    )
    proxy = Proxy(port)

    def answers() -> bool:
        try:
            return proxy.counts() == []
        except OSError:
            return False

    try:
        assert wait_for(answers, seconds=120, every=0.05)
        yield proxy
    finally:
        process.kill()
        process.wait()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target = ""
    rules: list[dict[str, Any]] = []  # noqa: RUF012 - the process serves one test

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        body = self._body()
        if self.path == RULES:
            if self.command == "POST":
                type(self).rules = [{**rule, "count": 0} for rule in json.loads(body)]
            self._answer(200, [], json.dumps([rule["count"] for rule in self.rules]).encode())
            return
        rule = self._rule()
        do = rule.get("do")
        if do == "cut":
            self.close_connection = True
            return
        if do == "delay":
            time.sleep(rule["seconds"])
        while do == "hold" and rule in self.rules:
            time.sleep(0.01)
        if do == "status":
            self._answer(rule["status"], [], rule.get("body", "").encode())
            return
        status, headers, content = self._forward(body)
        if do == "lose":
            self.close_connection = True
            return
        self._answer(status, headers, content, half=do == "half")

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _rule(self) -> dict[str, Any]:
        for rule in self.rules:
            if rule["count"] >= rule.get("times", 1 << 30):
                continue
            if re.fullmatch(rule.get("method", ".*"), self.command) and re.search(
                rule.get("path", ""), self.path
            ):
                rule["count"] += 1
                return rule
        return {}

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        host = urlsplit(self.target).netloc
        link = http.client.HTTPConnection(host, timeout=60)
        try:
            sent = {
                name: value
                for name, value in self.headers.items()
                if name.lower() not in ("transfer-encoding", "content-length", "connection")
            }
            # Moto goes by what the client has named; the length is that of what is passed on.
            link.request(self.command, self.path, body, {**sent, "Content-Length": str(len(body))})
            answer = link.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            link.close()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, *, half: bool = False
    ) -> None:
        self.send_response_only(status)
        given = {name.lower(): value for name, value in headers}
        for name, value in headers:
            if name.lower() not in HOP:
                self.send_header(name, value)
        # Of a HEAD the length is that of what it would have held.
        length = given.get("content-length", "0") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if half else content)
        if half:
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve


if __name__ == "__main__":
    _Handler.target = sys.argv[2]
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()
