"""What must be true before anything is started; every refusal is one line with its remedy."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import sys
from importlib.metadata import version
from pathlib import Path

from include.config.settings import ROOT, Settings
from include.errors import ConfigError, Unavailable
from include.files import make_private, write_text
from include.object_stores import is_remote
from include.records.copy_before import copy_before

LAYOUT = 1  # of the home folder; a change that an older version cannot read raises it
NEED_BYTES = 2 * 1024**3
PYTHONS = ((3, 11), (3, 13))  # the first and the last that the locks cover
PORTS = {"airflow_port": "Airflow", "mlflow_port": "MLflow", "node_port": "the serving node"}


def check(settings: Settings) -> None:
    """Check Python, the installation, the home folder, the store, the version and free space.

    Raises:
        ConfigError: with the remedy.
    """
    check_python(sys.version_info[:2])
    check_installed()
    check_home(settings.home)
    check_store(settings)
    check_version(settings.home)
    check_space(settings.home)


def check_python(running: tuple[int, int]) -> None:
    """Refuse a Python that the locked requirements do not cover."""
    if not PYTHONS[0] <= running <= PYTHONS[1]:
        first, last = (".".join(map(str, edge)) for edge in PYTHONS)
        raise ConfigError(
            f"this is Python {running[0]}.{running[1]}; Evergreen runs on {first} to {last}."
            f" Install one, then `rm -rf .venv && make install PYTHON=python{last}`"
        )


def check_installed() -> None:
    """Refuse to run on half an installation."""
    stamp = ROOT / ".venv" / ".installed"
    if Path(sys.prefix) == ROOT / ".venv" and not stamp.exists():
        raise ConfigError(
            f"the installation in {ROOT / '.venv'} was not finished; repair it with `make install`"
        )


def check_home(home: Path) -> None:
    """Make the home folder and refuse one that cannot be written."""
    try:
        make_private(home)
        probe = home / f".probe.{os.getpid()}"
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ConfigError(
                f"no space left at {home}; free some, or set EVERGREEN_HOME to another disk"
            ) from error
        raise ConfigError(
            f"{home} cannot be written ({error.strerror}): it belongs to another user or is "
            "read-only; fix its owner, or set EVERGREEN_HOME to a folder of yours"
        ) from error


def check_store(settings: Settings) -> None:
    """Make the folder of the artefacts, where it is another one, and refuse one that is read-only.

    An object store is asked by whoever uses it: one that is away stops no start.
    """
    root = settings.store_root
    if is_remote(root) or root == str(settings.home):
        return
    try:
        Path(root).mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = Path(root) / f".probe.{os.getpid()}"
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"{root} cannot be written ({error.strerror}): mount it, mend its owner or free some "
            "space, or set EVERGREEN_STORE_URI to another place"
        ) from error


def check_version(home: Path) -> None:
    """Refuse a home folder of another layout, or whose database is of a newer Airflow."""
    path = home / "VERSION"
    if not path.exists():
        return
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
        layout, airflow = int(stamp["layout"]), str(stamp.get("airflow", "0"))
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} cannot be read; {_aside(home)}") from None
    if layout != LAYOUT:
        raise ConfigError(
            f"{home} was made by layout {layout} of Evergreen, this is layout {LAYOUT}; "
            f"{_aside(home)}"
        )
    if _numbers(airflow) > _numbers(version("apache-airflow")):
        raise ConfigError(
            f"{home} was used by Airflow {airflow}, installed is the older "
            f"{version('apache-airflow')}; `git pull && make install`, or {_aside(home)}"
        )


def stamp_version(home: Path) -> None:
    """Record which layout, Airflow and MLflow made the home folder what it is."""
    text = json.dumps({"layout": LAYOUT, **_libraries()}, indent=1)
    write_text(home / "VERSION", text + "\n")


def is_migrated(settings: Settings) -> bool:
    """Tell whether this very Airflow has set up the databases of the home folder already.

    Of a database elsewhere the home folder does not know it: that may be another one by now.
    """
    home = settings.home
    if settings.airflow_database_url.get_secret_value() or settings.airflow_auth != "simple":
        return False
    try:
        stamp = json.loads((home / "VERSION").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (
        all(stamp.get(name) == value for name, value in _libraries().items())
        and (home / "airflow" / "airflow.db").exists()
    )


def copy_databases(home: Path) -> None:
    """Copy the database files that another Airflow or MLflow has left, before ours changes them.

    Raises:
        ConfigError: a copy cannot be written.
    """
    try:
        stamp = json.loads((home / "VERSION").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return  # nobody has finished anything here
    files = {"airflow": home / "airflow" / "airflow.db", "mlflow": home / "mlflow.db"}
    for name, ours in _libraries().items():
        before = str(stamp.get(name, "unknown"))
        if before != ours and files[name].exists():
            copy_before(files[name], before, revisions="alembic_version")  # of both libraries


def check_space(home: Path, need: int = NEED_BYTES) -> None:
    """Refuse a disk that a day's run would fill."""
    free = shutil.disk_usage(home).free
    if free < need:
        raise ConfigError(
            f"only {free / 1024**3:.1f} GB are free at {home}, at least {need / 1024**3:.0f} GB "
            "are needed; free some, or set EVERGREEN_HOME to another disk"
        )


def check_ports(settings: Settings) -> None:
    """Refuse ports that another program holds, or that two of our own settings share."""
    setting_by_port: dict[int, str] = {}
    for name, what in PORTS.items():
        port = int(getattr(settings, name))
        if port in setting_by_port:
            raise ConfigError(
                f"EVERGREEN_{name.upper()} and EVERGREEN_{setting_by_port[port].upper()} are both "
                f"{port}; change one"
            )
        setting_by_port[port] = name
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As the servers do: without it a port is taken for a minute after its last connection.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError as error:
                raise _not_free(settings.host, port, name, what, error) from error


def _not_free(host: str, port: int, name: str, what: str, error: OSError) -> Unavailable:
    if error.errno == errno.EADDRINUSE:
        return Unavailable(
            f"port {port} for {what} is taken on {host}; stop what holds it (`make stop` if it is "
            f"this installation), or choose another: EVERGREEN_{name.upper()}={port + 1} make run"
        )
    return Unavailable(
        f"port {port} for {what} cannot be opened on {host} ({error.strerror}); set "
        f"EVERGREEN_{name.upper()}"
    )


def _libraries() -> dict[str, str]:
    """Return the versions of the libraries whose databases lie in the home folder."""
    return {"airflow": version("apache-airflow"), "mlflow": version("mlflow")}


def _numbers(text: str) -> tuple[int, ...]:
    """Return a version's first three numbers: 3.1.0rc1 as (3, 1, 1), good enough to compare."""
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in text.split(".")[:3])


def _aside(home: Path) -> str:
    return f"move it aside (`mv {home} {home}.old`) or set EVERGREEN_HOME to another folder"
