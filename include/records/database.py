"""Open transactions on one SQL database, and retry what may pass.

SQLite runs in WAL mode and every write transaction is BEGIN IMMEDIATE, so two writers queue instead
of failing half-way. PostgreSQL writes in READ COMMITTED, and what decides is read FOR UPDATE. A
read sees one snapshot on both. An engine never crosses a fork.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DisconnectionError,
    NoSuchModuleError,
    SQLAlchemyError,
)
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from tenacity import (
    RetryCallState,
    Retrying,
    retry,
    retry_if_exception,
    stop_after_delay,
    stop_before_delay,
    wait_exponential,
    wait_fixed,
    wait_random_exponential,
)

from include.errors import ConfigError, Unavailable
from include.records.failures import LOCK_SECONDS, explain, is_transient
from include.records.rows import plain

log = logging.getLogger(__name__)
T = TypeVar("T")

_WRITE = "evergreen_write"  # execution option that makes a transaction of SQLite BEGIN IMMEDIATE
_FORMS = (
    "write sqlite:////folder/records.db or postgresql+psycopg://user:password@host:5432/database"
)
POOL_SECONDS = 60  # for so long a thread waits for one of the process's connections
_IDLE = 2  # connections that are kept while nobody uses them
# Seconds, and a number, after which a connection whose other end is gone without a word (a machine
# that lost power, a network that was cut) is given up: TCP itself waits for hours.
_KEEPALIVES = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
# Engines of a parent process: kept, so that no garbage collection in a child closes the parent's
# connections.
_INHERITED: list[Engine] = []
# Pauses of 0.05 s, doubled up to 1 s; half of each is random, so that processes which lost the
# same server do not come back to it at the same moment.
_PAUSES = wait_exponential(multiplier=0.025, max=0.5) + wait_random_exponential(
    multiplier=0.025, max=0.5
)


class Database:
    """A database by its SQLAlchemy URL; opening it connects to nothing yet."""

    def __init__(
        self,
        url: str,
        *,
        patience: float = 10.0,
        pool: int = 8,
        seal: Callable[[Session], None] | None = None,
    ) -> None:
        """Keep the address of a database.

        `patience` is for how many seconds a lost connection is tried again; `pool` is how many
        connections to a server there are at most; `seal` runs in every write transaction right
        before its commit.
        """
        self._pool = pool
        self._url = _parse(url)
        self._seal = seal
        self._engine: tuple[int, Engine] | None = None  # with the process that created it
        self._retrying = Retrying(
            retry=retry_if_exception(is_transient),
            stop=stop_before_delay(patience),
            wait=_PAUSES,
            before_sleep=self._log_retry,
            reraise=True,
        )
        self.dialect = self._url.get_backend_name()
        self.name = self._url.set(query={}).render_as_string(hide_password=True)

    def __repr__(self) -> str:
        return f"<Database {self.name}>"

    @property
    def engine(self) -> Engine:
        """The engine of this process; a forked child gets its own."""
        if self._engine is None or self._engine[0] != os.getpid():
            if self._engine is not None:
                _INHERITED.append(self._engine[1])
            self._engine = (os.getpid(), self._create_engine())
        return self._engine[1]

    def close(self) -> None:
        """Close the pooled connections; the next use opens new ones."""
        if self._engine is not None and self._engine[0] == os.getpid():
            self._engine[1].dispose()

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Open one write transaction: committed at the end, rolled back on any exception."""
        try:
            with self._session(write=True) as session:
                yield session
        except SQLAlchemyError as error:
            raise explain(error, database=self.name, secrets=self._secrets()) from None

    def write(self, work: Callable[[Session], T], session: Session | None = None) -> T:
        """Run `work` in the caller's transaction, or in one of its own that is retried.

        It is retried when the connection is lost or another transaction won. A commit whose answer
        is lost may have happened: `work` must recognise its own write.
        """
        if session is not None:
            return work(session)
        return self._run(work, write=True)

    def read(self, work: Callable[[Session], T]) -> T:
        """Run `work` in a read transaction, which sees one snapshot."""
        return self._run(work, write=False)

    @contextmanager
    def _session(self, *, write: bool) -> Iterator[Session]:
        options: dict[str, Any] = {_WRITE: write}
        if self.dialect == "postgresql" and not write:
            options["isolation_level"] = "REPEATABLE READ"
        with Session(self.engine.execution_options(**options), expire_on_commit=False) as session:
            yield session
            if write:
                if self._seal is not None:
                    self._seal(session)
                session.commit()

    def _run(self, work: Callable[[Session], T], *, write: bool) -> T:
        try:
            answer: T = self._retrying(self._run_once, work, write=write)
            return answer
        except SQLAlchemyError as error:
            raise explain(error, database=self.name, secrets=self._secrets()) from None

    def _run_once(self, work: Callable[[Session], T], *, write: bool) -> T:
        with self._session(write=write) as session:
            return work(session)

    def _log_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if state.attempt_number.bit_count() > 1:
            return  # the first, second, fourth, ... : minutes of waiting are few lines
        log.warning("%s: %s; trying again", self.name, type(error).__name__)

    def _create_engine(self) -> Engine:
        try:
            if self.dialect == "sqlite":
                engine = create_engine(
                    self._url,
                    hide_parameters=True,
                    pool_size=4,
                    max_overflow=12,
                    pool_timeout=POOL_SECONDS,
                    connect_args={"timeout": LOCK_SECONDS},
                )
                event.listen(engine, "connect", _prepare_sqlite)
                event.listen(engine, "checkout", _file_check(str(self._url.database)))
                event.listen(engine, "begin", _begin_sqlite)
                return engine
            options = (
                f"-c timezone=UTC -c lock_timeout={LOCK_SECONDS}s -c "
                "idle_in_transaction_session_timeout=60s"
            )
            return create_engine(
                self._url,
                hide_parameters=True,
                pool_size=min(_IDLE, self._pool),
                max_overflow=self._pool - min(_IDLE, self._pool),
                pool_timeout=POOL_SECONDS,
                pool_pre_ping=True,
                pool_recycle=1800,
                connect_args={
                    "connect_timeout": 10,
                    "application_name": "evergreen",
                    **_KEEPALIVES,
                    **({} if "options" in self._url.query else {"options": options}),
                },
            )
        except (NoSuchModuleError, ImportError) as error:
            raise ConfigError(f"no driver for {self.name} ({error}); {_FORMS}") from None

    def _secrets(self) -> list[str]:
        """Return what of the URL no message may hold: the password, and all of its query."""
        return [str(self._url.password or ""), *map(str, self._url.query.values())]


def _parse(url: str) -> URL:
    """Return a URL with its driver; the folder of a SQLite file is made if it is missing.

    Raises:
        ConfigError: it is no URL, or of a database that is not supported.
        Unavailable: the folder cannot be made.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError(f"EVERGREEN_RECORDS_URL is no database URL; {_FORMS}") from None
    if parsed.drivername in {"postgres", "postgresql"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise ConfigError(f"EVERGREEN_RECORDS_URL: {parsed.drivername} is not supported; {_FORMS}")
    if parsed.get_backend_name() == "sqlite":
        if (
            not parsed.database
            or parsed.database == ":memory:"
            or parsed.query.get("mode") == "memory"
        ):
            raise ConfigError(
                "EVERGREEN_RECORDS_URL: records in memory are lost and seen by one "
                "process only; name a file"
            )
        folder = Path(parsed.database).parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise Unavailable(
                f"{folder}: cannot be made for the records ({error.strerror}); check its owner "
                "and space"
            ) from None
    return parsed


def _prepare_sqlite(connection: DBAPIConnection, _record: object) -> None:
    raw: Any = connection
    raw.isolation_level = None  # transactions begin in _begin_sqlite alone
    raw.execute(f"PRAGMA busy_timeout = {LOCK_SECONDS * 1000}")
    raw.execute("PRAGMA foreign_keys = ON")
    raw.execute("PRAGMA synchronous = FULL")
    _use_wal(raw)


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


# SQLite does not ask its busy handler when the journal mode changes, so two processes that create
# the file at the same moment would fail without these retries.
@retry(
    retry=retry_if_exception(_is_locked),
    stop=stop_after_delay(LOCK_SECONDS),
    wait=wait_fixed(0.02),
    reraise=True,
)
def _use_wal(connection: Any) -> None:
    """Switch a SQLite file to WAL mode, in which readers and a writer do not block each other.

    Raises:
        ConfigError: the file system does not allow it.
    """
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise ConfigError(
            f"SQLite cannot keep the records in WAL mode here (it stays in {mode!r}): the file "
            "system shares no memory between processes; name a file on a local disk, or a "
            "PostgreSQL database"
        )


def _file_check(
    path: str,
) -> Callable[[DBAPIConnection, ConnectionPoolEntry, PoolProxiedConnection], None]:
    """Return a check that refuses a pooled connection whose file was removed or replaced.

    Such a connection would write into a file that no other process opens any more.
    """

    def check(
        _connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection
    ) -> None:
        try:
            stat = os.stat(path)
        except FileNotFoundError:
            raise DisconnectionError(f"{path} was removed") from None
        identity = (stat.st_dev, stat.st_ino)
        if record.info.setdefault("file", identity) != identity:
            raise DisconnectionError(f"{path} was replaced")

    return check


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(
        "BEGIN IMMEDIATE" if connection.get_execution_options().get(_WRITE) else "BEGIN"
    )


def rows_of_use_case(
    database: Database, kind: type[T], table: type[Any], use_case: str, *order: Any
) -> list[T]:
    """Return the rows of a use case in a table as frozen dataclasses, in an order."""
    statement = select(table).where(table.use_case == use_case).order_by(*order)
    return database.read(lambda session: [plain(kind, row) for row in session.scalars(statement)])
