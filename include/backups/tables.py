"""Copy the tables of a database row by row, from SQLite or PostgreSQL to either.

What a table has is read from the database itself. Rows are JSON lines of one array each, in the
order of the columns, whose names are the first line.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import islice
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    MetaData,
    Table,
    create_engine,
    event,
    func,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.pool import NullPool

from include.errors import ArtefactError

ROWS_AT_ONCE = 1000
Change = Callable[[str, dict[str, Any]], dict[str, Any] | None]


def reflected(connection: Connection) -> MetaData:
    """Return the tables that a database has."""
    metadata = MetaData()
    metadata.reflect(connection)
    return metadata


def revision_of(connection: Connection, version_table: str) -> str:
    """Return the revision of a database's migrations; "" where it has none."""
    if not inspect(connection).has_table(version_table):
        return ""
    found = connection.execute(text(f"SELECT version_num FROM {version_table}")).scalar()
    return str(found or "")


@contextmanager
def snapshot(url: str) -> Iterator[Connection]:
    """Give a connection that sees a database as it is now, whatever is written meanwhile."""
    engine = _engine(url)
    if engine.dialect.name == "postgresql":
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    with engine.connect() as connection:
        # The snapshot is taken with the first question, not with BEGIN.
        connection.execute(text("SELECT 1"))
        inspect(connection).get_table_names()
        allow_idleness(connection)
        yield connection


@contextmanager
def transaction(url: str) -> Iterator[Connection]:
    """Give a connection whose changes are all made as the block ends well, or none of them."""
    with _engine(url, write=True).begin() as connection:
        allow_idleness(connection)
        yield connection


def allow_idleness(connection: Connection) -> None:
    """Let this transaction be idle: while a large table is on its way, nothing is asked of it.

    Else PostgreSQL would end it, and the next try in the same place.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))


def _engine(url: str, *, write: bool = False) -> Any:
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
    if engine.dialect.name == "sqlite":
        # Python's driver begins no transaction for a SELECT by itself.
        @event.listens_for(engine, "connect")
        def by_hand(connection: Any, _record: object) -> None:
            connection.isolation_level = None

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def lines(connection: Connection, table: Table) -> Iterator[bytes]:
    """Yield the names of a table's columns, then its rows, in the order of its key."""
    columns = list(table.columns)
    yield json.dumps([column.name for column in columns]).encode()
    ordered = select(table).order_by(*(table.primary_key.columns or columns))
    streamed = connection.execution_options(stream_results=True, yield_per=ROWS_AT_ONCE)
    for row in streamed.execute(ordered):
        yield json.dumps([_plain(value) for value in row], separators=(",", ":")).encode()


def load(
    connection: Connection, table: Table, rows: Iterable[bytes], change: Change | None = None
) -> int:
    """Insert the rows of a table, as `lines` gives them; return how many were.

    `change` may alter each row, or leave it out. A column that the table has not is refused, one
    that the lines have not gets its default.

    Raises:
        ArtefactError: the lines are no rows of this table.
    """
    parts = iter(rows)
    try:
        names = json.loads(next(parts))
    except (StopIteration, ValueError):
        raise ArtefactError(f"the rows of {table.name} are damaged; take another backup") from None
    unknown = [name for name in names if name not in table.columns]
    if unknown:
        raise ArtefactError(
            f"{table.name} has no column {', '.join(unknown)} here: the backup is of another "
            "version; restore it with the version that took it"
        )
    columns = [table.columns[name] for name in names]
    count = 0
    while batch := list(islice(parts, ROWS_AT_ONCE)):
        values = []
        for line in batch:
            row = {
                column.name: _typed(column, value)
                for column, value in zip(columns, json.loads(line), strict=True)
            }
            changed = row if change is None else change(table.name, row)
            if changed is not None:
                values.append(changed)
        if values:
            connection.execute(insert(table), values)
        count += len(values)
    return count


def set_sequences(connection: Connection, metadata: MetaData, names: Iterable[str]) -> None:
    """Let what numbers new rows go on behind the rows that are there; SQLite does so by itself."""
    if connection.dialect.name != "postgresql":
        return
    for name in names:
        table = metadata.tables[name]
        for column in table.primary_key.columns:
            sequence = connection.execute(
                select(func.pg_get_serial_sequence(_quoted(connection, table), column.name))
            ).scalar()
            if sequence is None:
                continue
            newest = connection.execute(select(func.max(column))).scalar()
            if newest is not None:
                connection.execute(select(func.setval(sequence, newest)))


def count(connection: Connection, table: Table) -> int:
    """Return how many rows a table has."""
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _quoted(connection: Connection, table: Table) -> str:
    return connection.dialect.identifier_preparer.format_table(table)


def _plain(value: object) -> object:
    """Return a value as JSON has it; what JSON has not is an object of one key."""
    if isinstance(value, datetime):
        # A database without time zones holds UTC.
        aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return {"time": aware.isoformat()}
    if isinstance(value, date):
        return {"date": value.isoformat()}
    if isinstance(value, bytes | memoryview):
        return {"bytes": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    if isinstance(value, dict | list):  # of a column of JSON
        return {"json": value}
    return value


def _typed(column: Column[Any], value: object) -> object:
    """Return a value as the column of this database takes it."""
    if isinstance(value, Mapping):
        ((kind, held),) = value.items()
        if kind == "time":
            moment = datetime.fromisoformat(held)
            with_zone = isinstance(column.type, DateTime) and column.type.timezone
            return moment if with_zone else moment.replace(tzinfo=None)
        if kind == "date":
            return date.fromisoformat(held)
        if kind == "bytes":
            return base64.b64decode(held)
        return Decimal(held) if kind == "decimal" else held
    if value is not None and _is_boolean(column):
        return bool(value)
    return value


def _is_boolean(column: Column[Any]) -> bool:
    try:
        return column.type.python_type is bool
    except NotImplementedError:  # a type that no Python type stands for
        return False
