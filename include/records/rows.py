"""Write and read single rows of any table: races are settled by the database itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from include.records.columns import Base

R = TypeVar("R", bound=Base)
T = TypeVar("T")


def insert_missing(session: Session, table: type[Base], **values: object) -> bool:
    """Insert a row unless its key is there; tell whether it was inserted. Never fails on a race."""
    statement = _insert_new(session, table).values(_column_values(table, values))
    return session.execute(statement.returning(table.__mapper__.primary_key[0])).first() is not None


def insert_all_missing(
    session: Session, table: type[Base], rows: Sequence[Mapping[str, object]]
) -> None:
    """Insert those rows whose key is not there. Never fails on a race."""
    if rows:
        session.execute(
            _insert_new(session, table), [_column_values(table, values) for values in rows]
        )


def write_over(session: Session, table: type[Base], **values: object) -> None:
    """Insert a row, or write over the one of its key. Never fails on a race."""
    write_all_over(session, table, [values])


def write_all_over(
    session: Session, table: type[Base], rows: Sequence[Mapping[str, object]]
) -> None:
    """Insert rows of equal columns, or write over those of their keys. Never fails on a race."""
    if not rows:
        return
    written = [_column_values(table, values) for values in rows]
    keys = [column.name for column in table.__mapper__.primary_key]
    insert = dialect_insert(session, table)
    others = {name: insert.excluded[name] for name in written[0] if name not in keys}
    session.execute(insert.on_conflict_do_update(index_elements=keys, set_=others), written)


def dialect_insert(session: Session, table: type[Base]) -> Any:
    """Return an INSERT of the database's own dialect, which can say what a conflict comes to."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    return insert(table.__table__)  # type: ignore[arg-type]


def _insert_new(session: Session, table: type[Base]) -> Any:
    return dialect_insert(session, table).on_conflict_do_nothing()


def _column_values(table: type[Base], values: Mapping[str, object]) -> dict[str, object]:
    """Return values by the names of the columns instead of those of the attributes."""
    names = {prop.key: prop.columns[0].name for prop in table.__mapper__.column_attrs}
    return {names[name]: value for name, value in values.items()}


def locked(session: Session, table: type[R], *key: object) -> R | None:
    """Return the row of a primary key as it is now, locked until the transaction ends."""
    columns = table.__mapper__.primary_key
    statement = select(table).where(
        *(column == part for column, part in zip(columns, key, strict=True))
    )
    return session.scalars(
        statement.with_for_update().execution_options(populate_existing=True)
    ).one_or_none()


def plain(kind: type[T], row: object) -> T:
    """Return the frozen dataclass `kind` of a row; fields and columns have equal names."""
    return kind(**{field.name: getattr(row, field.name) for field in dataclasses.fields(kind)})  # type: ignore[arg-type]


def database_now(session: Session) -> datetime:
    """Return the time by the database's clock; SQLite's is that of this very machine."""
    if session.get_bind().dialect.name == "postgresql":
        now: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
        return now.astimezone(UTC)
    seconds = session.execute(text("SELECT (julianday('now') - 2440587.5) * 86400.0")).scalar_one()
    return datetime.fromtimestamp(float(seconds), tz=UTC)
