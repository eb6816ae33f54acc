"""What an installation consists of: its processes, and how each is asked whether it works."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import httpx

from include.config.settings import Settings
from include.installation.child import Child, Importance
from include.installation.environment import child_environment
from include.installation.mlflow_login import ADMIN, PASSWORD
from include.orchestration.airflow_api import AirflowApi
from include.processes import python_module

AIRFLOW = {
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "api-server": ["api-server"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
# Predictions need the node alone, and nothing needs MLflow's pages.
IMPORTANCE: dict[str, Importance] = {"node": "kept", "mlflow": "optional"}
# Seconds. Airflow's parts get more: a busy machine holds their heartbeats up, and a scheduler that
# is killed takes its tasks with it.
ANSWERS_WITHIN = {"node": 20.0, "mlflow": 120.0}
# For an answer of the node. While it ends, the question waits in its socket, and the next start
# waits for the question; one that is only slow is asked several times before it counts as hung.
NODE_SECONDS = 2.0
SERVICES = (*AIRFLOW, "mlflow", "node")


def children(settings: Settings, services: Sequence[str] = SERVICES) -> list[Child]:
    """Return the processes of an installation, not started."""
    airflow = AirflowApi(settings)
    commands = {name: python_module("airflow", *words) for name, words in AIRFLOW.items()}
    commands["mlflow"] = _mlflow_command(settings)
    commands["node"] = python_module("include", "serve")
    health = {name: _airflow_health(airflow, name.replace("-", "_")) for name in AIRFLOW}
    health["mlflow"] = _http_health(f"{settings.mlflow_url}/health")
    health["node"] = _http_health(f"{settings.node_url}/live", NODE_SECONDS)
    logs = settings.home / "logs"
    patience = {"triggerer": 1.0}  # seconds; it would wait for its triggers, which start again
    return [
        Child(
            name,
            commands[name],
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
    return [
        *python_module("mlflow", "server", "--workers", "1", "--app-name", "basic-auth"),
        *("--host", settings.host, "--port", str(settings.mlflow_port)),
        *(
            "--allowed-hosts",
            f"{settings.mlflow_url.removeprefix('http://')},localhost:{settings.mlflow_port}",
        ),
        *("--no-serve-artifacts", "--default-artifact-root", str(settings.home / "mlartifacts")),
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
    yield "Airflow", settings.airflow_url
    yield "MLflow", settings.mlflow_url
    yield "  its login", f"user {ADMIN}, password in {settings.home / 'secrets' / PASSWORD}"
    yield "serving node", f"{settings.node_url}/docs"
    yield "reports", str(settings.home / "reports")
    yield "logs", str(settings.home / "logs")
