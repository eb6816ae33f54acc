"""What the doctor says of databases: away, of another version, with another role, changed."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url, text

from include.clock import utc_now
from include.config.settings import Settings
from include.doctor import databases, nodes
from include.doctor.findings import Finding, Patient
from include.records.records import AuditEntry, Records, RoleReport, Roles
from include.records.schema import HEAD, VERSION_TABLE
from tests.builders.mlflow_database import copy_database
from tests.builders.ports import free_port
from tests.builders.stopwatch import Stopwatch


def examined(
    check: Callable[[Patient], Iterator[Finding]],
    home: Path,
    url: str = "",
    *,
    now: Callable[[], datetime] = utc_now,
) -> dict[str, Finding]:
    settings = Settings(home=home, records_url=url, mlflow_uri=url)
    return {one.thing: one for one in check(Patient(settings, now, seconds=60))}


@pytest.fixture
def recorded(postgres_url: str) -> str:
    Records.open(postgres_url).migrate()
    return postgres_url


def test_a_database_that_is_well_is_told_with_version_migrations_clock_and_connections(
    tmp_path: Path, recorded: str
) -> None:
    found = examined(databases.examine_records, tmp_path, recorded)
    assert found["reachable"].found.startswith("PostgreSQL ")
    for thing in ("reachable", "migrations", "clock", "connections", "grants", "epoch"):
        assert found[thing].verdict == "ok", found[thing]
    assert found["migrations"].found.startswith(HEAD)
    assert found["role"].verdict == "warn", "the tests' own role is a superuser"
    assert "superuser" in found["role"].found


def test_a_stopped_server_is_told_with_its_setting(tmp_path: Path) -> None:
    url = f"postgresql://someone:hidden@127.0.0.1:{free_port()}/evergreen"
    for check, setting in (
        (databases.examine_records, "EVERGREEN_RECORDS_URL"),
        (databases.examine_mlflow, "EVERGREEN_MLFLOW_URI"),
    ):
        (only,) = examined(check, tmp_path, url).values()
        assert (only.thing, only.verdict) == ("reachable", "fail")
        assert "someone@127.0.0.1" in only.found
        assert "hidden" not in only.found
        assert setting in only.remedy
    assert list(examined(nodes.examine, tmp_path, url)) == [], "told once, by its own check"


@pytest.mark.parametrize(("present", "words"), [("0007", "needs"), ("9999", "newer than")])
def test_a_schema_of_another_version_is_told(
    tmp_path: Path, recorded: str, present: str, words: str
) -> None:
    records = Records.open(recorded)
    with records.transaction() as session:
        session.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '{present}'"))
    found = examined(databases.examine_records, tmp_path, recorded)["migrations"]
    assert found.verdict == "fail"
    assert present in found.found
    assert words in found.found


def test_a_database_without_tables_is_told(tmp_path: Path, postgres_url: str) -> None:
    found = examined(databases.examine_records, tmp_path, postgres_url)
    assert found["migrations"].verdict == "fail"
    assert "no tables" in found["migrations"].found
    assert "epoch" not in found
    assert examined(databases.examine_audit, tmp_path, postgres_url) == {}


@contextmanager
def role(recorded: str) -> Iterator[tuple[Records, str, str]]:
    """Give the records as their owner, and a role of this test's own with its address."""
    name = f"evergreen_test_{uuid.uuid4().hex[:8]}"
    records = Records.open(recorded)
    with records.transaction() as session:
        session.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD 'x'"))
    try:
        url = make_url(recorded).set(username=name, password="x")
        yield records, name, url.render_as_string(hide_password=False)
    finally:
        with records.transaction() as session:
            session.execute(text(f"DROP OWNED BY {name}"))
            session.execute(text(f"DROP ROLE {name}"))


@pytest.mark.parametrize("kind", ["worker", "node"])
def test_a_role_that_lacks_rights_or_has_too_many_is_told(
    tmp_path: Path, recorded: str, kind: str
) -> None:
    who = "workers and commands" if kind == "worker" else "nodes"
    with role(recorded) as (records, name, url):
        records.migrate(roles=Roles(**{kind: name}))
        found = examined(databases.examine_records, tmp_path, url)
        assert found["role"].verdict == found["grants"].verdict == "ok", found["grants"]
        assert who in found["grants"].found
        with records.transaction() as session:
            session.execute(text(f"REVOKE SELECT ON models FROM {name}"))
        found = examined(databases.examine_records, tmp_path, url)
        assert found["grants"].verdict == "fail"
        assert f"as one of {who} it lacks SELECT on models" in found["grants"].found
        with records.transaction() as session:
            session.execute(text(f"GRANT SELECT, DELETE ON models TO {name}"))
            session.execute(text(f"GRANT UPDATE ON audit_head TO {name}"))
        found = examined(databases.examine_records, tmp_path, url)
        assert found["grants"].verdict == "warn"
        assert "all columns of audit_head" in found["grants"].found
        assert ("DELETE on models" in found["grants"].found) == (kind == "node")


@pytest.mark.parametrize(
    ("seconds", "verdict"), [(0.5, "ok"), (10, "warn"), (-10, "warn"), (3600, "fail")]
)
def test_a_clock_that_differs_is_told_with_how_much(
    tmp_path: Path, recorded: str, seconds: float, verdict: str
) -> None:
    found = examined(
        databases.examine_records,
        tmp_path,
        recorded,
        now=lambda: utc_now() - timedelta(seconds=seconds),
    )["clock"]
    assert found.verdict == verdict
    if verdict != "ok":
        assert f"{abs(seconds):.0f}." in found.found
        assert ("ahead" if seconds > 0 else "behind") in found.found


def test_an_audit_log_that_was_changed_is_told_with_its_row(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    records = Records.open(settings.records_address)
    records.migrate()
    for number in range(3):
        records.audit.append(AuditEntry("test", "loans", str(number), "test", {}, utc_now()))
    assert examined(databases.examine_audit, tmp_path)["chain"].found.startswith("whole, 3 rows")
    with records.database.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER audit_no_update"))
        connection.execute(text("UPDATE audit SET actor = 'nobody' WHERE sequence = 2"))
    found = examined(databases.examine_audit, tmp_path)["chain"]
    assert found.verdict == "fail"
    assert found.found.startswith("row 2 was changed")


def test_a_champion_that_no_living_node_serves_is_told(tmp_path: Path) -> None:
    records = Records.open(Settings(home=tmp_path).records_address)
    records.migrate()
    entry = AuditEntry("release", "loans", "1", "test", {}, utc_now())
    records.routes.change("loans", set={"step": 1}, entry=entry)
    with records.database.engine.begin() as connection:
        connection.execute(text("UPDATE routes SET champion = 3"))
    assert "no node that lives" in examined(nodes.examine, tmp_path)["loans"].found
    report = RoleReport("champion", 3, "sha256:1", "serving")
    records.nodes.report("loans", "one", "boot", generation=1, roles=[report])
    found = examined(nodes.examine, tmp_path)
    assert {(one.thing, one.verdict) for one in found.values()} == {("one", "ok")}
    report = RoleReport("champion", 3, "sha256:1", "refused", "its digest is another one")
    records.nodes.report("loans", "one", "boot", generation=1, roles=[report])
    found = examined(nodes.examine, tmp_path)
    assert found["one"].verdict == "warn"
    assert "its digest is another one" in found["one"].found


def test_airflows_database_is_told_where_this_process_knows_it(
    tmp_path: Path, postgres_url: str
) -> None:
    assert list(databases.examine_airflow(Patient(Settings(home=tmp_path), utc_now))) == []
    away = f"postgresql://a:b@127.0.0.1:{free_port()}/c"
    for url, verdict in ((postgres_url, "ok"), (away, "fail")):
        settings = Settings(home=tmp_path, airflow_database_url=SecretStr(url))
        found = {one.thing: one for one in databases.examine_airflow(Patient(settings, utc_now))}
        assert found["reachable"].verdict == verdict


def test_the_tables_that_this_mlflow_makes_are_those_that_it_needs(tmp_path: Path) -> None:
    copy_database(tmp_path)
    stopwatch = Stopwatch()
    found = examined(databases.examine_mlflow, tmp_path)
    assert found["migrations"].verdict == "ok", found["migrations"]
    assert "as this MLflow needs" in found["migrations"].found
    assert stopwatch.seconds < 2, "MLflow is not imported for it"


def test_the_tables_of_mlflow_are_compared_with_the_library(
    tmp_path: Path, postgres_url: str
) -> None:
    assert examined(databases.examine_mlflow, tmp_path, postgres_url)["migrations"].verdict == (
        "warn"
    )
    database = Records.open(postgres_url).database
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num text)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('0a8213491aaa')"))
    found = examined(databases.examine_mlflow, tmp_path, postgres_url)["migrations"]
    assert (found.verdict, "0a8213491aaa" in found.found) == ("fail", True)
