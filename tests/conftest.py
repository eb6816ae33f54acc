"""Fixtures that every test may use; nothing here imports Airflow."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from include.config.settings import Settings
from include.ingestion.file_reader import FileReader
from include.records import migrate
from include.records.records import Records
from include.serving.quiet import Quiet
from tests.builders import recorded_migrations
from tests.builders.object_stores import S3Store, forget_connections, make_bucket, s3_server
from tests.builders.synced import Synced
from tests.builders.warm_readers import start_warm

MARIADB = os.environ.get("EVERGREEN_TEST_MARIADB", "mariadb+pymysql://root@127.0.0.1:3306/mysql")
POSTGRES = os.environ.get(
    "EVERGREEN_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"
)


# What runs installations, nodes, commands and other processes, or breaks them: half of the suite's
# time. `make check` runs the policy of the DAGs, which starts Airflow, by itself.
END_TO_END = (
    "e2e",
    "faults",
    "history",
    "deployment",
    "packaging",
    "real_sets",
    "backups",
    "cli/test_app.py",
    "cli/test_backups.py",
    "cli/test_installation.py",
    "cli/test_new_use_case.py",
    "cli/test_quarantine.py",
    "cli/test_records.py",
    "cli/test_release.py",
    "cli/test_run.py",
    "cli/test_try_use_case.py",
    "cli/test_use_case.py",
    "dags/test_policy.py",
    "feature_repo",
    "ingestion/test_file_reader.py",
    "ingestion/test_remote_files.py",
    "installation/test_airflow_history.py",
    "installation/test_child.py",
    "installation/test_databases.py",
    "installation/test_lock.py",
    "installation/test_mlflow_login.py",
    "installation/test_supervisor.py",
    "installation/test_up.py",
    "docs/test_call_the_model.py",
    "drill/test_story.py",
    "doctor/test_online.py",
    "doctor/test_places.py",
    "lake/test_object_stores.py",
    "models/test_trial.py",
    "orchestration/test_airflow_users.py",
    "pipeline/test_settling.py",
    "records/test_leases.py",
    "retention/test_rebuild.py",
    "serving/test_access.py",
    "serving/test_child_limits.py",
    "serving/test_code_stamp.py",
    "serving/test_docs_browser.py",
    "serving/test_http_limits.py",
    "serving/test_isolated_model.py",
    "serving/test_last_rows.py",
    "serving/test_model_states.py",
    "serving/test_node.py",
    "serving/test_node_limits.py",
    "serving/test_reconciler.py",
    "serving/test_redis_link.py",
    "serving/test_remote_online.py",
    "serving/test_rollbacks.py",
    "serving/test_shape.py",
    "serving/test_shipper.py",
    "serving/test_stores.py",
    "serving/test_swaps_under_load.py",
    "test_processes.py",
)
# End-to-end tests that start an installation for themselves.
OF_THEIR_OWN = ("tests/e2e/test_celery.py", "tests/e2e/test_nights.py")
# Seconds. Three installations start beside each other on two cores, which others may use too.
LONGEST_END_TO_END = 1500  # below `faulthandler_timeout`, which ends the worker
# Files are dealt out as they stand: with the longest at the end one worker would be left with them.
LONGEST_FIRST = ("e2e", "history", "faults", "evaluation", "training", "validation", "features")


@pytest.hookimpl(tryfirst=True)  # before pytest looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the end-to-end tests by where they stand, so that a quick run can leave them out.

    The folders with the longest files come first.
    """
    here = Path(__file__).parent
    folders = tuple((here / part).resolve(strict=True) for part in END_TO_END)
    for item in items:
        if any(item.path.is_relative_to(folder) for folder in folders):
            item.add_marker(pytest.mark.e2e)
            if item.path.is_relative_to(here / "e2e") and not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(LONGEST_END_TO_END))
    order = {(here / folder).resolve(strict=True): at for at, folder in enumerate(LONGEST_FIRST)}

    def place(item: pytest.Item) -> int:
        return next((order[up] for up in item.path.parents if up in order), len(order))

    items.sort(key=place)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An installation of its own under tmp_path."""
    return Settings(home=tmp_path)


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """A PostgreSQL database made for this test and dropped after it."""
    with postgres_database() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_of_all() -> Iterator[str]:
    """A PostgreSQL database that tests share, each in a schema of its own."""
    with postgres_database() as url:
        yield url


@pytest.fixture(scope="module")
def postgres_of_module() -> Iterator[str]:
    """A PostgreSQL database that the tests of one file share."""
    with postgres_database() as url:
        yield url


@pytest.fixture
def postgres_schema(postgres_of_all: str) -> Iterator[str]:
    """A schema made for this test and dropped after it: quicker than a database of its own."""
    import psycopg
    from sqlalchemy import make_url

    url, name = make_url(postgres_of_all), f"test_{uuid.uuid4().hex[:12]}"
    server = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f'CREATE SCHEMA "{name}"')
        try:
            found = url.update_query_dict({"options": f"-csearch_path={name}"})
            yield found.render_as_string(hide_password=False)
        finally:
            # What a test has left open would keep the schema's locks.
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            admin.execute(f'DROP SCHEMA "{name}" CASCADE')


@pytest.fixture
def mariadb_url() -> Iterator[str]:
    """A MariaDB or MySQL database made for this test and dropped after it."""
    pytest.importorskip("pymysql")
    import sqlalchemy

    url, name = sqlalchemy.make_url(MARIADB), f"evergreen_test_{uuid.uuid4().hex[:12]}"
    engine = sqlalchemy.create_engine(
        url, poolclass=sqlalchemy.NullPool, connect_args={"connect_timeout": 30}
    )
    try:
        admin = engine.connect()
    except sqlalchemy.exc.OperationalError as error:
        pytest.skip(
            f"MariaDB does not answer at {url!r}; set EVERGREEN_TEST_MARIADB "
            f"({str(error.orig).splitlines()[0]})"
        )
    with admin:
        admin.exec_driver_sql(f"CREATE DATABASE `{name}`")
        try:
            yield url.set(database=name).render_as_string(hide_password=False)
        finally:
            admin.exec_driver_sql(f"DROP DATABASE `{name}`")


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Address of a server that speaks S3, shared by all tests."""
    with s3_server() as address:
        yield address


@pytest.fixture
def s3_store(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    """A bucket made for this test; this process, and those that it starts, reach it."""
    store = make_bucket(s3_endpoint)
    forget_connections()
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    yield store
    forget_connections()


@contextmanager
def postgres_database() -> Iterator[str]:
    psycopg = pytest.importorskip("psycopg")
    from sqlalchemy import make_url

    url, name = make_url(POSTGRES), f"evergreen_test_{uuid.uuid4().hex[:12]}"
    server = url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        admin = psycopg.connect(server, autocommit=True, connect_timeout=30)
    except psycopg.OperationalError as error:
        pytest.skip(
            f"PostgreSQL does not answer at {url!r}; set EVERGREEN_TEST_POSTGRES "
            f"({str(error).strip().splitlines()[0]})"
        )
    with admin:
        admin.execute(f'CREATE DATABASE "{name}"')
        try:
            yield url.set(database=name).render_as_string(hide_password=False)
        finally:
            admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture(params=["sqlite", "postgresql"])
def records_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty records database, once on SQLite and once on real PostgreSQL."""
    return (
        f"sqlite:///{tmp_path / 'records.db'}"
        if request.param == "sqlite"
        else str(request.getfixturevalue("postgres_schema"))
    )


@pytest.fixture
def records(records_url: str) -> Iterator[Records]:
    """Migrated records on both databases."""
    opened = Records.open(records_url)
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def warm_readers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the children that read files, but for tests of what a started one is like."""
    if "cold_readers" not in request.fixturenames:
        monkeypatch.setattr(FileReader, "_start", start_warm)


@pytest.fixture(autouse=True)
def quick_migrations(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make tables as Alembic did for the first empty database, but for tests of migrations."""
    if "alembics_migrations" not in request.fixturenames:
        monkeypatch.setattr(migrate, "_run_migrations", recorded_migrations.run_migrations)


@pytest.fixture
def alembics_migrations() -> None:
    """Have Alembic make all tables, as the product does."""


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """Give each test the umask of a shell: commands that tests run in this process set another."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def unbounded_log() -> Iterator[None]:
    """Take from pytest's handlers what a node has hung on them in this process.

    They are the same for all tests, and by the filter each kind of message would be caught five
    times in all.
    """
    yield
    for handler in logging.getLogger().handlers:
        for bound in [one for one in handler.filters if isinstance(one, Quiet)]:
            handler.removeFilter(bound)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> Synced:
    """What is forced to the disk during this test."""
    return Synced(monkeypatch)


@pytest.fixture
def cold_readers() -> None:
    """Have readers of files started as the product starts them."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file on one worker, and those end-to-end tests that share one running
    installation.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            shares = path.startswith("tests/e2e/") and path not in OF_THEIR_OWN
            return "tests/e2e" if shares else path

    return ByFile(config, log)
