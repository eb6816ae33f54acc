"""Threads that ask a node without a pause, and keep what it answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.builders.serving import NAME, ROW


@dataclass
class Asking:
    """Threads that ask by entity and by row, each on a connection that it keeps."""

    port: int
    stop: threading.Event = field(default_factory=threading.Event)
    answered: list[int] = field(default_factory=list)  # the version
    failed: list[str] = field(default_factory=list)

    def ask(self, body: bytes) -> None:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"content-type": "application/json"}
        while not self.stop.wait(0.005):
            try:
                client.request("POST", f"/v1/{NAME}/predict", body, headers)
                response = client.getresponse()
                content = json.loads(response.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failed.append(repr(error))
                client.close()
                continue
            if response.status == 200:
                self.answered.append(content["model_version"])
            else:
                self.failed.append(f"{response.status} {content}")


@contextlib.contextmanager
def asking(port: int) -> Iterator[Asking]:
    """Ask until the block ends."""
    load = Asking(port)
    bodies = [json.dumps(body).encode() for body in ({"entity": 1}, {"features": ROW})]
    threads = [threading.Thread(target=load.ask, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stop.set()
        for thread in threads:
            thread.join()
