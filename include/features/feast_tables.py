"""Feast's registry in PostgreSQL, where the records are: a schema of its own beside them.

Its tables are Feast's own (`SqlRegistry`), made by their owner: Feast itself only looks whether
they are there.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from include.config.settings import Settings
from include.errors import Unavailable
from include.records.database import Database

SCHEMA = "feast"


def address_of(settings: Settings) -> str | None:
    """Return the address of Feast's registry, with its password; None: it is a file.

    Never log it.
    """
    try:
        url = make_url(settings.records_address)
    except (ArgumentError, ValueError):
        return None  # the records refuse it, with the right form
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        return None
    return address(url)


def address(url: URL) -> str:
    """Return a database's address with the tables of Feast in front; never log it."""
    given = url.query.get("options", ())
    options = " ".join([given] if isinstance(given, str) else given)
    return (
        url.set(drivername="postgresql+psycopg")
        .update_query_dict({"options": f"{options} -csearch_path={SCHEMA}".strip()})
        .render_as_string(hide_password=False)
    )


def registry(address: str) -> dict[str, Any]:
    """Return the registry's part of Feast's configuration; it holds the password."""
    return {
        "registry_type": "sql",
        "path": address,
        "schema_mode": "verify",
        # Each process reads it whole as it opens it, and is a task's: nothing is read again.
        "cache_ttl_seconds": 0,
        "sqlalchemy_config_kwargs": {
            "pool_pre_ping": True,
            "pool_size": 1,
            "hide_parameters": True,
        },
    }


def ensure(settings: Settings, address: str) -> None:
    """Make the tables where there are none and this role may, as that of a single-role database.

    Raises:
        Unavailable: there are none, and it may not.
    """
    there = text("SELECT pg_catalog.to_regclass(:table) IS NOT NULL")
    table = {"table": f"{SCHEMA}.feature_services"}
    if not _database(address, settings.database_patience).read(
        lambda session: session.scalar(there, table)
    ):
        migrate(make_url(address), worker=None)


def is_registered(settings: Settings, address: str, project: str, service: str, token: str) -> bool:
    """Tell whether a feature service of this name has a tag with this token.

    Without parsing it, which would import feast: protobuf keeps a tag as its bytes.
    """
    there = text("SELECT pg_catalog.to_regclass(:table) IS NOT NULL")
    registered = text(
        "SELECT count(*) > 0 FROM feature_services WHERE project_id = :project "
        "AND feature_service_name = :service AND position(:token IN feature_service_proto) > 0"
    )
    values = {"project": project, "service": service, "token": token.encode()}
    return _database(address, settings.database_patience).read(
        lambda session: bool(
            session.scalar(there, {"table": f"{SCHEMA}.feature_services"})
            and session.scalar(registered, values)
        )
    )


@lru_cache(maxsize=4)
def _database(address: str, patience: float) -> Database:
    return Database(address, patience=patience, pool=1)


def migrate(url: URL, *, worker: str | None) -> None:
    """Make Feast's tables as their owner, and let the workers' role write them.

    Raises:
        Unavailable: the database does not let this role do it.
    """
    from include.features import feast_unchecked  # noqa: F401 - before feast

    # isort: split
    from feast.infra.registry.sql import metadata

    engine = create_engine(address(url), poolclass=NullPool, hide_parameters=True)
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('evergreen feast'))"))
            connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            metadata.create_all(connection)
            if worker is not None:
                role = connection.dialect.identifier_preparer.quote_identifier(worker)
                connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}")
                connection.exec_driver_sql(
                    f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {SCHEMA} "
                    f"TO {role}"
                )
    except SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", error)).split())
        shown = url.set(query={}).render_as_string(hide_password=True)
        raise Unavailable(
            f"the tables of Feast's registry cannot be made in {shown} ({reason}); run `evergreen "
            "migrate` as the owner of the database"
        ) from None
