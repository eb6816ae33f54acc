"""The environment of the processes that an installation starts, built explicitly.

What the caller's shell happens to hold (PYTHONPATH, TZ, locale, proxies for loopback, Airflow or
MLflow settings of another project, PYTHONDONTWRITEBYTECODE) changes nothing in a run, and no
process holds a secret that another one needs.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from include.config.no_telemetry import QUIET
from include.config.settings import ROOT, Settings
from include.config.use_case_file import files
from include.errors import ConfigError
from include.files import written_aside
from include.installation.mlflow_login import login_variables
from include.orchestration.airflow_api import ADMIN, password_file
from include.processes import bare_environment

PASSWORD_LENGTH = 16  # characters; people type this one
MARK = "EVERGREEN_INSTALLATION"  # a variable of every child: to which home folder it belongs
TASKS = ("scheduler", "triggerer", "dag-processor")
"""Airflow's parts that run code of ours; the API server does not."""
DATABASES = ("PG",)  # how libpq reaches a database: certificates, password files
SOURCES = (*DATABASES, "AWS_", "AZURE_", "GOOGLE_", "FSSPEC_", "KRB5", "REQUESTS_CA_BUNDLE")
"""Beginnings of variables by which tasks reach sources and stores."""
PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
_URL_NAME = re.compile(r"\burl_env\s*:\s*[\"']?([A-Za-z_]\w*)")


def child_environment(
    settings: Settings, name: str = "scheduler", outer: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the whole environment of one of the installation's processes.

    It holds the secrets that this process needs, and no other; never log it. `outer` is the
    environment that it is taken from, by default that of this process.

    Raises:
        ConfigError: a secret is too short.
    """
    outer = os.environ if outer is None else outer
    if name == "node":
        own = _named(outer, DATABASES) | _settings(
            settings, {"records_url", "node_tokens", "online_url", "entity_key"}
        )
        if "://" in settings.segments_uri:  # a store that it ships segments to
            own |= _named(outer, SOURCES)
        own["EVERGREEN_NODE_TOKEN"] = settings.node_secret.get_secret_value()
    elif name == "mlflow":
        # As a variable and no argument: the address may hold a password, which `ps` would show.
        own = {"MLFLOW_BACKEND_STORE_URI": settings.mlflow_address, **login_variables(settings)}
        own |= _named(outer, DATABASES)
    elif name in TASKS:
        own = _of_sources(settings, outer) | _settings(
            settings, {"records_url", "mlflow_uri", "online_url"}
        )
        own |= _airflow(settings) | {"MLFLOW_TRACKING_URI": settings.mlflow_address}
    else:
        own = _settings(settings, set()) | _airflow(settings)
    loopback = ",".join(dict.fromkeys(["127.0.0.1", "localhost", "::1", settings.host]))
    bare = bare_environment(outer)
    return {
        **bare,
        **QUIET,
        **own,
        MARK: str(settings.home),
        "BENTOML_HOME": str(settings.home / "bento"),
        "NO_PROXY": loopback,
        "no_proxy": loopback,
        "OMP_WAIT_POLICY": "passive",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{bare.get('PATH', os.defpath)}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'include/orchestration/airflow_home'}",
        "PYTHONUNBUFFERED": "1",
    }


def _named(outer: Mapping[str, str], beginnings: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in outer.items() if name.startswith(beginnings)}


def _of_sources(settings: Settings, outer: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which tasks reach sources: what use cases name, stores, proxies.

    The names stand in the text of the files: a file that is wrong today may be mended while the
    installation runs.
    """
    wanted = {
        name
        for path in files(settings.usecase_dirs)
        for name in _URL_NAME.findall(path.read_text(encoding="utf-8", errors="replace"))
        if not name.startswith(("EVERGREEN_", "AIRFLOW"))
    }
    return _named(outer, SOURCES) | {
        name: value for name, value in outer.items() if name in wanted or name.lower() in PROXIES
    }


def ensure_password(settings: Settings) -> str | None:
    """Make the password of Airflow's administrator; return it, or None where there was one.

    Raises:
        ConfigError: the file holds none, or one that can be guessed; Airflow would make up its own
            and print it in a log.
    """
    path = password_file(settings)
    if path.exists():
        try:
            known = str(json.loads(path.read_text(encoding="utf-8"))[ADMIN])
        except (OSError, ValueError, KeyError, TypeError):
            known = ""
        if len(known) < PASSWORD_LENGTH:
            raise ConfigError(
                f"{path} holds no password of {ADMIN!r} of {PASSWORD_LENGTH} characters or more. "
                "Put the old file back from a backup, or delete it: the next start makes another "
                "password and shows it"
            )
        return None
    password = secrets.token_urlsafe(12)
    settings.make_home()
    path.parent.mkdir(exist_ok=True, mode=0o700)
    # Durable: what a loss of power left empty would be refused at the next start.
    with written_aside(path, mode=0o600, durable=True) as temporary:
        temporary.write_text(json.dumps({ADMIN: password}), encoding="utf-8")
    return password


def _settings(settings: Settings, secret: set[str]) -> dict[str, str]:
    """Return the settings as variables, so that a child reads what its parent has read.

    Of those that hold secrets, only the named ones.
    """
    values = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            text = value.get_secret_value() if name in secret else ""
        else:
            text = "" if value is None else str(value)
        if text and name != "node_listener":  # a descriptor means nothing to another process
            values[f"EVERGREEN_{name.upper()}"] = text
    return values


def _airflow(settings: Settings) -> dict[str, str]:
    """Return Airflow's configuration as variables; there is no airflow.cfg to go out of date."""
    home = settings.home / "airflow"
    options: dict[str, dict[str, object]] = {
        "core": {
            "dags_folder": ROOT / "dags",
            "plugins_folder": ROOT / "plugins",
            "load_examples": False,
            "executor": "LocalExecutor",
            "parallelism": settings.parallelism,
            "default_timezone": "utc",
            "execution_api_server_url": f"{settings.airflow_url}/execution/",
            # A generated secret is 32 bytes in unpadded base64, a Fernet key the same, padded.
            "fernet_key": settings.secret("airflow_fernet").get_secret_value() + "=",
            "simple_auth_manager_users": f"{ADMIN}:admin",
            "simple_auth_manager_passwords_file": password_file(settings),
        },
        "database": {"sql_alchemy_conn": f"sqlite:///{home / 'airflow.db'}"},
        "api": {
            "host": settings.host,
            "port": settings.airflow_port,
            "base_url": settings.airflow_url,
            "secret_key": settings.secret("airflow_session").get_secret_value(),
            "workers": 1,
        },
        "api_auth": {"jwt_secret": settings.secret("airflow_jwt").get_secret_value()},
        "logging": {"base_log_folder": settings.home / "logs" / "airflow", "logging_level": "INFO"},
        "scheduler": {
            # Seconds. Airflow's own (1, 300, 300) let a killed task be noticed after minutes.
            "scheduler_idle_sleep_time": 0.5,
            "task_instance_heartbeat_timeout": 60,
            "orphaned_tasks_check_interval": 30,
        },
        "dag_processor": {"parsing_processes": 1, "refresh_interval": 5},
    }
    variables = {
        f"AIRFLOW__{section.upper()}__{name.upper()}": str(value)
        for section, values in options.items()
        for name, value in values.items()
    }
    return {"AIRFLOW_HOME": str(home), **variables}
