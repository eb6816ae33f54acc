"""An HTTP server that takes alerts, or does not: slow, sick, or dripping, over a real socket."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydantic import SecretStr


class WebhookServer(ThreadingHTTPServer):
    """Keeps what it was sent, and answers by `statuses`: the next one, the last for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses = [204]
        self.wait = 0.0  # seconds before the answer
        self.may_answer = threading.Event()  # cleared by a test: no answer until it is set
        self.may_answer.set()
        self.drips = False  # a header every moment, and never an end
        self.taken: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    @property
    def url(self) -> SecretStr:
        """Its address, with a part that is a secret."""
        return SecretStr(f"http://127.0.0.1:{self.server_address[1]}/hooks/s3cret")


class _Handler(BaseHTTPRequestHandler):
    server: WebhookServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server = self.server
        server.taken.append(body)
        server.keys.append(self.headers["idempotency-key"])
        if server.drips:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for number in range(1000):
                self.wfile.write(b"x-%d: y\r\n" % number)
                time.sleep(0.05)
        time.sleep(server.wait)
        server.may_answer.wait()
        status = server.statuses.pop(0) if len(server.statuses) > 1 else server.statuses[0]
        self.send_response(status)
        if status == 302:
            self.send_header("location", "/elsewhere")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def webhook_server() -> Iterator[WebhookServer]:
    """Serve until the block ends."""
    server = WebhookServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.may_answer.set()
        server.shutdown()
        thread.join()
        server.server_close()
