"""Redis for tests: the one that runs here with keys of each test's own, or a server to break."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from include.clock import wait_for
from tests.builders.ports import free_port

URL = os.environ.get("EVERGREEN_TEST_REDIS", "redis://127.0.0.1:6379/0")


@contextmanager
def prefix() -> Iterator[str]:
    """Give a beginning of keys that nobody else has, and remove what was written under it."""
    client = redis.Redis.from_url(URL, socket_timeout=3)
    try:
        client.ping()
    except (redis.RedisError, OSError) as error:
        pytest.skip(f"Redis does not answer at {URL}; set EVERGREEN_TEST_REDIS ({error})")
    own = f"evergreen-test-{uuid.uuid4().hex[:12]}"
    try:
        yield own
    finally:
        for key in client.scan_iter(f"{own}:*", count=1000):
            client.unlink(key)
        client.close()


class Server:
    """A Redis of its own that can be stopped, killed and started again; it keeps nothing."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder, self._options = folder, options
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--appendonly", "no", "--dir", str(self._folder), *self._options],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        assert wait_for(self._answers, seconds=180, every=0.02)

    def send(self, number: int) -> None:
        """Send it a signal: SIGSTOP lets it hang, SIGCONT go on."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    @property
    def client(self) -> redis.Redis:
        """A client of it."""
        return redis.Redis.from_url(self.url, socket_timeout=30)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except (redis.RedisError, OSError):
            return False


@contextmanager
def own_server(folder: Path, *options: str) -> Iterator[Server]:
    """Run a Redis that belongs to one test."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed; a test that kills Redis needs one of its own")
    server = Server(folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.kill()
