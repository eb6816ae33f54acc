"""Examine what the role of the records may do: as much as its work needs, and no more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import Connection, inspect, text

from include.doctor.findings import Finding, Subject
from include.records.columns import Base
from include.records.roles import NODE, WORKER, Grants

PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")


def examine_grants(subject: Subject, connection: Connection) -> Iterator[Finding]:
    """Compare what the role may do with its table: the workers' or the nodes', whichever is nearer.

    The owner may do anything, as on a machine with one role for all.
    """
    names = [name for name in Base.metadata.tables if inspect(connection).has_table(name)]
    if _owns(connection, names):
        yield subject.ok("grants", "it owns the tables: it may migrate and change all of them")
        return
    allowed = {name: _allowed(connection, name) for name in names}
    lacks, exceeds, who = min(
        (
            (*_compare(allowed, grants), who)
            for who, grants in (("workers and commands", WORKER), ("nodes", NODE))
        ),
        key=lambda each: len(each[0]) + len(each[1]),
    )
    if lacks:
        yield subject.fail(
            "grants",
            f"as one of {who} it lacks {_some(lacks)}",
            "`evergreen migrate` as the owner writes them (compose: the init job)",
        )
    if exceeds:
        yield subject.warn(
            "grants",
            f"as one of {who} it may more than it should: {_some(exceeds)}",
            "`evergreen migrate` as the owner takes that back",
        )
    if not lacks and not exceeds:
        yield subject.ok("grants", f"those of {who}, no more and no less")


def _owns(connection: Connection, names: Sequence[str]) -> bool:
    asked = text(
        "SELECT bool_and(pg_has_role(current_user, relowner, 'USAGE')) FROM pg_class "
        "WHERE oid = ANY(SELECT to_regclass(name) FROM unnest(cast(:names AS text[])) AS name)"
    )
    return bool(connection.execute(asked, {"names": list(names)}).scalar())


def _allowed(connection: Connection, table: str) -> dict[str, bool]:
    """Return by privilege whether it is for the whole table, or for some columns."""
    asked = text(
        "SELECT privilege, has_table_privilege(:table, privilege), CASE WHEN privilege = 'DELETE' "
        "THEN false ELSE has_any_column_privilege(:table, privilege) END "
        "FROM unnest(cast(:privileges AS text[])) AS privilege"
    )
    rows = connection.execute(asked, {"table": table, "privileges": list(PRIVILEGES)})
    return {privilege: bool(whole) for privilege, whole, some in rows if whole or some}


def _compare(
    allowed: Mapping[str, Mapping[str, bool]], grants: Grants
) -> tuple[list[str], list[str]]:
    """Return what is lacking, and what is too much."""
    lacks, exceeds = list[str](), list[str]()
    for table, found in allowed.items():
        wanted = grants.get(table, {})
        lacks += [f"{each} on {table}" for each in wanted if each not in found]
        exceeds += [f"{each} on {table}" for each in found if each not in wanted]
        exceeds += [
            f"{each} on all columns of {table}"
            for each, columns in wanted.items()
            if columns and found.get(each)
        ]
    return lacks, exceeds


def _some(things: Sequence[str]) -> str:
    more = f" and {len(things) - 4} more" if len(things) > 4 else ""
    return ", ".join(things[:4]) + more
