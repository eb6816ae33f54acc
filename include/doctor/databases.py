"""Examine the databases: the records with their audit log, and MLflow's."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, inspect, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from include.doctor.findings import Finding, Patient, Subject, clock_finding, first_line
from include.doctor.grants import examine_grants
from include.records import audit
from include.records.epochs import read_epoch
from include.records.schema import HEAD, VERSION_TABLE, AuditHead

CONNECT_SECONDS = 4
OLDEST_POSTGRES = 13  # the oldest that its makers still mend
TOLERATED_SECONDS = 2.0  # clocks are compared nowhere, but for what is "complete" by now
_REVISION = re.compile(r"^(down_)?revision\s*=\s*(.*)$", re.MULTILINE)
_QUOTED = re.compile(r"[\"'](\w+)[\"']")
CROWDED = 0.8  # of the connections that the server allows


@contextmanager
def connected(url: URL, seconds: float) -> Iterator[Connection]:
    """Give a connection that can only read, and whose questions end within so many seconds."""
    if url.get_backend_name() == "sqlite":
        path = Path(str(url.database)).absolute()
        # Read-only: a database that is not there would be made.
        engine = create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2),
            poolclass=NullPool,
            hide_parameters=True,
        )
    else:
        milliseconds = round(seconds * 1000)
        asked = f"-c default_transaction_read_only=on -c statement_timeout={milliseconds}"
        given = url.query.get("options", "")
        given = given if isinstance(given, str) else " ".join(given)
        engine = create_engine(
            url.update_query_dict({"options": f"{given} {asked}".strip()}),
            connect_args={"connect_timeout": CONNECT_SECONDS, "application_name": "evergreen"},
            poolclass=NullPool,
            hide_parameters=True,
        )
    with engine.connect() as connection:
        yield connection


def address_of(given: str) -> URL:
    """Return a database's URL with the driver that is installed."""
    url = make_url(given)
    is_postgres = url.drivername in ("postgres", "postgresql")
    return url.set(drivername="postgresql+psycopg") if is_postgres else url


def shown(url: URL) -> str:
    """Return a database's address with its user, and without password and query."""
    kind, user, database = url.get_backend_name(), url.username, url.database
    bare = URL.create(kind, username=user, host=url.host, port=url.port, database=database)
    return bare.render_as_string()


@contextmanager
def records_session(patient: Patient, table: str) -> Iterator[Session | None]:
    """Give a session of the records that can only read; None where they are away, or lack a table.

    That they are is told by their own check. A question that fails is not: it is a finding of
    whoever asks, since nothing found would read as nothing wrong.
    """
    url = address_of(patient.settings.records_address)
    with ExitStack() as stack:
        found = None
        if url.get_backend_name() != "sqlite" or Path(str(url.database)).exists():
            with suppress(SQLAlchemyError):
                connection = stack.enter_context(connected(url, patient.seconds))
                if inspect(connection).has_table(table):
                    found = stack.enter_context(Session(connection))
        yield found


def examine_records(patient: Patient) -> Iterator[Finding]:
    """Look at the database of record: version, migrations, role, clock, connections, epoch."""
    subject = Subject("records")
    url = address_of(patient.settings.records_address)
    if (missing := _missing(subject, url)) is not None:
        yield missing
        return
    try:
        with connected(url, patient.seconds) as connection:
            yield _reached(subject, url, connection)
            yield _migrated(subject, connection)
            if connection.dialect.name == "postgresql":
                yield from _postgres(subject, connection, patient)
                yield from examine_grants(subject, connection)
            if inspect(connection).has_table("epochs"):
                epoch = read_epoch(Session(connection))
                yield subject.ok("epoch", f"{epoch}, raised by each restore")
    except Exception as error:  # noqa: BLE001 - drivers raise what they like
        yield _unreachable(subject, url, error, "EVERGREEN_RECORDS_URL")


def examine_audit(patient: Patient) -> Iterator[Finding]:
    """Verify the chain of the audit log."""
    subject = Subject("audit log")
    url = address_of(patient.settings.records_address)
    if _missing(subject, url) is not None:
        return
    try:
        with connected(url, patient.seconds) as connection:
            if not inspect(connection).has_table("audit_head"):
                return
            with Session(connection) as session:
                fault = audit.first_fault(session, None)
                end = session.get(AuditHead, 1)
    except Exception as error:  # noqa: BLE001 - drivers raise what they like
        yield subject.warn(
            "chain", f"not verified: {first_line(error)}", "mend the records first, or wait longer"
        )
        return
    if fault is None and end is not None:
        yield subject.ok("chain", f"whole, {end.sequence} rows, ends in {end.hash[:12]}")
    elif fault is not None:
        yield subject.fail(
            "chain",
            f"row {fault.sequence} {fault.reason}",
            "somebody, or something, has changed the log: compare with a backup "
            "(`evergreen audit verify` says more)",
        )


def examine_mlflow(patient: Patient) -> Iterator[Finding]:
    """Look at MLflow's database, or ask its server."""
    subject = Subject("MLflow")
    address = patient.settings.mlflow_address
    if address.startswith(("http://", "https://")):
        yield _asked(subject, address, patient)
        return
    url = address_of(address)
    if (missing := _missing(subject, url)) is not None:
        yield missing
        return
    try:
        with connected(url, patient.seconds) as connection:
            yield _reached(subject, url, connection)
            if connection.dialect.name == "postgresql":
                yield from _postgres(subject, connection, patient)
            present = _revision(connection, "alembic_version")
    except Exception as error:  # noqa: BLE001 - drivers raise what they like
        yield _unreachable(subject, url, error, "EVERGREEN_MLFLOW_URI")
        return
    newest = _mlflow_head()
    if newest is None:
        yield subject.ok("migrations", f"at {present}")
    elif present == newest:
        yield subject.ok("migrations", f"{present}, as this MLflow needs")
    elif present is None:
        yield subject.warn("migrations", "its tables are not made", "the first training makes them")
    else:
        yield subject.fail(
            "migrations",
            f"at {present}, this MLflow needs {newest}",
            "`mlflow db upgrade` after a backup, or install the MLflow that made it",
        )


def examine_airflow(patient: Patient) -> Iterator[Finding]:
    """Look at Airflow's own database, where this process is told of it."""
    subject, given = Subject("Airflow's database"), patient.settings.airflow_database_url
    if not given.get_secret_value():
        return
    url = address_of(patient.settings.airflow_database)
    try:
        with connected(url, patient.seconds) as connection:
            yield _reached(subject, url, connection)
            if connection.dialect.name == "postgresql":
                yield from _postgres(subject, connection, patient)
    except Exception as error:  # noqa: BLE001 - drivers raise what they like
        yield _unreachable(subject, url, error, "EVERGREEN_AIRFLOW_DATABASE_URL")


def _missing(subject: Subject, url: URL) -> Finding | None:
    if url.get_backend_name() != "sqlite" or Path(str(url.database)).exists():
        return None
    return subject.warn("reachable", f"{url.database} is not made yet", "`make run` makes it")


def _reached(subject: Subject, url: URL, connection: Connection) -> Finding:
    began = time.perf_counter()
    if connection.dialect.name == "sqlite":
        version = connection.execute(text("SELECT sqlite_version()")).scalar_one()
        return subject.ok("reachable", f"SQLite {version}, {url.database}")
    version = connection.execute(text("SHOW server_version")).scalar_one()
    took = (time.perf_counter() - began) * 1000
    name = f"PostgreSQL {str(version).split()[0]}, {shown(url)}, answers in {took:.0f} ms"
    if int(str(version).split(".", maxsplit=1)[0]) < OLDEST_POSTGRES:
        remedy = f"move to PostgreSQL {OLDEST_POSTGRES} or newer: nobody mends this one any more"
        return subject.warn("reachable", name, remedy)
    return subject.ok("reachable", name)


def _unreachable(subject: Subject, url: URL, error: Exception, setting: str) -> Finding:
    reason = first_line(getattr(error, "orig", None) or error)
    if url.password:
        reason = reason.replace(str(url.password), "***")
    return subject.fail(
        "reachable",
        f"{shown(url)}: {reason}",
        f"start it, or mend {setting}: host, port, user, password and name of the database",
    )


def _revision(connection: Connection, table: str) -> str | None:
    if not inspect(connection).has_table(table):
        return None
    revision = connection.execute(text(f"SELECT version_num FROM {table}")).scalar()
    return None if revision is None else str(revision)


def _migrated(subject: Subject, connection: Connection) -> Finding:
    present = _revision(connection, VERSION_TABLE)
    if present == HEAD:
        return subject.ok("migrations", f"{present}, as this code needs")
    if present is None:
        return subject.fail(
            "migrations",
            "it has no tables",
            "`evergreen migrate`, as the role that is to own them (compose: the init job does)",
        )
    if present < HEAD:
        return subject.fail(
            "migrations",
            f"at {present}, this code needs {HEAD}",
            "`evergreen migrate`, as the role that owns them (compose: the init job does)",
        )
    return subject.fail(
        "migrations",
        f"at {present}, which is newer than this code ({HEAD})",
        "install the version that wrote it",
    )


def _postgres(subject: Subject, connection: Connection, patient: Patient) -> Iterator[Finding]:
    role = connection.execute(
        text(
            "SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls FROM pg_roles "
            "WHERE rolname = current_user"
        )
    ).one()
    powers = ("superuser", "makes roles", "makes databases", "passes row security")
    too_much = [name for name, has in zip(powers, role[1:], strict=True) if has]
    if too_much:
        yield subject.warn(
            "role",
            f"{role[0]} may more than it should: {', '.join(too_much)}",
            "give tasks, commands and nodes a role of their own without these",
        )
    else:
        yield subject.ok("role", f"{role[0]}, no power over the server")
    before = patient.now()
    theirs: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    after = patient.now()
    ahead = (theirs - (before + (after - before) / 2)).total_seconds()
    yield clock_finding(
        subject,
        ahead,
        whose="the database's clock",
        tolerated=TOLERATED_SECONDS,
        hurts="which partition is complete, and how old a feature is, is told by this machine's",
    )
    used, most = connection.execute(
        text(
            "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), "
            "current_setting('max_connections')::int"
        )
    ).one()
    taken = f"{used} of {most} are open"
    if used > CROWDED * most:
        remedy = "raise max_connections, or lower the pools of workers and nodes"
        yield subject.warn("connections", taken, remedy)
    else:
        yield subject.ok("connections", taken)


def _asked(subject: Subject, address: str, patient: Patient) -> Finding:
    import httpx

    url: Any = httpx.URL(address).copy_with(query=None)
    shown_url = str(url.copy_with(username=None, password=None)).rstrip("/")
    try:
        answer = httpx.get(f"{address.rstrip('/')}/health", timeout=patient.seconds / 2)
    except httpx.HTTPError as error:
        remedy = "start it, or mend EVERGREEN_MLFLOW_URI"
        return subject.fail("reachable", f"{shown_url}: {first_line(error)}", remedy)
    if answer.is_success:
        return subject.ok("reachable", f"server at {shown_url}")
    remedy = "look at its log"
    return subject.fail("reachable", f"{shown_url} answers {answer.status_code}", remedy)


def _mlflow_head() -> str | None:
    """Return the newest revision that the installed MLflow knows; None where it cannot be told.

    Read from its files: to run them, as Alembic does, imports all of MLflow, which takes seconds.
    """
    from importlib.util import find_spec

    spec = find_spec("mlflow")
    if spec is None or spec.origin is None:
        return None
    known, followed = set[str](), set[str]()
    folder = Path(spec.origin).parent / "store" / "db_migrations" / "versions"
    for path in folder.glob("*.py"):
        for name, value in _REVISION.findall(path.read_text(encoding="utf-8")):
            (followed if name else known).update(_QUOTED.findall(value))
    heads = known - followed
    return heads.pop() if len(heads) == 1 else None
