"""Examine the servers of this installation as this machine reaches them: Airflow and the node."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

import psutil

from include.config.settings import Settings
from include.config.tokens import read_tokens
from include.doctor.findings import Finding, Patient, Subject, first_line
from include.errors import ConfigError
from include.orchestration.airflow_login import ROLES, password_file


def examine_airflow(patient: Patient) -> Iterator[Finding]:
    """Ask Airflow's API server for its version and the health of its parts."""
    import httpx

    subject, url = Subject("Airflow"), patient.settings.airflow_url
    try:
        version = _get(f"{url}/api/v2/version", patient)
        health = _get(f"{url}/api/v2/monitor/health", patient)
    except (httpx.HTTPError, ValueError) as error:
        reason = f"{url}: {first_line(error)}"
        yield subject.warn("reachable", reason, "`make run` starts it (compose: the API server)")
        return
    yield subject.ok("reachable", f"Airflow {version.get('version')} at {url}")
    for part, told in sorted(health.items()):
        status = told.get("status") if isinstance(told, dict) else None
        if status == "healthy":
            yield subject.ok(part, "healthy")
        elif status is not None:
            yield subject.fail(part, str(status), f"look at the log of its process ({part})")
    if patient.settings.airflow_auth == "fab":
        yield subject.ok("users", f"{', '.join(ROLES)}, each with the role of this name")
    elif password_file(patient.settings).exists():
        yield subject.ok("users", "one, `evergreen password` shows its password")


def examine_serving(patient: Patient) -> Iterator[Finding]:
    """Ask each node of these settings, and look at who may reach and use this machine's."""
    subject, settings = Subject("serving"), patient.settings
    for url in settings.node_addresses:
        yield from _node(subject, url, patient)
    yield from _doors(subject, settings)
    yield from _tokens(subject, settings)


def _node(subject: Subject, url: str, patient: Patient) -> Iterator[Finding]:
    import httpx

    try:
        health = _get(f"{url}/health", patient, token=_own_token(patient.settings))
    except (httpx.HTTPError, ValueError) as error:
        reason = f"{url}: {first_line(error)}"
        yield subject.warn("reachable", reason, "`make run` or `evergreen serve` starts it")
        return
    yield _health(subject, url, health)
    for name, told in health.get("use_cases", {}).items():
        for problem in told.get("problems", []):
            yield subject.warn(name, str(problem), "see the node's log, and `evergreen status`")


def _health(subject: Subject, url: str, health: dict[str, Any]) -> Finding:
    serves = [
        f"{name} by model {told['model_version']}"
        for name, told in health.get("use_cases", {}).items()
        if told.get("model_version") is not None
    ]
    found = f"node at {url}, {health.get('status')}: {', '.join(serves) or 'nothing to serve'}"
    if health.get("status") == "ok":
        return subject.ok("reachable", found)
    remedy = "its records cannot be followed: mend them, it goes on with the rows of the last time"
    return subject.warn("reachable", found, remedy)


def _doors(subject: Subject, settings: Settings) -> Iterator[Finding]:
    """Yield what listens on the ports of the settings where others than this machine reach it."""
    ports = {settings.airflow_port, settings.mlflow_port, settings.node_port}
    try:
        heard = {
            (str(one.laddr[0]), int(one.laddr[1]))
            for one in psutil.net_connections("tcp")
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr[1] in ports
        }
    except (psutil.Error, OSError):  # other systems tell only root
        return
    opened = [f"{ip}:{port}" for ip, port in sorted(heard) if not _is_loopback(ip)]
    if not opened:
        yield subject.ok("ports", "no port is open to other machines")
    elif settings.is_public:
        yield subject.warn(
            "ports",
            f"open to other machines: {', '.join(opened)}",
            "put a proxy with TLS before them; passwords and tokens pass unencrypted else",
        )
    else:
        yield subject.fail(
            "ports",
            f"open to other machines, though EVERGREEN_HOST is {settings.host}: "
            f"{', '.join(opened)}",
            "find out who listens there (`ss -ltnp`), and end it",
        )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _tokens(subject: Subject, settings: Settings) -> Iterator[Finding]:
    if settings.is_public and settings.predict == "open":
        yield subject.warn(
            "tokens",
            "whoever reaches the node gets predictions without a token",
            "leave EVERGREEN_PREDICT out, and give each caller `evergreen token NAME`",
        )
    if _own_token(settings) is None:
        yield subject.ok("tokens", "none is made yet")
        return
    try:
        tokens = read_tokens(settings)
    except ConfigError as error:
        text, _, remedy = str(error).partition("; ")
        yield subject.fail("tokens", text, remedy or "mend that line")
        return
    names = sorted({token.name for token in tokens})
    yield subject.ok("tokens", f"{len(tokens)}: {', '.join(names[:8])}")


def _own_token(settings: Settings) -> str | None:
    """Return the installation's token of the node, and make none."""
    is_given = bool(settings.node_token.get_secret_value())
    if not is_given and not settings.secret_path("node_token").exists():
        return None
    try:
        return settings.node_secret.get_secret_value()
    except ConfigError:
        return None


def _get(url: str, patient: Patient, *, token: str | None = None) -> dict[str, Any]:
    import httpx

    headers = {"authorization": f"Bearer {token}"} if token else {}
    answer = httpx.get(url, headers=headers, timeout=max(1.0, patient.seconds / 3), trust_env=False)
    answer.raise_for_status()
    told = answer.json()
    if not isinstance(told, dict):
        raise ValueError(f"{url} is another program's: it answers no object")
    return told
