"""The containers of docker-compose.yaml as a project of their own, in a real engine."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from include.clock import wait_for
from include.config.settings import ROOT
from tests.builders.ports import free_ports

LATE = "503 store_away"
PORTS = ("AIRFLOW_PORT", "MLFLOW_PORT", "PREDICT_PORT", "PROMETHEUS_PORT")


def engine_missing() -> str:
    """Return why there is no engine to try containers in, '' if there is one."""
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "there is no docker on this machine"
    return "" if done.returncode == 0 else "no container engine answers (`docker info`)"


class Containers:
    """One project; every name, port, volume and secret is its own."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.secrets, self.usecases = folder / "secrets", folder / "usecases"
        self.usecases.mkdir(parents=True, exist_ok=True)
        self.backups = folder / "backups"
        self.backups.mkdir(exist_ok=True)
        self.backups.chmod(0o777)  # the image's user writes there
        ports = map(str, free_ports(len(PORTS)))
        self.variables = {
            "COMPOSE_PROJECT_NAME": f"evergreen-test-{secrets.token_hex(3)}",
            "SECRETS": str(self.secrets),
            "USECASES": str(self.usecases),
            "BACKUPS": str(self.backups),
            **dict(zip(PORTS, ports, strict=True)),
            **variables,
        }

    def script(self, step: str, **variables: str) -> str:
        """Run a step of deploy/compose.sh as a person would; return what it printed."""
        return self.run(["deploy/compose.sh", step], **variables)

    def compose(self, *words: str, check: bool = True) -> str:
        """Run a command of compose; return what it printed."""
        return self.run(["docker", "compose", "--profile", "*", *words], check=check)

    def command(self, *words: str, check: bool = True) -> str:
        """Run a command of Evergreen as an operator does."""
        return self.run(
            ["docker", "compose", "run", "--rm", "-T", "evergreen", "command", *words],
            check=check,
        )

    def owner(self, *words: str, mounts: tuple[str, ...] = ()) -> str:
        """Run a command of Evergreen with the rights of the records' owner."""
        options = [option for mount in mounts for option in ("-v", mount)]
        return self.compose("run", "--rm", "-T", *options, "owner", "command", *words)

    def inside(self, service: str, *words: str, check: bool = True) -> str:
        """Run something in a container that is up."""
        return self.compose("exec", "-T", service, *words, check=check)

    def python(self, service: str, code: str) -> str:
        """Run a few lines of Python in a container that is up."""
        return self.inside(service, "python", "-c", code, check=False)

    def secret(self, name: str) -> str:
        """Return the content of a secret file."""
        return (self.secrets / name).read_text().strip()

    def ids(self, service: str) -> list[str]:
        """Return the containers of a service that run."""
        return self.compose("ps", "-q", service).split()

    def kill(self, container: str) -> None:
        """End all processes of a container at once, as a loss of its machine would."""
        self.run(["docker", "kill", container])

    def address(self, service: str, port: int) -> str:
        """Return where a published port is reached."""
        return f"http://{self.compose('port', service, str(port)).strip()}"

    def states(self) -> dict[str, str]:
        """Return the state of each service, such as `running (healthy)`."""
        rows = self.compose("ps", "-a", "--format", "json").splitlines()
        return {
            row["Service"]: f"{row['State']} ({row['Health']})" if row["Health"] else row["State"]
            for row in map(json.loads, rows)
        }

    def query(self, service: str, sql: str, database: str = "") -> str:
        """Return the rows that a database's superuser reads, as text."""
        user = "airflow" if service == "airflow-postgres" else "postgres"
        name = database or ("airflow" if service == "airflow-postgres" else "evergreen")
        return self.inside(service, "psql", "-U", user, "-d", name, "-Atc", sql).strip()

    def until(self, answer: Callable[[], Any], what: str, seconds: float) -> Any:
        """Wait for an answer, and fail with what the containers said where none comes."""
        found = wait_for(lambda: answer() or None, seconds=seconds, every=1.0)
        assert found, f"no {what} in {seconds:.0f} s\n{self.compose('logs', '--tail', '30')}"
        return found

    def down(self) -> None:
        """End and remove everything of this project, and of its data."""
        self.compose("down", "-v", "--remove-orphans", "-t", "5", check=False)

    def run(self, words: list[str], *, check: bool = True, **variables: str) -> str:
        done = subprocess.run(
            words,
            cwd=ROOT,
            env={**os.environ, **self.variables, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout if check else done.stdout + done.stderr


class Load:
    """Callers that ask for predictions, and what came of it.

    `pause` is how many seconds each waits after an answer. Without one they take what the machine
    has, and a model that is asked in a process of its own is late for that alone.
    """

    def __init__(
        self, address: str, token: str, use_case: str, bodies: list[bytes], pause: float = 0.0
    ) -> None:
        self._host = urlsplit(address).netloc
        self._path, self._bodies = f"/v1/{use_case}/predict", bodies
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self._pause, self._ends = pause, threading.Event()
        self.came: Counter[str] = Counter()
        self.slowest = 0.0

    @property
    def failed(self) -> dict[str, int]:
        """What was answered other than by a prediction, by status and code of the error."""
        return {what: count for what, count in self.came.items() if what != "200"}

    @property
    def lost(self) -> dict[str, int]:
        """What failed, but for requests by entity whose features came too late.

        On a host that is busy with other things an answer of Redis misses its 20 ms now and then.
        The node then refuses, as `fallback.store` says, and nothing is lost.
        """
        return {what: count for what, count in self.failed.items() if what != LATE}

    def ask(self) -> None:
        """Ask until the end, over one connection as long as it lasts."""
        connection = http.client.HTTPConnection(self._host, timeout=30)
        at = 0
        while not self._ends.is_set():
            began = time.monotonic()
            try:
                connection.request(
                    "POST", self._path, self._bodies[at % len(self._bodies)], self._headers
                )
                answer = connection.getresponse()
                body = answer.read()
                came = str(answer.status)
                if came != "200":
                    code = re.search(rb'"code": ?"(\w+)"', body)
                    came += f" {code[1].decode()}" if code else ""
            except (OSError, http.client.HTTPException) as error:
                came = type(error).__name__
                connection.close()
            self.came[came] += 1
            self.slowest = max(self.slowest, time.monotonic() - began)
            at += 1
            if self._pause:
                self._ends.wait(self._pause)
        connection.close()

    @contextmanager
    def running(self, callers: int = 4) -> Iterator[Load]:
        """Load while the block runs."""
        threads = [threading.Thread(target=self.ask) for _ in range(callers)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._ends.set()
            for thread in threads:
                thread.join()
