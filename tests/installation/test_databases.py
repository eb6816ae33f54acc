"""`evergreen migrate`: roles, databases, tables and grants on a real PostgreSQL server."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from include.clock import wait_for
from include.config.settings import ROOT, Settings
from include.errors import ConfigError, Unavailable
from include.installation.child import end
from include.installation.databases import migrate, migrate_records
from include.installation.mlflow_login import ADMIN, PASSWORD
from include.installation.postgres_roles import make_roles
from include.installation.services import children
from include.models.mlflow_client import connected_to
from include.processes import tail
from include.records import migrate as migration
from include.records.records import Records, Roles
from tests.builders.ports import free_ports
from tests.builders.postgres_roles import bare_place, prepared_place
from tests.builders.postgres_server import Server, postgres_server
from tests.records.builders import entry, raise_to

ROLES = {
    "records_owner_url": ("evergreen_owner", "evergreen"),
    "records_url": ("evergreen_worker", "evergreen"),
    "records_node_url": ("evergreen_node", "evergreen"),
    "mlflow_uri": ("evergreen_mlflow_writer", "mlflow"),
    "mlflow_reader_uri": ("evergreen_mlflow_reader", "mlflow"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres_server() as running:
        yield running


def password(role: str) -> str:
    return f"the secret of {role}"


def init_settings(server: Server, home: Path) -> Settings:
    """Return the settings of the process that prepares everything."""
    given = {
        name: SecretStr(server.url(role, password(role), database))
        for name, (role, database) in ROLES.items()
    }
    return Settings(home=home, postgres_admin_url=SecretStr(server.url()), **given)


@pytest.fixture(scope="module")
def prepared(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Settings, list[str]]:
    """Everything prepared from nothing, and what was told of it."""
    settings, said = init_settings(server, tmp_path_factory.mktemp("init")), list[str]()
    migrate(settings, say=said.append)
    return settings, said


def ask(url: str, statement: str) -> object:
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        answer = connection.exec_driver_sql(statement)
        return answer.scalar() if answer.returns_rows else None


def test_all_of_it_is_made_from_nothing_and_again_nothing_is(
    prepared: tuple[Settings, list[str]],
) -> None:
    settings, said = prepared
    assert "role evergreen_owner" in said[0]
    assert "database mlflow" in said[0]
    again: list[str] = []
    migrate(settings, say=again.append)
    assert again[0] == "roles and databases: all there"
    assert "as before" in again[1]
    assert any("evergreen_node may do what nodes do" in line for line in again)
    assert any("evergreen_mlflow_reader reads" in line for line in again)


def test_every_role_logs_in_with_its_password_and_no_log_has_one(
    prepared: tuple[Settings, list[str]], server: Server
) -> None:
    for role, database in ROLES.values():
        assert ask(server.url(role, password(role), database), "SELECT current_user") == role
        with pytest.raises(SQLAlchemyError, match="password authentication failed"):
            ask(server.url(role, "another", database), "SELECT 1")
    log = server.log.read_text()
    assert "ALTER ROLE" in log, "the server logs every statement"
    assert "SCRAM-SHA-256$" in log
    assert "the secret of" not in log + "\n".join(prepared[1])


def test_a_password_that_changed_is_set_by_the_next_run(
    prepared: tuple[Settings, list[str]], server: Server
) -> None:
    settings = prepared[0]
    changed = server.url("evergreen_node", "a new one", "evergreen")
    migrate_again = settings.model_copy(update={"records_node_url": SecretStr(changed)})
    migrate(migrate_again, say=lambda line: None)
    assert ask(changed, "SELECT 1") == 1
    migrate(settings, say=lambda line: None)


def test_nobody_connects_to_a_database_that_is_anothers(
    prepared: tuple[Settings, list[str]], server: Server
) -> None:
    for role, database in (("evergreen_node", "mlflow"), ("evergreen_mlflow_reader", "evergreen")):
        with pytest.raises(SQLAlchemyError, match="permission denied for database"):
            ask(server.url(role, password(role), database), "SELECT 1")


def test_a_membership_that_would_let_a_role_become_another_is_taken_back(
    prepared: tuple[Settings, list[str]], server: Server
) -> None:
    ask(server.url(), "GRANT evergreen_worker TO evergreen_node")
    migrate(prepared[0], say=lambda line: None)
    node = server.url("evergreen_node", password("evergreen_node"), "evergreen")
    with pytest.raises(SQLAlchemyError, match="permission denied to set role"):
        ask(node, "SET ROLE evergreen_worker")


def test_a_superuser_is_no_role_of_an_installation(server: Server, tmp_path: Path) -> None:
    settings = init_settings(server, tmp_path).model_copy(
        update={"records_url": SecretStr(server.url(database="evergreen"))}
    )
    with pytest.raises(ConfigError, match="RECORDS_URL names postgres, a superuser"):
        migrate(settings, say=lambda line: None)


def test_without_the_owners_address_no_roles_are_made(server: Server, tmp_path: Path) -> None:
    settings = init_settings(server, tmp_path).model_copy(
        update={"records_owner_url": SecretStr("")}
    )
    with pytest.raises(ConfigError, match="RECORDS_OWNER_URL is not"):
        migrate(settings, say=lambda line: None)


def test_a_wrong_password_of_the_superuser_is_told_without_it(
    server: Server, tmp_path: Path
) -> None:
    wrong = SecretStr(server.url(password="guessed-by-nobody"))
    settings = init_settings(server, tmp_path).model_copy(update={"postgres_admin_url": wrong})
    with pytest.raises(Unavailable, match="POSTGRES_ADMIN_URL a superuser") as caught:
        migrate(settings, say=lambda line: None)
    assert "guessed" not in str(caught.value)


def test_tasks_write_mlflow_and_its_server_only_reads(
    prepared: tuple[Settings, list[str]], server: Server
) -> None:
    writer = server.url("evergreen_mlflow_writer", password("evergreen_mlflow_writer"), "mlflow")
    reader = server.url("evergreen_mlflow_reader", password("evergreen_mlflow_reader"), "mlflow")
    with connected_to(writer) as client:
        made = client.create_experiment("loans")
        run = client.create_run(made)
        client.log_metric(run.info.run_id, "auc", 0.8)
        client.set_terminated(run.info.run_id)
        client.create_registered_model("loans")
        client.create_model_version("loans", source="x", run_id=run.info.run_id)
        client.set_registered_model_alias("loans", "champion", "1")
    with connected_to(reader) as client:
        assert client.get_run(run.info.run_id).data.metrics == {"auc": 0.8}
        assert client.get_model_version_by_alias("loans", "champion").version == 1
    for statement in (
        "UPDATE metrics SET value = 1",
        "DELETE FROM runs",
        "INSERT INTO experiments (name) VALUES ('x')",
        "CREATE TABLE mine (x int)",
    ):
        with pytest.raises(SQLAlchemyError, match="permission denied"):
            ask(reader, statement)
    with pytest.raises(SQLAlchemyError, match="permission denied"):
        ask(writer, "UPDATE alembic_version SET version_num = 'x'")


@pytest.mark.slow
def test_mlflows_server_starts_and_shows_what_was_written_as_the_role_that_reads(
    prepared: tuple[Settings, list[str]], server: Server, tmp_path: Path
) -> None:
    urls = {
        role: server.url(f"evergreen_mlflow_{role}", password(f"evergreen_mlflow_{role}"), "mlflow")
        for role in ("writer", "reader")
    }
    with connected_to(urls["writer"]) as client:
        made = client.create_experiment("shown")
        run = client.create_run(made).info.run_id
        client.log_metric(run, "auc", 0.75)
    ports = free_ports(3)
    settings = Settings(
        home=tmp_path,
        mlflow_uri=SecretStr(urls["reader"]),
        airflow_port=ports[0],
        mlflow_port=ports[1],
        node_port=ports[2],
    )
    (child,) = children(settings, ["mlflow"])
    child.start()
    try:
        up = wait_for(lambda: child.healthy() or not child.alive, seconds=300, every=0.25)
        assert up, tail(child.log, 40)
        assert child.alive, tail(child.log, 40)
        login = (ADMIN, settings.secret(PASSWORD).get_secret_value())
        with httpx.Client(base_url=settings.mlflow_url, auth=login, trust_env=False) as client:
            read = "/ajax-api/2.0/mlflow"
            assert "<html" in client.get("/").text
            found = client.post(f"{read}/experiments/search", json={"max_results": 10}).json()
            assert "shown" in [one["name"] for one in found["experiments"]]
            history = client.get(
                f"{read}/metrics/get-history", params={"run_id": run, "metric_key": "auc"}
            )
            assert [point["value"] for point in history.json()["metrics"]] == [0.75]
        environment = Path(f"/proc/{child.born.pid}/environ").read_text()
        assert "evergreen_mlflow_writer" not in environment
    finally:
        end([child], grace=10)


def test_a_role_that_does_not_own_the_tables_never_migrates() -> None:
    with prepared_place() as place:
        with place.open("owner").transaction() as session:
            session.execute(text("UPDATE evergreen_version SET version_num = '0008'"))
        for role in ("worker", "node"):
            records = place.open(role)
            with pytest.raises(
                ConfigError, match=rf"tables of version 0008.*{role} may not.*`evergreen migrate`"
            ):
                records.migrate()
        with place.open("owner").transaction() as session:
            session.execute(text("UPDATE evergreen_version SET version_num = '9999'"))
        with pytest.raises(ConfigError, match=r"another version of Evergreen .*9999"):
            place.open("node").migrate()


def test_a_role_that_owns_no_table_of_this_version_is_told_that_another_one_does() -> None:
    with (
        prepared_place() as place,
        pytest.raises(ConfigError, match=r"as this version needs, but of another role.*worker"),
    ):
        place.open("worker").migrate(roles=Roles())


def test_a_role_without_tables_is_told_who_makes_them(tmp_path: Path) -> None:
    with bare_place() as place:
        make_roles(place.settings(tmp_path))
        with pytest.raises(ConfigError, match=r"no tables yet.*as the role that owns them"):
            place.open("worker").migrate()


def test_others_wait_while_the_owner_is_at_work() -> None:
    with prepared_place() as place:
        owner, ended = place.open("owner"), []
        with owner.transaction() as session:
            session.execute(text("UPDATE evergreen_version SET version_num = '0008'"))
        with owner.transaction() as session:
            session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": migration._LOCK})
            waiting = threading.Thread(target=lambda: ended.append(place.open("worker").migrate()))
            waiting.start()
            waiting.join(1.0)
            assert waiting.is_alive(), "the worker waits for the owner"
            session.execute(
                text("UPDATE evergreen_version SET version_num = :head"),
                {"head": migration.HEAD},
            )
        waiting.join(60)
        assert len(ended) == 1


def test_with_the_owners_address_whatever_starts_migrates(tmp_path: Path) -> None:
    with bare_place() as place:
        settings = place.settings(tmp_path)
        make_roles(settings)
        migrate_records(settings)
        raise_to(place.open("worker"), "live", "data")
        for role in ("owner", "worker"):
            place.open(role).close()


def test_one_role_for_everything_migrates_as_before(postgres_url: str, tmp_path: Path) -> None:
    settings, said = Settings(home=tmp_path, records_url=SecretStr(postgres_url)), list[str]()
    migrate(settings, say=said.append)
    assert any(line.startswith("records: tables at") and "new" in line for line in said)
    raise_to(Records.open(postgres_url), "live", "data")


def test_a_role_that_is_not_there_is_named_and_nothing_is_left_unrestricted(
    postgres_url: str, tmp_path: Path
) -> None:
    missing = make_url(postgres_url).set(username="evergreen_nobody_has_this")
    settings = Settings(
        home=tmp_path,
        records_url=SecretStr(postgres_url),
        records_node_url=SecretStr(missing.render_as_string(hide_password=False)),
    )
    with pytest.raises(ConfigError, match=r"no role evergreen_nobody_has_this .*ADMIN_URL"):
        migrate(settings, say=lambda line: None)


def test_mlflows_database_that_does_not_answer_is_named_without_its_password(
    tmp_path: Path,
) -> None:
    nowhere = SecretStr("postgresql://nobody:s3cret@127.0.0.1:9/mlflow")
    with pytest.raises(Unavailable, match=r"MLflow at postgresql\+psycopg://127") as caught:
        migrate(Settings(home=tmp_path, mlflow_uri=nowhere), say=lambda line: None)
    assert "s3cret" not in str(caught.value)


def test_files_are_migrated_in_their_home(tmp_path: Path) -> None:
    said: list[str] = []
    migrate(Settings(home=tmp_path), say=said.append)
    assert [line.partition(":")[0] for line in said] == ["records", "audit log"]


def test_an_audit_log_that_was_changed_ends_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    records = Records.open(settings.records_address)
    records.migrate()
    records.audit.append(entry())
    with records.transaction() as session:
        session.execute(text("DROP TRIGGER audit_no_update"))
        session.execute(text("UPDATE audit SET subject = 'y'"))
    with pytest.raises(Exception, match="the audit log is broken: row 1 was changed"):
        migrate(settings, say=lambda line: None)


@pytest.mark.slow
def test_killed_anywhere_it_is_run_again(server: Server, tmp_path: Path) -> None:
    given = {
        f"EVERGREEN_{name.upper()}": server.url(
            f"again_{role}", password(role), f"again_{database}"
        )
        for name, (role, database) in ROLES.items()
    }
    environment = {
        **given,
        "EVERGREEN_HOME": str(tmp_path),
        "EVERGREEN_POSTGRES_ADMIN_URL": server.url(),
        "PATH": "/usr/bin:/bin",
    }
    command = [sys.executable, "-m", "include", "migrate"]
    for seconds in (1.2, 1.6, 2.0, 3.0, 5.0, 7.0):
        process = subprocess.Popen(command, cwd=ROOT, env=environment)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "mlflow: tables at" in done.stdout
    assert "the secret of" not in done.stdout + done.stderr
    again = make_url(given["EVERGREEN_RECORDS_URL"]).render_as_string(hide_password=False)
    raise_to(Records.open(again), "live", "data")
