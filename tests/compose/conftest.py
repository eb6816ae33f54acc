"""All of docker-compose.yaml in a real engine, once for every test of this folder."""

from __future__ import annotations

import ipaddress
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from include.clock import utc_now
from tests.builders.containers import Containers, engine_missing
from tests.builders.object_stores import make_bucket, s3_server
from tests.e2e.conftest import DAYS, YAML, write_data

USE_CASE = "visits"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and skip those that need an engine where there is none."""
    here = Path(__file__).parent
    mine = [item for item in items if item.path.is_relative_to(here)]
    missing = engine_missing() if mine else ""
    for item in mine:
        item.add_marker(pytest.mark.engine)
        if missing:
            item.add_marker(pytest.mark.skip(reason=missing))


class Stack(Containers):
    """The containers with one small use case of CSV files, which has its first release."""

    def __init__(self, folder: Path, **variables: str) -> None:
        super().__init__(folder, **variables)
        # Kept, for the tests may run over midnight: the day that ends meanwhile has no rows.
        self.today = utc_now().date()

    def write(self, *, back: int) -> str:
        """Write the use case so that its newest partition is so many days ago; return its key."""
        newest = self.today - timedelta(days=back)
        first = self.today - timedelta(days=DAYS)
        text = YAML.format(name=USE_CASE, history=f"{{first: {first}, last: {newest}}}")
        (self.usecases / f"{USE_CASE}.yaml").write_text(text)
        return newest.isoformat()

    def ask(self, address: str = "", *, token: str = "", entity: int = 1) -> httpx.Response:
        """Ask for a prediction, by default through the balancer as a caller."""
        token = token or self.secret("caller_token")
        return httpx.post(
            f"{address or self.address('balancer', 8600)}/v1/{USE_CASE}/predict",
            json={"entity": entity},
            headers={"authorization": f"Bearer {token}"},
            timeout=20,
        )

    def node(self, name: str) -> str:
        """Return the address of a node past the balancer, as this machine reaches containers."""
        (container,) = self.ids(name)
        form = "{{range $n, $c := .NetworkSettings.Networks}}{{$n}}={{$c.IPAddress}} {{end}}"
        words = ["docker", "inspect", "-f", form, container]
        found = dict(part.split("=") for part in self.run(words).split())
        (address,) = (ip for network, ip in found.items() if network.endswith("_outside"))
        return f"http://{address}:8600"

    def hosts(self) -> set[str]:
        """Return the containers in which tasks of the use case have succeeded, as 12 characters."""
        sql = (
            f"select distinct hostname from task_instance where dag_id like '{USE_CASE}\\_\\_%'"
            # What looks after Airflow's own database runs beside the scheduler, which has it.
            " and state = 'success' and hostname <> '' and task_id <> 'trim_airflow'"
        )
        return set(self.query("airflow-postgres", sql).split())

    def versions(self) -> dict[str, int]:
        """Return the model by which each node answers."""
        return {name: int(self.ask(self.node(name)).json()["model_version"])
                for name in ("node-1", "node-2")}  # fmt: skip


def bridge() -> str:
    """Return this machine's address on the engine's own network, which no other machine reaches."""
    form = "{{range .IPAM.Config}}{{.Subnet}} {{end}}"
    words = ["docker", "network", "inspect", "bridge", "-f", form]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return str(next(ipaddress.ip_network(done.stdout.split()[0]).hosts()))


@contextmanager
def store_of(folder: Path) -> Iterator[dict[str, str]]:
    """Give the variables of the store: the volume, or S3 with EVERGREEN_COMPOSE_STORE=s3."""
    if os.environ.get("EVERGREEN_COMPOSE_STORE") != "s3":
        yield {}
        return
    with s3_server(bridge()) as endpoint:
        bucket = make_bucket(endpoint)
        (folder / "secrets").mkdir()
        lines = {**bucket.environment, "AWS_ALLOW_HTTP": "true"}
        own = folder / "secrets" / "store.env"
        own.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        own.chmod(0o444)
        yield {
            "STORE_URI": bucket.uri,
            "LAKE_URI": f"{bucket.uri}/lake",
            "SEGMENTS_URI": f"{bucket.uri}/segments",
        }


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everything, up and healthy; two Celery workers."""
    folder = tmp_path_factory.mktemp("compose")
    with store_of(folder) as store:
        stack = Stack(folder, WORKERS="2", PARALLELISM="4", WORKER_GRACE="30s", **store)
        write_data(stack.usecases / "data", stack.today - timedelta(days=1))
        stack.write(back=2)
        try:
            for step in ("build", "secrets", "up"):
                stack.script(step)
            yield stack
        finally:
            stack.down()
