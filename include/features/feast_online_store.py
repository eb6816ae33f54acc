"""Feast's registry and online store, kept under HOME/feast whatever folder `feast` runs in, and
safe to kill.

Named in feature_repo/feature_store.yaml; imported by feast, never by our own modules at import
time.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast import ValueType
from feast.feature_view import FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import extract_text_and_num
from feast.infra.online_stores.sqlite import (
    SqliteOnlineStore,
    SqliteOnlineStoreConfig,
    adapt_datetime_epoch,
)
from feast.infra.registry.file import FileRegistryStore
from feast.infra.registry.registry_store import RegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.repo_config import RegistryConfig, RepoConfig
from feast.type_map import python_values_to_proto_values
from feast.utils import to_naive_utc

from include.clock import utc_now
from include.config.settings import settings
from include.errors import Conflict
from include.lake.sql import quote


def under_home(path: str) -> Path:
    """Return an absolute path as it is, another one under HOME/feast."""
    return settings().home / "feast" / path


class HomeRegistryStore(FileRegistryStore):  # type: ignore[misc]
    """Feast's registry file, replaced atomically; a writer that read an older registry than the
    one there is refused.
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
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        with self._filepath.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            there = Registry()
            if self._filepath.exists():
                there.ParseFromString(self._filepath.read_bytes())
            if there.version_id != self._seen:
                raise Conflict(
                    f"{self._filepath} was changed by another writer meanwhile; run `feast apply` "
                    "again"
                )
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
    """Feast's SQLite online store in WAL mode: readers never wait, and an older value never
    overwrites a newer one.
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
        """Write rows; outside `one_transaction` (`feast materialize`) those older than what is
        online are left out.
        """
        con = self._get_conn(config)
        if not getattr(con, "held", False):
            data = [row for row in data if not self._is_older(con, config, table, row)]
        super().online_write_batch(config, table, data, progress)

    def replace_all(self, config: RepoConfig, table: FeatureView, rows: pa.Table) -> None:
        """Make `rows` (entity key, features, both times) all that is online of a view, inside
        `one_transaction`.

        What is stored is what Feast's own write stores of these rows, byte for byte; each distinct
        value is encoded once, and rows go in in order of their keys.
        """
        con = self._get_conn(config)
        name = quote(f"{config.project}_{table.name}")
        con.execute(f"DELETE FROM {name}")
        (entity,) = table.entity_columns
        keys = python_values_to_proto_values(
            rows.column(entity.name).to_pylist(), entity.dtype.to_value_type()
        )
        version = config.entity_key_serialization_version
        entities = [EntityKey(join_keys=[entity.name], entity_values=[key]) for key in keys]
        encoded = [
            serialize_entity_key(one, entity_key_serialization_version=version) for one in entities
        ]
        times = [_epochs(rows.column(time)) for time in ("event_timestamp", "created_timestamp")]
        features = sorted(table.features, key=lambda feature: str(feature.name))
        values = [
            _stored(rows.column(feature.name), feature.dtype.to_value_type())
            for feature in features
        ]
        order = sorted(range(len(rows)), key=encoded.__getitem__)
        con.executemany(
            f"INSERT INTO {name} (entity_key, feature_name, value, value_text, event_ts, "
            "created_ts) VALUES (?, ?, ?, ?, ?, ?)",
            (
                (encoded[row], feature.name, *column[row], times[0][row], times[1][row])
                for row in order
                for feature, column in zip(features, values, strict=True)
            ),
        )

    def _is_older(
        self, con: sqlite3.Connection, config: RepoConfig, table: FeatureView, row: tuple[Any, ...]
    ) -> bool:
        key = serialize_entity_key(
            row[0], entity_key_serialization_version=config.entity_key_serialization_version
        )
        name = f"{config.project}_{table.name}".replace('"', '""')
        found = con.execute(
            f'SELECT event_ts FROM "{name}" WHERE entity_key = ? LIMIT 1', (key,)
        ).fetchone()
        # Feast's own column keeps whole seconds.
        moment = to_naive_utc(row[2]).replace(microsecond=0)
        return found is not None and found[0] > moment


def _stored(column: pa.ChunkedArray, kind: ValueType) -> list[tuple[bytes, str | None]]:
    """Return each value as Feast stores it: the bytes of its message, and its text."""
    coded = column.combine_chunks().dictionary_encode()
    protos = python_values_to_proto_values([*coded.dictionary.to_pylist(), None], kind)
    forms = [(proto.SerializeToString(), extract_text_and_num(proto, False)[0]) for proto in protos]
    return [forms[place] for place in _places(coded)]


def _epochs(column: pa.ChunkedArray) -> list[int]:
    """Return times as Feast stores them: whole seconds."""
    coded = column.combine_chunks().dictionary_encode()
    seconds = [
        adapt_datetime_epoch(to_naive_utc(moment)) for moment in coded.dictionary.to_pylist()
    ]
    return [seconds[place] for place in _places(coded)]


def _places(coded: pa.DictionaryArray) -> Sequence[int]:
    """Return where in the dictionary each value stands; a null stands behind the last."""
    places: Sequence[int] = np.asarray(pc.fill_null(coded.indices, len(coded.dictionary))).tolist()
    return places
