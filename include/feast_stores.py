"""Feast's registry and online store, kept under HOME/feast whatever folder `feast` runs in, and safe to kill.

Named in feature_repo/feature_store.yaml; imported by feast, never by our own modules at import time.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

from feast.feature_view import FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig
from feast.infra.registry.file import FileRegistryStore
from feast.infra.registry.registry_store import RegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.repo_config import RegistryConfig, RepoConfig
from feast.utils import to_naive_utc

from include.clock import utc_now
from include.config import settings
from include.errors import Conflict


def under_home(path: str) -> Path:
    """Return an absolute path as it is, another one under HOME/feast."""
    return settings().home / "feast" / path


class HomeRegistryStore(FileRegistryStore):  # type: ignore[misc]
    """Feast's registry file, replaced atomically; a writer that read an older registry than the one there is refused."""

    def __init__(self, registry_config: RegistryConfig, repo_path: Path) -> None:
        self._filepath = under_home(registry_config.path)
        self._seen = ""

    def get_registry_proto(self) -> Any:
        """Read the registry and remember which one it was."""
        proto = super().get_registry_proto()
        self._seen = proto.version_id
        return proto

    def _write_registry(self, registry_proto: Any) -> None:
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        with self._filepath.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            there = Registry()
            if self._filepath.exists():
                there.ParseFromString(self._filepath.read_bytes())
            if there.version_id != self._seen:
                raise Conflict(f"{self._filepath} was changed by another writer meanwhile; run `feast apply` again")
            registry_proto.version_id = str(uuid.uuid4())
            registry_proto.last_updated.FromDatetime(utc_now())
            temporary = self._filepath.with_suffix(f".{os.getpid()}")
            with temporary.open("wb") as file:
                file.write(registry_proto.SerializeToString())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._filepath)
            self._seen = registry_proto.version_id


class TransientRegistryStore(RegistryStore):  # type: ignore[misc]
    """A registry in memory: for feature views that are built for one question."""

    def __init__(self, registry_config: RegistryConfig, repo_path: Path) -> None:
        self._proto = Registry()

    def get_registry_proto(self) -> Any:
        """Return what was stored in this process."""
        return self._proto

    def update_registry_proto(self, registry_proto: Any) -> None:
        """Store a copy."""
        self._proto = Registry()
        self._proto.CopyFrom(registry_proto)

    def teardown(self) -> None:
        """Forget everything."""
        self._proto = Registry()


class HomeSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):  # type: ignore[misc]
    """Feast's SQLite online store under HOME/feast."""

    type: Literal["include.feast_stores.HomeSqliteOnlineStore"] = "include.feast_stores.HomeSqliteOnlineStore"
    path: str = "online.db"


class _Connection(sqlite3.Connection):
    """A connection whose `with` blocks commit only when no larger transaction is open."""

    held = False

    def __exit__(self, *error: Any) -> Literal[False]:
        return False if self.held else super().__exit__(*error)


class HomeSqliteOnlineStore(SqliteOnlineStore):  # type: ignore[misc]
    """Feast's SQLite online store in WAL mode: readers never wait, and an older value never overwrites a newer one."""

    BUSY_SECONDS: ClassVar[float] = 30.0
    _conn: sqlite3.Connection | None = None

    @staticmethod
    def _get_db_path(config: RepoConfig) -> str:
        return str(under_home(config.online_store.path))

    def _get_conn(self, config: RepoConfig) -> sqlite3.Connection:
        con = self._conn
        if con is None:
            path = Path(self._get_db_path(config))
            path.parent.mkdir(parents=True, exist_ok=True)
            con = self._conn = sqlite3.connect(
                path,
                timeout=self.BUSY_SECONDS,
                factory=_Connection,
                check_same_thread=False,
                detect_types=sqlite3.PARSE_DECLTYPES | sqlite3.PARSE_COLNAMES,
            )
            con.execute("PRAGMA journal_mode = WAL")
            con.execute("PRAGMA synchronous = NORMAL")
        return con

    @contextmanager
    def one_transaction(self, config: RepoConfig) -> Iterator[sqlite3.Connection]:
        """Commit everything that is written inside at once, or nothing of it."""
        con = self._get_conn(config)
        assert isinstance(con, _Connection)
        con.execute("BEGIN IMMEDIATE")
        con.held = True
        try:
            yield con
        except BaseException:
            con.rollback()
            raise
        else:
            con.commit()
        finally:
            con.held = False

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[Any, dict[str, Any], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows; outside `one_transaction` (`feast materialize`) those older than what is online are left out."""
        con = self._get_conn(config)
        if not getattr(con, "held", False):
            data = [row for row in data if not self._is_older(con, config, table, row)]
        super().online_write_batch(config, table, data, progress)

    def _is_older(self, con: sqlite3.Connection, config: RepoConfig, table: FeatureView, row: tuple[Any, ...]) -> bool:
        key = serialize_entity_key(row[0], entity_key_serialization_version=config.entity_key_serialization_version)
        name = f"{config.project}_{table.name}".replace('"', '""')
        found = con.execute(f'SELECT event_ts FROM "{name}" WHERE entity_key = ? LIMIT 1', (key,)).fetchone()
        moment = to_naive_utc(row[2]).replace(microsecond=0)  # Feast's own column keeps whole seconds
        return found is not None and found[0] > moment
