"""Make the roles and databases that the settings name, as a superuser of PostgreSQL.

Passwords are those of the settings' addresses. The server is told what SCRAM verifies them by, made
here: neither it nor its log ever has a password.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from include.config.settings import Settings
from include.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    import psycopg

OWNER = "records_owner_url"
# By setting, whose database each address names: its owner has all rights there.
_OWNED_BY = {
    OWNER: OWNER,
    "records_url": OWNER,
    "records_node_url": OWNER,
    "mlflow_uri": OWNER,
    "mlflow_reader_uri": OWNER,
}
_LOCK = 0x45565253  # "EVRS": the number of the advisory lock of whoever makes roles
_ATTRIBUTES = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"


@dataclass(frozen=True)
class Login:
    """A role and the database that it is for, as the address in a setting names them."""

    setting: str
    role: str
    database: str
    password: str = field(repr=False)


def postgres_url(settings: Settings, name: str) -> URL | None:
    """Return the address in a setting; None where it is empty, or none of PostgreSQL.

    Raises:
        ConfigError: it is no URL.
    """
    text = getattr(settings, name).get_secret_value()
    if not text:
        return None
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigError(
            f"EVERGREEN_{name.upper()} is no database URL; write postgresql://user:password@"
            "host:5432/database"
        ) from None
    is_postgres = url.drivername.partition("+")[0] in {"postgresql", "postgres"}
    return url if is_postgres else None


def role_of(settings: Settings, name: str) -> str | None:
    """Return the role that the address in a setting logs in as."""
    url = postgres_url(settings, name)
    return None if url is None else url.username


def make_roles(settings: Settings) -> list[str]:
    """Make the roles and databases that are missing, and return their names.

    A role that is there gets its password and loses what it has beside it; nobody but the roles of
    a database may connect to it.

    Raises:
        ConfigError: an address names no role or no database, or a superuser.
        Unavailable: the server does not answer, or does not let this user do it.
    """
    logins = _logins(settings)
    made = []
    with _connected(settings) as server:
        server.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))  # until this connection ends
        for login in logins:
            if _make_role(server, login):
                made.append(f"role {login.role}")
        owners = {login.setting: login.role for login in logins}
        for database in dict.fromkeys(login.database for login in logins):
            users = [login for login in logins if login.database == database]
            owner = owners[_OWNED_BY[users[0].setting]]
            if _make_database(server, database, owner):
                made.append(f"database {database}")
            _admit(server, database, [owner, *(login.role for login in users)])
            with _connected(settings, database) as inside:
                _own_schema(inside, owner)
    return made


def _logins(settings: Settings) -> list[Login]:
    logins = []
    for name in _OWNED_BY:
        url = postgres_url(settings, name)
        if url is None:
            continue
        if not url.username or not url.database:
            raise ConfigError(
                f"EVERGREEN_{name.upper()} names no role or no database; write "
                "postgresql://user:password@host:5432/database"
            )
        logins.append(Login(name, url.username, url.database, str(url.password or "")))
    if all(login.setting != OWNER for login in logins):
        raise ConfigError(
            "EVERGREEN_POSTGRES_ADMIN_URL is given, and EVERGREEN_RECORDS_OWNER_URL is not: name "
            "there the role that is to own the tables"
        )
    return logins


@contextmanager
def _connected(settings: Settings, database: str = "") -> Iterator[psycopg.Connection]:
    import psycopg

    url = postgres_url(settings, "postgres_admin_url")
    if url is None:
        raise ConfigError(
            "EVERGREEN_POSTGRES_ADMIN_URL is no address of PostgreSQL; write "
            "postgresql://user:password@host:5432/postgres"
        )
    # By words and not by an address: libpq reads other escapes in one than SQLAlchemy writes.
    words: dict[str, Any] = url.translate_connect_args(username="user", database="dbname")
    words |= {"dbname": database or url.database or "postgres", **url.query}
    try:
        with psycopg.connect(autocommit=True, connect_timeout=10, **words) as server:
            yield server
    except psycopg.Error as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        shown = reason.replace(str(url.password), "***") if url.password else reason
        raise Unavailable(
            f"PostgreSQL at {url.host or 'the local socket'} as {url.username}: {shown}. Start it, "
            "or give EVERGREEN_POSTGRES_ADMIN_URL a superuser"
        ) from None


def _make_role(server: psycopg.Connection, login: Login) -> bool:
    """Make a role, or set one right that is there; tell whether it was made."""
    from psycopg import sql

    role = sql.Identifier(login.role)
    known = server.execute(
        "SELECT rolsuper FROM pg_roles WHERE rolname = %s", (login.role,)
    ).fetchone()
    if known is not None and known[0]:
        raise ConfigError(
            f"EVERGREEN_{login.setting.upper()} names {login.role}, a superuser: nothing would be "
            "refused to it. Name a role of its own, which is made"
        )
    verb = "CREATE" if known is None else "ALTER"
    server.execute(sql.SQL(f"{verb} ROLE {{}} {_ATTRIBUTES}").format(role))
    if login.password:
        verifier = server.pgconn.encrypt_password(
            login.password.encode(), login.role.encode(), b"scram-sha-256"
        ).decode()
        server.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, sql.Literal(verifier)))
    # A member of another role may become it.
    for (other,) in server.execute(
        "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = %s::regrole",
        (sql.Identifier(login.role).as_string(server),),
    ).fetchall():
        server.execute(sql.SQL(f"REVOKE {other} FROM {{}}").format(role))  # quoted by the server
    return known is None


def _make_database(server: psycopg.Connection, database: str, owner: str) -> bool:
    from psycopg import sql

    names = (sql.Identifier(database), sql.Identifier(owner))
    known = server.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone()
    if known is None:
        server.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*names))
    else:
        server.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(*names))
    return known is None


def _admit(server: psycopg.Connection, database: str, roles: Sequence[str]) -> None:
    """Let these roles connect to a database, and nobody else."""
    from psycopg import sql

    name = sql.Identifier(database)
    server.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
    for role in dict.fromkeys(roles):
        server.execute(
            sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, sql.Identifier(role))
        )


def _own_schema(inside: psycopg.Connection, owner: str) -> None:
    """Let the owner alone make anything in a database; before PostgreSQL 15 everybody could."""
    from psycopg import sql

    inside.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    inside.execute(sql.SQL("GRANT ALL ON SCHEMA public TO {}").format(sql.Identifier(owner)))
