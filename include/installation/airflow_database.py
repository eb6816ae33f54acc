"""Set up Airflow's own database: its tables, and the pools, roles and users that ours has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from include import processes
from include.config.settings import Settings
from include.errors import Unavailable
from include.installation.environment import child_environment

PART = "airflow-init"
SHOWN = 8  # last lines of a failed command


def set_up(settings: Settings, *, say: Callable[[str], None]) -> None:
    """Bring Airflow's database to this version, and make what the settings ask for.

    It may be repeated.

    Raises:
        Unavailable: Airflow's command fails; the message ends with what it printed.
        ConfigError: a secret is missing.
    """
    say("  setting up Airflow's database")
    (settings.home / "airflow").mkdir(parents=True, exist_ok=True)
    _run(settings, processes.python_module("airflow", "db", "migrate"))
    if settings.executor == "celery" or settings.airflow_auth == "fab":
        say("  setting up Airflow's pools, roles and users")
        _run(settings, processes.python_module("include.orchestration.airflow_init"))


def _run(settings: Settings, command: Sequence[str]) -> None:
    done = processes.run(
        command,
        environment=child_environment(settings, PART),
        folder=Path("/"),
        own_session=True,  # Ctrl-C in the middle would leave half a database
    )
    if done.returncode:
        printed = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()
        lines = "\n".join(f"  {line}" for line in printed[-SHOWN:])
        given = settings.airflow_database_url.get_secret_value()
        place = "EVERGREEN_AIRFLOW_DATABASE_URL" if given else str(settings.home / "airflow")
        raise Unavailable(f"Airflow's database in {place} could not be set up:\n{lines}")
