"""Migrations of an empty database, run by Alembic once a process and repeated from then on.

Alembic takes 0.1 s of processor time for it, and the tests make some thousand databases. What is
repeated is what it has sent to the first one of the same kind. Tests of migrations, and databases
that have tables, get the product's own way.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, event

from include.records import migrate

_run = migrate._run_migrations
_sent: dict[str, list[tuple[str, Any]]] = {}  # by dialect


def run_migrations(connection: Connection, name: str) -> None:
    """Make the tables of an empty database; bring those of another one to this version."""
    if migrate._revision(connection) is not None:
        _run(connection, name)
        return
    dialect = connection.dialect.name
    if dialect not in _sent:
        _sent[dialect] = _record(connection, name)
        return
    for statement, parameters in _sent[dialect]:
        connection.exec_driver_sql(statement, parameters or None)


def _record(connection: Connection, name: str) -> list[tuple[str, Any]]:
    """Run the migrations; return what was sent."""
    sent = list[tuple[str, Any]]()

    def listen(
        connection: Connection, cursor: Any, statement: str, parameters: Any, *_: Any
    ) -> None:
        sent.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", listen)
    try:
        _run(connection, name)
    finally:
        event.remove(connection, "before_cursor_execute", listen)
    return sent
