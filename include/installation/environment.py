"""The environment of the processes that an installation starts, built explicitly.

What the caller's shell happens to hold (PYTHONPATH, TZ, locale, proxies for loopback, Airflow or
MLflow settings of another project, PYTHONDONTWRITEBYTECODE) changes nothing in a run, and no
process holds a secret that another one needs.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from include.config.no_telemetry import QUIET
from include.config.settings import ROOT, Settings
from include.config.use_case_file import files
from include.installation.airflow_configuration import airflow_variables
from include.installation.mlflow_login import login_variables
from include.processes import bare_environment

MARK = "EVERGREEN_INSTALLATION"  # a variable of every child: to which home folder it belongs
TASKS = ("scheduler", "triggerer", "dag-processor", "celery-worker")
"""Airflow's parts that run code of ours; the API server does not."""
SECRETS_OF_TASKS = {"records_url", "mlflow_uri", "online_url", "alert_url"}
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
        # Stores that it loads models from, and ships segments to.
        if "://" in settings.store_root + settings.segments_root:
            own |= _of_stores(outer)
        own["EVERGREEN_NODE_TOKEN"] = settings.node_secret.get_secret_value()
    elif name == "mlflow":
        # As a variable and no argument: the address may hold a password, which `ps` would show.
        own = {"MLFLOW_BACKEND_STORE_URI": settings.mlflow_address, **login_variables(settings)}
        # Its pages show what lies in the store.
        is_remote = "://" in settings.store_root
        own |= _of_stores(outer) if is_remote else _named(outer, DATABASES)
    elif name in TASKS:
        # Beside the scheduler runs the task that trims Airflow's database.
        trims = {"airflow_database_url"} if name == "scheduler" else set()
        own = _of_sources(settings, outer) | _settings(settings, SECRETS_OF_TASKS | trims)
        own |= airflow_variables(settings, name) | {"MLFLOW_TRACKING_URI": settings.mlflow_address}
    else:
        own = _settings(settings, set()) | airflow_variables(settings, name)
    direct = _without_proxy(settings, own)
    bare = bare_environment(outer)
    return {
        **bare,
        **QUIET,
        **own,
        MARK: str(settings.home),
        "BENTOML_HOME": str(settings.home / "bento"),
        "NO_PROXY": direct,
        "no_proxy": direct,
        "OMP_WAIT_POLICY": "passive",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{bare.get('PATH', os.defpath)}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'include/orchestration/airflow_home'}",
        "PYTHONUNBUFFERED": "1",
    }


def _named(outer: Mapping[str, str], beginnings: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in outer.items() if name.startswith(beginnings)}


def _of_stores(outer: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which stores are reached: credentials, certificates, proxies."""
    proxies = {name: value for name, value in outer.items() if name.lower() in PROXIES}
    return _named(outer, SOURCES) | proxies


def _without_proxy(settings: Settings, own: Mapping[str, str]) -> str:
    """Return the hosts that are reached without a proxy: this machine, and what `own` names."""
    named = (own.get("no_proxy") or own.get("NO_PROXY") or "").replace(" ", "").split(",")
    if "*" in named:  # most libraries read it only where it stands alone
        return "*"
    here = ["127.0.0.1", "localhost", "::1", settings.host]
    return ",".join(dict.fromkeys(filter(None, [*here, *named])))


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
    return _of_stores(outer) | {name: outer[name] for name in wanted if name in outer}


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
