"""A PostgreSQL database of a test's own, with the roles that an installation has."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import make_url, text

from include.config.settings import Settings
from include.installation.databases import owners_records, roles_of
from include.installation.postgres_roles import make_roles
from include.records.columns import Base
from include.records.records import Records
from tests.conftest import POSTGRES


@dataclass(frozen=True)
class Place:
    """The addresses of a database for each role, and the prefix of their names."""

    prefix: str
    admin: str
    owner: str
    worker: str
    node: str

    def settings(self, home: Path, **changes: object) -> Settings:
        """Return the settings of the process that prepares this database."""
        values = {
            "postgres_admin_url": self.admin,
            "records_owner_url": self.owner,
            "records_url": self.worker,
            "records_node_url": self.node,
            **changes,
        }
        secret = {name: SecretStr(str(value)) for name, value in values.items()}
        return Settings(home=home, **secret)

    def open(self, role: str) -> Records:
        """Open the records as a role, without waiting for what does not answer."""
        return Records.open(getattr(self, role), patience=2.0)

    def url(self, role: str, database: str = "") -> str:
        """Return the address of one of this test's databases for a role of this test."""
        return _as(f"{self.prefix}_{role}", f"{self.prefix}{database}")


def _as(user: str, database: str) -> str:
    url = make_url(POSTGRES).set(username=user, password=f"pass of {user}", database=database)
    return url.render_as_string(hide_password=False)


@contextmanager
def bare_place() -> Iterator[Place]:
    """Give names that nobody has; what was made under them goes at the end."""
    admin = make_url(POSTGRES).set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        server = psycopg.connect(admin, autocommit=True, connect_timeout=30)
    except psycopg.OperationalError as error:
        pytest.skip(f"PostgreSQL does not answer ({str(error).strip().splitlines()[0]})")
    prefix = f"evergreen_test_{uuid.uuid4().hex[:10]}"
    roles = {name: _as(f"{prefix}_{name}", prefix) for name in ("owner", "worker", "node")}
    with server:
        try:
            yield Place(prefix, POSTGRES, **roles)
        finally:
            pattern = (f"{prefix}%",)
            for (name,) in server.execute(
                "SELECT datname FROM pg_database WHERE datname LIKE %s", pattern
            ).fetchall():
                server.execute(
                    sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
                )
            for (name,) in server.execute(
                "SELECT rolname FROM pg_roles WHERE rolname LIKE %s", pattern
            ).fetchall():
                server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@contextmanager
def prepared_place() -> Iterator[Place]:
    """Give a database of this version with its roles."""
    with bare_place() as place, tempfile.TemporaryDirectory() as home:
        settings = place.settings(Path(home))
        make_roles(settings)
        owner = owners_records(settings)
        owner.migrate(roles=roles_of(settings))
        owner.close()
        yield place
        for role in ("owner", "worker", "node"):
            place.open(role).close()


def empty(place: Place) -> None:
    """Remove all rows of the records, the audit log's too."""
    with place.open("owner").transaction() as session:
        session.execute(text("ALTER TABLE audit DISABLE TRIGGER audit_no_change"))
        for table in (*Base.metadata.tables,):
            if table != "audit_head":
                session.execute(text(f'DELETE FROM "{table}"'))
        session.execute(text("ALTER TABLE audit ENABLE TRIGGER audit_no_change"))
        session.execute(text("UPDATE audit_head SET sequence = 0, hash = repeat('0', 64)"))
