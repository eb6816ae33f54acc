"""Bring the records database to this version by the Alembic migrations beside it.

The program runs them itself, whenever it starts: nobody has to think of them. On PostgreSQL that is
for the role that owns the tables, or may make them; any other one looks at their version, and waits
while the owner is at work.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.orm import Session

from include.clock import wait_for
from include.errors import ConfigError
from include.records.copy_before import copy_before
from include.records.database import Database
from include.records.roles import Roles, existing, write_grants
from include.records.schema import HEAD, VERSION_TABLE

FOLDER = Path(__file__).resolve().parent / "migrations"
WAIT_SECONDS = 60.0  # for so long another role's process waits for the owner, which is at work
_LOCK = 0x45564552  # "EVER": the number of PostgreSQL's advisory lock of whoever migrates
_REMEDY = (
    "run `evergreen migrate` as the role that owns them (EVERGREEN_RECORDS_OWNER_URL), before "
    "anything else of this version starts"
)


@dataclass(frozen=True)
class Migrated:
    """The version of the tables `before` (None: there were none), and whose grants were written."""

    before: str | None
    roles: Roles


def upgrade(database: Database, *, roles: Roles | None = None) -> Migrated:
    """Bring the tables to this version, in one transaction; several processes may do it at once.

    A file is copied first: its folder then has it twice, as `NAME.before-REVISION`.

    With `roles`, what each may do is written in the same transaction, where the server has them.

    Raises:
        ConfigError: the database was written by a newer version; or its tables are older, and this
            role may not migrate them.
    """
    if database.dialect == "postgresql" and roles is None:
        if database.read(_is_current):
            return Migrated(HEAD, Roles())
        if not database.read(_may_migrate):
            _expect_current(database)
            return Migrated(HEAD, Roles())
    # SQLite: every write transaction takes the one lock there is as it begins.
    with database.transaction() as session:
        connection = session.connection()
        if connection.dialect.name == "postgresql":
            if not _may_migrate(session):
                raise _refusal(database, session)
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        before = _revision(connection)
        if before != HEAD:
            file = connection.engine.url.database
            if connection.dialect.name == "sqlite" and file and before and before < HEAD:
                copy_before(Path(file), before)  # nobody writes: this transaction has the lock
            _run_migrations(connection, database.name)
        granted = Roles()
        if roles is not None and connection.dialect.name == "postgresql":
            granted = existing(connection, roles)
            if granted != Roles():
                write_grants(connection, granted)
    return Migrated(before, granted)


def _is_current(session: Session) -> bool:
    return _revision(session.connection()) == HEAD


def refuse_other_role(database: Database) -> None:
    """Refuse a role that does not own the tables, before anything of what it is for is done.

    Raises:
        ConfigError: it does not; names the role and the setting.
    """
    if database.dialect != "postgresql" or database.read(_may_migrate):
        return
    role = database.read(lambda session: session.scalar(text("SELECT current_user")))
    raise ConfigError(
        f"{database.name}: the role {role} does not own the tables, so it may not fill them; give "
        "the owner's address as EVERGREEN_RECORDS_OWNER_URL (in compose: run the service `owner`)"
    )


def _may_migrate(session: Session) -> bool:
    """Tell whether this role owns the tables, or may make them where there are none."""
    owns = session.scalar(
        text(
            "SELECT pg_catalog.pg_has_role(current_user, relowner, 'USAGE') "
            "FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass(:table)"
        ),
        {"table": VERSION_TABLE},
    )
    if owns is None:
        owns = session.scalar(
            text(
                "SELECT pg_catalog.has_schema_privilege(current_user, "
                "pg_catalog.current_schema()::text, 'CREATE')"
            )
        )
    return bool(owns)


def _expect_current(database: Database) -> None:
    """Return once the tables are of this version.

    Raises:
        ConfigError: they are of another one, and nobody is at work on them.
    """

    def settled(session: Session) -> bool:
        # A lock that is shared at once: nobody migrates.
        idle = session.scalar(
            text("SELECT pg_catalog.pg_try_advisory_xact_lock_shared(:lock)"), {"lock": _LOCK}
        )
        return bool(idle)

    wait_for(lambda: database.read(settled), seconds=WAIT_SECONDS, every=0.5)
    # In a snapshot of its own: the one of the question before may be older than the migration.
    if not database.read(_is_current):
        raise database.read(lambda session: _refusal(database, session))


def _refusal(database: Database, session: Session) -> ConfigError:
    found = _revision(session.connection())
    if found is not None and found > HEAD:
        return _newer(database.name, f"its tables are of version {found}, ours are {HEAD}")
    role = session.scalar(text("SELECT current_user"))
    if found is None:
        held = "has no tables yet"
    else:  # of this version it is where grants were to be written
        other = f", not {HEAD}" if found != HEAD else ", as this version needs, but of another role"
        held = f"has tables of version {found}{other}"
    return ConfigError(
        f"{database.name} {held}, and the role {role} may not migrate them; {_REMEDY}"
    )


def _newer(name: str, reason: str) -> ConfigError:
    return ConfigError(
        f"{name} was written by another version of Evergreen ({reason}); install that version, "
        "or name another database"
    )


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
        raise _newer(name, str(error)) from None
