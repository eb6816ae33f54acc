"""What an installation consists of: its processes, and how each is asked whether it works."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import httpx

from include.config.settings import Settings
from include.installation.child import Child, Importance
from include.installation.environment import child_environment
from include.installation.mlflow_login import ADMIN, PASSWORD
from include.orchestration.airflow_api import AirflowApi
from include.orchestration.queues import is_worker_alive
from include.processes import python_module

AIRFLOW = {
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "api-server": ["api-server"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
WORKER = "celery-worker"
# Predictions need the node alone, and nothing needs MLflow's pages.
IMPORTANCE: dict[str, Importance] = {"node": "kept", "mlflow": "optional"}
# Seconds. Airflow's parts get more: a busy machine holds their heartbeats up, and a scheduler that
# is killed takes its tasks with it.
ANSWERS_WITHIN = {"node": 20.0, "mlflow": 120.0}
# For an answer of the node. While it ends, the question waits in its socket, and the next start
# waits for the question; one that is only slow is asked several times before it counts as hung.
NODE_SECONDS = 2.0
SERVICES = (*AIRFLOW, "mlflow", "node")


def services_of(settings: Settings) -> tuple[str, ...]:
    """Return the names of the processes that make up an installation on one machine."""
    return (*SERVICES, WORKER) if settings.executor == "celery" else SERVICES


def command_of(settings: Settings, name: str) -> list[str]:
    """Return the command of one of the processes, by this very interpreter.

    It shows no secret.
    """
    if name == "mlflow":
        return _mlflow_command(settings)
    if name == "node":
        return python_module("include", "serve")
    if name == WORKER:
        return python_module(
            *("airflow", "celery", "worker", "--queues", settings.worker_queues),
            # Logs lie in a folder that the API server reads; its own key would have to be here.
            "--skip-serve-logs",
            # Workers need not know of each other: Airflow finds out who has died.
            *("--without-gossip", "--without-mingle"),
        )
    return python_module("airflow", *AIRFLOW[name])


def children(settings: Settings, services: Sequence[str] = ()) -> list[Child]:
    """Return the processes of an installation, or those of the given names, not started."""
    services = services or services_of(settings)
    airflow = AirflowApi(settings)
    health: dict[str, Callable[[], bool | None]] = {
        name: _airflow_health(airflow, name.replace("-", "_")) for name in AIRFLOW
    }
    health[WORKER] = lambda: is_worker_alive(settings)
    health["mlflow"] = _http_health(f"{settings.mlflow_url}/health")
    health["node"] = _http_health(f"{settings.node_url}/live", NODE_SECONDS)
    logs = settings.home / "logs"
    patience = {"triggerer": 1.0}  # seconds; it would wait for its triggers, which start again
    return [
        Child(
            name,
            command_of(settings, name),
            child_environment(settings, name),
            logs / f"{name}.log",
            health[name],
            patience.get(name, 5.0),
            IMPORTANCE.get(name, "needed"),
            ANSWERS_WITHIN.get(name, 300.0),
            log_bytes=round(settings.log_megabytes * 1e6),
            logs_kept=settings.log_files,
        )
        for name in services
    ]


def _mlflow_command(settings: Settings) -> list[str]:
    own = f"{settings.mlflow_url.removeprefix('http://')},localhost:{settings.mlflow_port}"
    return [
        *python_module("mlflow", "server", "--workers", "1", "--app-name", "basic-auth"),
        *("--host", settings.host, "--port", str(settings.mlflow_port)),
        *("--allowed-hosts", settings.mlflow_hosts or own),
        *("--no-serve-artifacts", "--default-artifact-root", f"{settings.store_root}/mlartifacts"),
    ]


def _airflow_health(airflow: AirflowApi, component: str) -> Callable[[], bool | None]:
    # The API server answers for all; of itself it says only that it reaches the database.
    name = "metadatabase" if component == "api_server" else component

    def healthy() -> bool | None:
        told = airflow.health()
        # A silent API server says nothing of the others.
        return told.get(name) == "healthy" if told or component == "api_server" else None

    return healthy


def _http_health(url: str, seconds: float = 5.0) -> Callable[[], bool]:
    def healthy() -> bool:
        try:
            return httpx.get(url, timeout=seconds, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    return healthy


def descriptions(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield what can be opened in a browser: name and address."""
    yield "Airflow", settings.airflow_pages
    yield "MLflow", settings.mlflow_url
    yield "  its login", f"user {ADMIN}, password in {settings.home / 'secrets' / PASSWORD}"
    yield "serving node", f"{settings.node_url}/docs"
    yield "reports", f"{settings.store_root}/reports"
    yield "logs", str(settings.home / "logs")
