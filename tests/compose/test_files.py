"""The files of the containers as the engine reads them; nothing is started."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from include.clock import wait_for
from include.config.settings import ROOT, Settings
from include.installation import container
from include.installation.environment import child_environment
from tests.builders.ports import free_port


def config(*words: str) -> dict[str, Any]:
    """Return what compose makes of the file, of every profile."""
    done = subprocess.run(
        ["docker", "compose", "--profile", "*", *words, "config", "--format", "json"],
        cwd=ROOT,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp"},
        capture_output=True,
        text=True,
        check=True,
    )
    read: dict[str, Any] = json.loads(done.stdout)
    return read


def test_the_example_of_settings_says_what_holds_without_it() -> None:
    assert config("--env-file", ".env.example") == config("--env-file", "/dev/null")


def test_every_setting_of_the_file_stands_in_the_example() -> None:
    text = (ROOT / "docker-compose.yaml").read_text()
    used = set(re.findall(r"\$\{(\w+)", text))
    told = set(re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert used == told


def test_everything_is_published_on_the_loopback_and_bounded() -> None:
    services = config("--env-file", "/dev/null")["services"]
    for name, service in services.items():
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
        assert int(service["deploy"]["resources"]["limits"]["memory"]) > 0, name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["logging"]["options"]["max-size"], name


def test_who_packages_has_the_key_that_signs_and_nodes_have_public_ones_to_read() -> None:
    services = config("--env-file", "/dev/null")["services"]
    holders = {
        name
        for name, service in services.items()
        if any(secret["source"] == "signing_key" for secret in service.get("secrets", []))
    }
    assert holders == {"init", "worker"}
    folder = services["worker"]["environment"]["EVERGREEN_SIGNING_KEYS"]
    written = {
        name
        for name, service in services.items()
        for mount in service.get("volumes", [])
        if mount["target"] == folder and not mount.get("read_only")
    }
    assert written == {"evergreen", "owner"}
    for name in ("node-1", "node-2", "worker"):
        assert any(mount["target"] == folder for mount in services[name]["volumes"]), name
    whole = ROOT / "secrets"  # where the private one lies beside all others
    assert {
        name
        for name, service in services.items()
        for mount in service.get("volumes", [])
        if mount["source"] == str(whole)
    } == {"secrets"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "deploy").rglob("*.json")), ids=lambda path: path.name
)
def test_a_dashboard_asks_for_series_that_there_are(path: Path) -> None:
    from include.serving.prometheus import Metrics

    board = json.loads(path.read_text())
    asked = " ".join(
        target["expr"] for panel in board["panels"] for target in panel.get("targets", [])
    )
    known = {family.name for family in Metrics().registry.collect()}
    names = set(re.findall(r"evergreen_[a-z_]+", asked))
    assert names
    unknown = {
        name for name in names if re.sub(r"_(total|bucket|count|sum)$", "", name) not in known
    }
    assert unknown == set()


AIRFLOW_PARTS = {
    "api-server": set(),
    "scheduler": set(),
    "dag-processor": set(),
    # They ask Airflow's API which runs there are, as this user.
    "triggerer": {"evergreen_airflow_op"},
    "worker": {"evergreen_airflow_op"},
}


@pytest.mark.parametrize("service", sorted(AIRFLOW_PARTS))
def test_a_part_of_airflow_has_no_secret_of_airflows_that_it_does_not_use(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = config("--env-file", "/dev/null")["services"][service]
    values = {}
    for secret in described["secrets"]:
        name = secret["target"]
        values[name] = f"secret-of-{name}-{'x' * 40}"
        if name.endswith("broker_url"):
            values[name] = f"redis://:{values[name]}@redis-broker:6379/0"
        elif name.endswith("_url"):
            values[name] = f"postgresql://user:{values[name]}@postgres:5432/database"
        if name not in container.VARIABLES:
            (tmp_path / name).write_text(values[name])
    for name, value in described["environment"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EVERGREEN_SECRETS_DIR", str(tmp_path))
    given = " ".join(
        child_environment(
            Settings(), container.SERVICES[service], described["environment"]
        ).values()
    )
    unused = {
        name
        for name, value in values.items()
        if name.startswith(("evergreen_airflow", "evergreen_broker"))
        and re.search("secret-of-.*-x+", value)[0] not in given  # type: ignore[index]
    }
    assert unused == AIRFLOW_PARTS[service]


@pytest.fixture(scope="module")
def balancer() -> Iterator[str]:
    """The address of a balancer whose nodes are all away: what it hands on, it answers by 503."""
    port = free_port()
    image = config("--env-file", "/dev/null")["services"]["balancer"]["image"]
    done = subprocess.run(
        ["docker", "run", "-d", "--rm", "--pull", "never", "-p", f"127.0.0.1:{port}:8600", "-v",
         f"{ROOT}/deploy/haproxy/haproxy.cfg:/usr/local/etc/haproxy/haproxy.cfg:ro", image],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"no image of the balancer: {done.stderr.strip()[-100:]}")
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{address}/balancer").is_success
        except httpx.HTTPError:
            return False

    try:
        assert wait_for(answers, seconds=20, every=0.1), "the balancer does not answer"
        yield address
    finally:
        subprocess.run(["docker", "rm", "-f", done.stdout.strip()], capture_output=True, check=True)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/loans/predict", 503),
        ("/v1/loans/rollback", 404),
        ("/v1/loans/rollbac%6b", 404),
        ("/v1/loans/rollback/", 404),
        ("/v1/loans%2frollback", 404),
        ("/metrics", 404),
        ("/metrics//", 404),
        ("/metrics?all", 404),
        ("/v1/my_metrics", 503),
    ],
)
def test_what_is_asked_of_one_node_does_not_pass_the_balancer(
    balancer: str, path: str, status: int
) -> None:
    with socket.create_connection(urlsplit(balancer).netloc.split(":")) as asked:  # as it is
        asked.sendall(f"GET {path} HTTP/1.1\r\nhost: it\r\nconnection: close\r\n\r\n".encode())
        answer = asked.makefile("rb").readline()
    assert answer.split()[1] == str(status).encode()
