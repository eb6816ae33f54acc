"""Say what each role of the database may do, and grant it: PostgreSQL's part of the protection.

The owner migrates, and is nobody's login but that of `evergreen migrate`. Workers write what stages
come to, but no row of the audit log twice. A node reads what it follows, writes its observations,
and rolls back; which changes are a rollback is decided by `guards`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

from include.records.columns import Base
from include.records.guards import write_guards
from include.records.schema import VERSION_TABLE

_READ: Mapping[str, tuple[str, ...]] = {"SELECT": ()}
_WRITE: Mapping[str, tuple[str, ...]] = {"SELECT": (), "INSERT": (), "UPDATE": (), "DELETE": ()}
_REPORT: Mapping[str, tuple[str, ...]] = {"SELECT": (), "INSERT": (), "UPDATE": ()}
# An audit row is never changed or removed; its end is moved on, and a guard looks at where to.
_APPEND: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "audit": {"SELECT": (), "INSERT": ()},
    "audit_head": {"SELECT": (), "UPDATE": ("sequence", "hash")},
    "epochs": _READ,  # a restore, which begins one, is the owner's work
    VERSION_TABLE: _READ,
}

Grants = Mapping[str, Mapping[str, tuple[str, ...]]]
"""By table and privilege the columns that it is for; none: the whole table."""

WORKER: Grants = {
    **_APPEND,
    "feature_sets": _WRITE,
    "freezes": _WRITE,
    "leases": {"SELECT": (), "INSERT": (), "UPDATE": ()},  # their tokens must go on rising
    "models": _WRITE,
    "observations": {"SELECT": (), "DELETE": ()},
    "observed": {"SELECT": (), "DELETE": ()},
    "online": _WRITE,
    "opponents": _WRITE,
    "partitions": _WRITE,
    "probations": _WRITE,
    "reads": _WRITE,
    "redriven": _WRITE,
    "release_beats": _WRITE,
    "release_evidence": _WRITE,
    "release_guards": _WRITE,
    "release_windows": _WRITE,
    "releases": _WRITE,
    "results": _WRITE,
    "routes": _WRITE,
}
NODE: Grants = {
    **_APPEND,
    "freezes": _READ,
    "models": {"SELECT": (), "UPDATE": ("state",)},
    "observations": _REPORT,
    "release_beats": _READ,
    "release_guards": _REPORT,
    "release_windows": _REPORT,
    "releases": {
        "SELECT": (),
        "UPDATE": ("state", "reason", "ended_at", "rolled_back_by_itself", "revision"),
    },
    "routes": {
        "SELECT": (),
        "UPDATE": (
            "champion",
            "previous",
            "challenger",
            "step",
            "weight",
            "generation",
            "rollback_generation",
            "held",
            "release_id",
            "mode",
            "share",
            "release_key",
        ),
    },
}


@dataclass(frozen=True)
class Roles:
    """The names of the roles of the records; None: there is no such role here."""

    worker: str | None = None
    node: str | None = None


def existing(connection: Connection, roles: Roles) -> Roles:
    """Return those of the roles that the server has and that do not own the tables anyway."""

    def known(name: str | None) -> str | None:
        found = connection.scalar(
            text(
                "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = :name "
                "AND rolname <> current_user AND NOT rolsuper"
            ),
            {"name": name},
        )
        return None if found is None else str(found)

    return Roles(known(roles.worker), known(roles.node))


def write_grants(connection: Connection, roles: Roles) -> None:
    """Let each role do what its table says, and no more; the guards are written with them.

    Done again, it is the same: what a person granted beside it is taken back.
    """
    quote = connection.dialect.identifier_preparer.quote_identifier
    schema = quote(str(connection.scalar(text("SELECT pg_catalog.current_schema()"))))
    tables = [*Base.metadata.tables, VERSION_TABLE]
    listed = ", ".join(f"{schema}.{quote(table)}" for table in tables)
    statements = [
        f"REVOKE ALL ON SCHEMA {schema} FROM PUBLIC",
        f"REVOKE ALL ON {listed} FROM PUBLIC",
    ]
    for name, grants in ((roles.worker, WORKER), (roles.node, NODE)):
        if name is None:
            continue
        role = quote(name)
        statements += [
            f"REVOKE ALL ON {listed} FROM {role}",  # with a table's go those of its columns
            f"REVOKE ALL ON SCHEMA {schema} FROM {role}",
            f"GRANT USAGE ON SCHEMA {schema} TO {role}",
        ]
        for table, privileges in grants.items():
            for privilege, columns in privileges.items():
                of = f" ({', '.join(map(quote, columns))})" if columns else ""
                statements.append(f"GRANT {privilege}{of} ON {schema}.{quote(table)} TO {role}")
    for statement in statements:
        connection.exec_driver_sql(statement)
    write_guards(connection, schema=schema, worker=roles.worker)
