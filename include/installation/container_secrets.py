"""The secret files of an installation in containers, made once and never overwritten.

    python -m include.installation.container secrets FOLDER

docker-compose.yaml names the files and hands each to the services that need it. Addresses hold the
passwords that stand beside them; where a database or a Redis of one's own is used, its address is
written into the file instead, and stays. Models are signed by `signing_key`; `public_keys` is the
folder by which nodes verify them.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from include.clock import utc_now
from include.config.secret_files import SECRET_LENGTH, secret_text
from include.config.settings import Settings
from include.errors import ConfigError
from include.files import sync_folder
from include.models.private_key import make_pair
from include.models.public_keys import REVOKED

UID = 10001  # of the image, which alone may read them
_PLAIN = re.compile(r"[A-Za-z0-9_.~-]+")
_RECORDS = "postgresql://evergreen_{role}:{{{role}_password}}@postgres:5432/evergreen"
_MLFLOW = "postgresql://evergreen_mlflow_{role}:{{mlflow_{role}_password}}@postgres:5432/mlflow"
_REDIS = "redis://:{{{name}_password}}@{host}:6379/0"
# Nothing is evicted: of the broker that would be tasks, of the features rows of a node's answers.
_REDIS_CONF = (
    "requirepass {{{name}_password}}\nbind * -::*\nport 6379\ndir /data\nmaxmemory {megabytes}mb\n"
    'maxmemory-policy noeviction\nappendonly yes\nappendfsync everysec\nsave ""\n'
)
SIGNING_KEY, PUBLIC_KEYS = "signing_key", "public_keys"
GENERATED = (
    "postgres_password",
    "airflow_postgres_password",
    "owner_password",
    "worker_password",
    "node_password",
    "mlflow_writer_password",
    "mlflow_reader_password",
    "redis_broker_password",
    "redis_features_password",
    "airflow_fernet",
    "airflow_jwt",
    "airflow_session",
    "airflow_admin",
    "airflow_op",
    "airflow_viewer",
    "mlflow_admin",
    "mlflow_flask",
    "node_token",
    "entity_key",
    "metrics_token",
    "caller_token",
    "grafana_admin",
)
"""Random ones, of 43 characters that need no quoting in an address."""
WRITTEN: Mapping[str, str] = {
    "postgres_admin_url": "postgresql://postgres:{postgres_password}@postgres:5432/postgres",
    "airflow_database_url": (
        "postgresql://airflow:{airflow_postgres_password}@airflow-postgres:5432/airflow"
    ),
    "records_owner_url": _RECORDS.format(role="owner"),
    "records_worker_url": _RECORDS.format(role="worker"),
    "records_node_url": _RECORDS.format(role="node"),
    "mlflow_writer_url": _MLFLOW.format(role="writer"),
    "mlflow_reader_url": _MLFLOW.format(role="reader"),
    "broker_url": _REDIS.format(name="redis_broker", host="redis-broker"),
    "online_url": _REDIS.format(name="redis_features", host="redis-features"),
    "redis_broker.conf": _REDIS_CONF.format(name="redis_broker", megabytes=256),
    "redis_features.conf": _REDIS_CONF.format(name="redis_features", megabytes=384),
    "node_tokens": "metrics read {metrics_token}\ncaller predict {caller_token}\n",
    "alert_url": "",  # who wants to be told writes an address
    "store.env": (
        "# Credentials of object stores, a NAME=VALUE each: AWS_ACCESS_KEY_ID, AZURE_STORAGE_...\n"
    ),
    "sources.env": (
        "# Addresses of the databases that use cases read, by the names in their `url_env`:\n"
        "# WAREHOUSE_URL=postgresql://reader:password@host:5432/warehouse\n"
    ),
}
"""Files that are put together from generated ones."""


def make_secrets(folder: Path, *, owner: int = UID) -> list[str]:
    """Write those secret files of a folder that it has not; return their names.

    A file is whole under its name, or not there; it belongs to `owner`, who alone may read it.

    Raises:
        ConfigError: a password that goes into another file is empty, short or needs quoting there:
            a Redis with an empty one would ask nobody for it.
    """
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    made = []
    for name in GENERATED:
        if _write(folder / name, lambda: secrets.token_urlsafe(SECRET_LENGTH), owner):
            made.append(name)
    if make_signing_key(folder, owner=owner):
        made.append(SIGNING_KEY)
    known = _Known(folder)
    for name, form in WRITTEN.items():
        if _write(folder / name, lambda form=form: form.format_map(known), owner):  # type: ignore[misc]
            made.append(name)
    return made


def make_signing_key(folder: Path, *, owner: int = UID) -> bool:
    """Write the key that models are signed by, and its public half, unless there is one."""
    path, public = folder / SIGNING_KEY, folder / PUBLIC_KEYS
    if os.path.lexists(path):
        return False
    days = Settings.model_fields["signing_key_days"].default
    public.mkdir(mode=0o755, exist_ok=True)
    os.chown(public, owner, owner)
    with tempfile.TemporaryDirectory(prefix=".signing-", dir=folder) as scratch:
        made = make_pair(
            Path(scratch) / SIGNING_KEY, Path(scratch) / "public", at=utc_now(), days=days
        )
        private = Path(scratch) / SIGNING_KEY
        private.chmod(0o400)
        os.chown(private, owner, owner)
        # The public half first: where the private one is, nodes can verify what it signs.
        for name in (REVOKED, f"{made.id}.json"):
            os.chown(Path(scratch) / "public" / name, owner, owner)
            with contextlib.suppress(FileExistsError):
                os.link(Path(scratch) / "public" / name, public / name)
        os.link(private, path)
    return True


class _Known(dict[str, str]):
    """The generated secrets of a folder, each read when a file is put together from it."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, name: str) -> str:
        path = self._folder / name
        remedy = (
            f"Delete {path} and the files that hold it, and make them anew; or write the address "
            "that needs it by hand"
        )
        text = secret_text(path, remedy)
        if not _PLAIN.fullmatch(text):
            raise ConfigError(f"{path} holds letters that an address would need quoted. {remedy}")
        return text


def _write(path: Path, text: Callable[[], str], owner: int) -> bool:
    """Write a secret unless its file is there; tell whether it was written."""
    if os.path.lexists(path):
        return False
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text())
            file.flush()
            os.fsync(file.fileno())
        os.chown(temporary, owner, owner)
        # A link fails where the name exists: of two that make it at once, the first one's stays.
        os.link(temporary, path)
        sync_folder(path.parent)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True
