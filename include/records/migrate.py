"""Bring the records database to this version by the Alembic migrations beside it.

The program runs them itself, whenever it starts: nobody has to think of them.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from include.errors import ConfigError
from include.records.database import Database
from include.records.schema import HEAD, VERSION_TABLE

FOLDER = Path(__file__).resolve().parent / "migrations"
_LOCK = 0x45564552  # "EVER": the number of PostgreSQL's advisory lock of whoever migrates


def upgrade(database: Database) -> None:
    """Bring the tables to this version, in one transaction; several processes may do it at once.

    Raises:
        ConfigError: the database was written by a newer version.
    """
    # SQLite: every write transaction takes the one lock there is as it begins.
    with database.transaction() as session:
        connection = session.connection()
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        if _revision(connection) != HEAD:
            _run_migrations(connection, database.name)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()


def _run_migrations(connection: Connection, name: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise ConfigError(
            f"{name} was written by another version of Evergreen ({error}); install that version, "
            "or name another database"
        ) from None
