"""The connection to MLflow: one client an address, tables made once, errors without passwords."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from include.config.settings import Settings
from include.errors import Unavailable
from include.object_stores import redacted

_NOISY = ("alembic", "mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store")
_SQLITE = "sqlite:///"


@contextmanager
def connected(settings: Settings) -> Iterator[Any]:
    """Give an `MlflowClient` whose tables are there; foreign errors become ours.

    Raises:
        Unavailable: MLflow, its database or its artefacts failed; the address is named without its
            password.
    """
    with connected_to(settings.mlflow_address) as client:
        yield client


@contextmanager
def connected_to(address: str) -> Iterator[Any]:
    """Give an `MlflowClient` of an address, which may hold a password; errors as `connected`."""
    with explained(address):
        yield _client(address)


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Turn what MLflow, its database or its artefacts raise into errors of ours, without passwords.

    Raises:
        Unavailable: any of these failed.
    """
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (mlflow_error(), SQLAlchemyError, RequestException, OSError) as error:
        reason = str(error).replace(address, public_address(address)).splitlines()[0][:500]
        # Libraries also quote parts of an address.
        password = urlsplit(address).password
        reason = redacted(reason.replace(password, "***") if password else reason)
        # `from None`: the foreign error, which a traceback would show, holds the password.
        raise Unavailable(
            f"MLflow at {public_address(address)} failed: {reason}. Start it or mend the setting, "
            "then run this again"
        ) from None


def may_hold_any(settings: Settings) -> bool:
    """Tell whether MLflow may hold anything: a file that is not there holds nothing.

    To ask it would make the file, and takes seconds.
    """
    address = settings.mlflow_address
    return not address.startswith(_SQLITE) or Path(address.removeprefix(_SQLITE)).exists()


def public_address(address: str) -> str:
    """Return an address without user and password; that of a file is as it was."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}" if parts.hostname else address


def mlflow_error() -> type[Any]:
    """Return the class of MLflow's errors; importing it takes seconds."""
    from mlflow.exceptions import MlflowException

    return cast(type[Any], MlflowException)


def quiet() -> None:
    """Have MLflow report its use to nobody, and tell people nothing that they can do nothing about.

    Such as its own use of SQLAlchemy, which is deprecated.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    # Its default of 7 waits for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    import mlflow  # noqa: F401 - it sets the levels of its loggers

    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"mlflow\.")


@lru_cache(maxsize=4)
def _client(address: str) -> Any:
    quiet()
    import mlflow

    with only_one_process(address):
        client = mlflow.MlflowClient(tracking_uri=address, registry_uri=address)
        client.search_experiments(max_results=1)  # the first query makes the tables
    return client


@contextmanager
def only_one_process(address: str) -> Iterator[None]:
    """Let one process at a time make the tables of a database: MLflow's migrations race otherwise.

    A server makes its own.
    """
    if address.startswith("postgresql"):
        with _advisory_lock(address):
            yield
    elif address.startswith(_SQLITE):
        from filelock import FileLock

        database = Path(address.removeprefix(_SQLITE))
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(database.with_name(f".{database.name}.lock")):
            yield
    else:
        yield


@contextmanager
def _advisory_lock(address: str) -> Iterator[None]:
    """Hold a lock in the PostgreSQL database itself: its clients may be on several machines."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    with create_engine(address, poolclass=NullPool).connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(hashtext('evergreen mlflow'))"))
        yield  # the lock goes with the connection
