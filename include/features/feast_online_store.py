"""Feast's registry and online store under HOME/feast, wherever `feast` is started.

Named in feature_repo/feature_store.yaml; imported by feast, never by our own modules at import
time.
"""

from __future__ import annotations

from include.features import feast_unchecked  # noqa: F401 - before feast

# isort: split
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
from filelock import FileLock

from include.clock import utc_now
from include.config.settings import settings
from include.errors import Conflict
from include.files import written_aside
from include.lake.sql import quote


def under_home(path: str) -> Path:
    """Return an absolute path as it is, another one under HOME/feast."""
    return settings().home / "feast" / path


class HomeRegistryStore(FileRegistryStore):  # type: ignore[misc]
    """Feast's registry file, replaced as a whole.

    Feast reads all of it, changes it and writes all of it. A writer that read an older registry
    than the present one is refused: it would take back what the other one wrote.
    """

    def __init__(self, registry_config: RegistryConfig, repo_path: Path) -> None:
        self._filepath = under_home(registry_config.path)
        self._seen = ""

    def get_registry_proto(self) -> Any:
        """Read the registry and remember which one it was."""
        proto = super().get_registry_proto()
        self._seen = proto.version_id
        return proto

    def _write_registry(self, registry_proto: Any) -> None:
        # The lock is only for the moment between look and write: the lease of
        # `feast_registry.apply_registry` keeps our writers apart, not a `feast apply` by hand.
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._filepath.with_suffix(".lock")):
            present = Registry()
            if self._filepath.exists():
                present.ParseFromString(self._filepath.read_bytes())
            if present.version_id != self._seen:
                raise Conflict(
                    f"{self._filepath} was changed by another writer meanwhile; run `feast apply` "
                    "again"
                )
            registry_proto.version_id = str(uuid.uuid4())
            registry_proto.last_updated.FromDatetime(utc_now())
            with written_aside(self._filepath, durable=True) as temporary:
                temporary.write_bytes(registry_proto.SerializeToString())
            self._seen = registry_proto.version_id


class TransientRegistryStore(RegistryStore):  # type: ignore[misc]
    """A registry in memory: for feature views that are built for one question.

    Feast remembers what a registry holds by the address of its protobuf and its version: without a
    version of its own, a registry that comes to lie where an earlier one lay is answered with the
    earlier one's views.
    """

    def __init__(self, registry_config: RegistryConfig, repo_path: Path) -> None:
        self._proto = Registry(version_id=str(uuid.uuid4()))

    def get_registry_proto(self) -> Any:
        """Return what was stored in this process."""
        return self._proto

    def update_registry_proto(self, registry_proto: Any) -> None:
        """Store a copy, both under a new version."""
        registry_proto.version_id = str(uuid.uuid4())
        self._proto = Registry()
        self._proto.CopyFrom(registry_proto)

    def teardown(self) -> None:
        """Forget everything."""
        self._proto = Registry(version_id=str(uuid.uuid4()))


class HomeSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):  # type: ignore[misc]
    """Feast's SQLite online store under HOME/feast."""

    type: Literal["include.features.feast_online_store.HomeSqliteOnlineStore"] = (
        "include.features.feast_online_store.HomeSqliteOnlineStore"
    )
    path: str = "online.db"


class _Connection(sqlite3.Connection):
    """A connection whose `with` blocks commit only when no larger transaction is open."""

    held = False

    def __exit__(self, *error: Any) -> Literal[False]:
        return False if self.held else super().__exit__(*error)


class HomeSqliteOnlineStore(SqliteOnlineStore):  # type: ignore[misc]
    """Feast's SQLite online store, in which an older value never overwrites a newer one.

    It is in WAL mode: readers never wait for a writer.
    """

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
        """Write rows as Feast does, without those that are older than what is online.

        Inside `one_transaction` all of them are written: whoever opened it has looked.
        """
        con = self._get_conn(config)
        if not getattr(con, "held", False):
            data = [row for row in data if not self._is_older(con, config, table, row)]
        super().online_write_batch(config, table, data, progress)

    def _is_older(
        self, con: sqlite3.Connection, config: RepoConfig, table: FeatureView, row: tuple[Any, ...]
    ) -> bool:
        """Tell whether a row's event time lies before that of the entity's row online."""
        key = serialize_entity_key(
            row[0], entity_key_serialization_version=config.entity_key_serialization_version
        )
        name = quote(f"{config.project}_{table.name}")
        # A row of Feast's table is one feature; all of an entity have the same event time.
        online = con.execute(
            f"SELECT event_ts FROM {name} WHERE entity_key = ? LIMIT 1", (key,)
        ).fetchone()
        # Feast's own column keeps whole seconds.
        moment = to_naive_utc(row[2]).replace(microsecond=0)
        return online is not None and online[0] > moment
