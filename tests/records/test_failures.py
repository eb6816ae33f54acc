"""Which failures of a database may pass, and what is said of the others."""

from __future__ import annotations

import sqlite3

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from include.errors import Busy, ConfigError, Conflict, Unavailable
from include.records.failures import explain, is_transient

psycopg = pytest.importorskip("psycopg")


def of_server(state: str | None, text: str = "x", *, lost: bool = False) -> DBAPIError:
    """Return an error of PostgreSQL; no state means that no server has answered."""
    origin = psycopg.OperationalError(text)
    origin.sqlstate = state
    return OperationalError("SELECT 1", {}, origin, connection_invalidated=lost)


def of_sqlite(text: str) -> DBAPIError:
    return OperationalError("SELECT 1", {}, sqlite3.OperationalError(text))


@pytest.mark.parametrize(
    ("error", "may_pass"),
    [
        (of_server("40001"), True),
        (of_server("40P01"), True),
        (of_server("57P03"), True),
        (of_server("53300"), True),
        (of_server("08006"), True),
        (of_server(None, "connection refused"), True),
        (of_server("42601", lost=True), True),
        (of_server(None, "FATAL: password authentication failed"), False),
        (of_server(None, 'database "x" does not exist'), False),
        (of_server("53100", "disk full"), False),
        (of_server("42601", "syntax error"), False),
        (of_server("23505"), False),
        (of_sqlite("database is locked"), False),
        (of_sqlite("unable to open database file"), False),
        (PoolTimeout(), False),
        (ValueError("of ours"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, may_pass: bool) -> None:
    assert is_transient(error) is may_pass


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (of_sqlite("no such table: results"), ConfigError, "has no tables yet"),
        (of_server("42P01"), ConfigError, "has no tables yet"),
        (of_sqlite("database is locked"), Busy, "kept here locked for 30 s"),
        (of_server("55P03"), Busy, "kept here locked"),
        (
            IntegrityError("INSERT", {}, sqlite3.IntegrityError("UNIQUE")),
            Conflict,
            "refuses the row",
        ),
        (PoolTimeout(), Unavailable, "fewer threads"),
        (of_sqlite("database disk image is malformed"), Unavailable, "is damaged"),
        (of_sqlite("database or disk is full"), Unavailable, "no space is left"),
        (of_server("53100"), Unavailable, "no space is left"),
        (of_sqlite("disk I/O error"), Unavailable, "does not answer"),
        (of_server("28P01", "password authentication failed"), Unavailable, "does not answer"),
        (of_server("3D000"), Unavailable, "does not answer"),
    ],
)
def test_each_failure_has_its_class_and_its_remedy(
    error: DBAPIError, kind: type[Exception], message: str
) -> None:
    explained = explain(error, database="here")
    assert type(explained) is kind
    assert message in str(explained)


def test_a_mistake_of_our_own_stays_what_it_is() -> None:
    mistake = ProgrammingError("SELECT", {}, sqlite3.ProgrammingError("wrong number of bindings"))
    assert explain(mistake, database="here") is mistake


def test_no_secret_is_told() -> None:
    explained = explain(
        of_server(None, "no route for s3cret"), database="here", secrets=["", "s3cret"]
    )
    assert "no route for ***" in str(explained)
