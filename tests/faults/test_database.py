"""Faults 13, 24, 25 and 33: a PostgreSQL server that restarts, is away, full, slow, or cut off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.orm import Session

from include.clock import utc_now
from include.config.settings import Settings
from include.deployment.rollback import Order, take_back
from include.errors import Busy, Unavailable
from include.installation.databases import owners_records, roles_of
from include.installation.postgres_roles import make_roles
from include.models import mlflow_registry
from include.pipeline.task_records import task_records
from include.records import audit, database
from include.records.database import Database
from include.records.nodes import RoleReport
from include.records.records import Records
from tests.builders.postgres_roles import prepared_place
from tests.builders.postgres_server import Server, postgres_server
from tests.builders.serving import NAME, ROW, Desk, until
from tests.builders.stopwatch import Stopwatch
from tests.builders.tcp_proxy import Proxy, proxy
from tests.records.builders import claim, entry, model, raise_to, result


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres_server() as running:
        yield running


@pytest.fixture
def url(server: Server, request: pytest.FixtureRequest) -> str:
    """A database of this test's own, with its tables."""
    name = f"records_{abs(hash(request.node.name))}"
    admin = Database(server.url())
    with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
    admin.close()
    address = server.url(database=name)
    made = Records.open(address)
    made.migrate()
    made.close()
    return address


@contextmanager
def away(server: Server, seconds: float, how: str = "fast") -> Iterator[float]:
    """Stop the server, and start it after some seconds, while the block goes on.

    It is told the moment before which nobody can have got an answer.
    """
    server.stop(how)
    back = threading.Timer(seconds, server.start)
    until = time.monotonic() + seconds
    back.start()
    try:
        yield until
    finally:
        back.join()


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_restart_in_the_middle_of_a_transaction_is_gone_through(
    server: Server, url: str, how: str
) -> None:
    records, tries = Records.open(url, patience=60), []

    def work(session: Session) -> None:
        audit.append(session, entry("kept"))
        session.execute(text("SELECT 1"))
        tries.append(1)
        if len(tries) == 1:
            server.stop(how)
            server.start()

    records.write(work)
    assert len(tries) == 2
    assert [row.action for row in records.audit.entries()] == ["kept"]
    assert records.audit.verify() is None


def night_goes_on(server: Server, url: str, home: Path, seconds: float) -> None:
    """A task holds a lease and commits its result while the server is away for some seconds."""
    settings = Settings(home=home, records_url=SecretStr(url))
    records = task_records(settings)
    with claim(records, ttl=4.0) as lease:
        with away(server, seconds) as until:
            raise_to(records, "live", "data")  # as whatever a stage asks the records meanwhile
            assert time.monotonic() >= until
        with pytest.raises(Busy, match="in progress"):
            claim(records, "another")  # it was silent only because nobody could be told
        lease.check()
        records.results.commit(lease, result(), entries=[entry("trained")])
    assert records.results.get("loans", "2026-03-01", "train_model") is not None
    assert records.audit.verify() is None


def test_a_task_waits_for_a_server_that_is_away_and_keeps_its_lease(
    server: Server, url: str, tmp_path: Path
) -> None:
    night_goes_on(server, url, tmp_path, seconds=5.0)


@pytest.mark.slow
def test_a_server_that_is_away_for_a_minute_fails_no_night(
    server: Server, url: str, tmp_path: Path
) -> None:
    night_goes_on(server, url, tmp_path, seconds=60.0)


def test_a_server_that_stays_away_is_given_up_with_its_name(
    server: Server, url: str, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, records_url=SecretStr(url), database_patience=1.0)
    records = task_records(settings)
    raise_to(records, "backfill", "data")
    server.stop()
    try:
        stopwatch = Stopwatch()
        with pytest.raises(Unavailable, match=r"does not answer.*EVERGREEN_RECORDS_URL"):
            raise_to(records, "live", "data")
        assert stopwatch.seconds < 10
    finally:
        server.start()
    assert raise_to(records, "live", "data") == ("live", "data")


def test_more_threads_than_connections_wait_for_each_other(url: str) -> None:
    records = Records.open(url, pool=3)

    def act(number: int) -> None:
        with records.transaction() as session:
            session.execute(text("SELECT pg_sleep(0.02)"))
            audit.append(session, entry(subject=str(number)))

    with ThreadPoolExecutor(24) as threads:
        list(threads.map(act, range(48)))
    assert records.audit.head()[0] == 48
    connections = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'evergreen'"
    )
    with records.transaction() as session:
        assert session.scalar(connections) <= 3


def test_a_pool_that_stays_exhausted_says_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "POOL_SECONDS", 0.2)
    records = Records(Database(url, pool=1, seal=audit.seal))
    with records.transaction() as session:
        session.execute(text("SELECT 1"))
        with pytest.raises(Unavailable, match="in use by this process"):
            records.audit.entries()
    assert records.audit.entries() == []


def test_a_server_without_a_connection_left_is_waited_for(server: Server, url: str) -> None:
    """Fault 25, the server's side: a role's limit stands for everybody's."""
    with Records.open(url).transaction() as session:
        session.execute(text("CREATE ROLE few LOGIN PASSWORD 'few' CONNECTION LIMIT 2"))
        session.execute(text("GRANT ALL ON ALL TABLES IN SCHEMA public TO few"))
    address = server.url("few", "few", url.rpartition("/")[2])
    each = [Records(Database(address, patience=120, seal=audit.seal)) for _ in range(6)]

    def act(records: Records) -> None:
        for number in range(3):
            records.audit.append(entry(subject=str(number)))
            records.close()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(act, each))
    assert Records.open(url).audit.head()[0] == 18


@pytest.fixture
def through(server: Server) -> Iterator[Proxy]:
    with proxy(server.port) as made:
        yield made


def behind(through: Proxy, server: Server, url: str) -> Records:
    """Open the records through the proxy."""
    address = url.replace(f":{server.port}/", f":{through.port}/")
    return Records(Database(address, patience=20, seal=audit.seal))


def test_a_slow_database_changes_nothing_but_the_time(
    server: Server, url: str, through: Proxy
) -> None:
    records = behind(through, server, url)
    through.delay = 0.1  # before each piece, in both directions
    with claim(records, ttl=60.0) as lease:
        records.results.commit(lease, result(), entries=[entry("trained")])
        lease.check()
    through.delay = 0.0
    assert records.audit.head()[0] == 1
    assert records.audit.verify() is None
    with claim(records, "another"):
        pass


def released(records: Records) -> None:
    for version in (1, 2):
        records.models.add(model(version))
    records.routes.change("loans", set={"champion": 1}, entry=entry("release"))
    records.routes.change("loans", set={"champion": 2, "previous": 1}, entry=entry("release"))


REPORT = RoleReport("champion", 2, "sha256:2", "serving")
WRITES: dict[str, Callable[[Records], object]] = {
    "audit": lambda records: records.audit.append(entry("cut")),
    "partition": lambda records: raise_to(records, "live", "data"),
    "model": lambda records: records.models.add(model(7)),
    "feature set": lambda records: records.feature_sets.add("loans", "v1", {"a": 1}),
    "online": lambda records: records.feature_sets.advance("loans", "v1", "2026-03-01", None),
    "report": lambda records: records.nodes.report("loans", "n", "1", generation=2, roles=[REPORT]),
    "release": lambda records: records.routes.change(
        "loans", set={"weight": 5.0}, entry=entry("cut"), expect_generation=2
    ),
    "rollback": lambda records: take_back(records, "loans", Order("me", "bad", version=2)),
    "reset": lambda records: records.forget("loans", entry=entry("use_case.reset", once="r")),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_commit_whose_answer_is_lost_happens_once(
    server: Server, url: str, through: Proxy, write: str
) -> None:
    """Fault 13, on the wire: the server has committed, and the connection is cut."""
    records = behind(through, server, url)
    released(records)
    before = records.audit.head()[0]
    through.cut_answer_to = b"COMMIT"
    WRITES[write](records)
    assert through.cuts == 1
    told = records.audit.head()[0] - before
    assert told == (0 if write in ("model", "feature set", "online", "report") else 1)
    if write in ("release", "rollback"):
        assert records.routes.get("loans").generation == 3
    assert records.audit.verify() is None


def test_a_claim_and_a_result_whose_answers_are_lost_happen_once(
    server: Server, url: str, through: Proxy
) -> None:
    records = behind(through, server, url)
    through.cut_answer_to = b"COMMIT"
    with claim(records) as lease:
        assert lease.token == 1
        through.cut_answer_to = b"COMMIT"
        records.results.commit(lease, result(), entries=[entry("trained")])
        assert through.cuts == 2
    assert [row.action for row in records.audit.entries()] == ["trained"]


@pytest.mark.slow
def test_mlflow_is_written_through_a_restart_of_its_database(
    server: Server, url: str, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, mlflow_uri=SecretStr(url.replace("records_", "mlflow_")))
    admin = Database(server.url())
    with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        name = url.rpartition("/")[2].replace("records_", "mlflow_")
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
    admin.close()
    assert mlflow_registry.count_entries(settings, "loans") == {"model versions": 0, "runs": 0}
    with away(server, 3.0):
        assert mlflow_registry.close_stale_runs(settings, "loans", "2026-03-01") == 0
    assert mlflow_registry.aliases(settings, "loans") == {}


def test_mlflow_that_stays_away_is_given_up(tmp_path: Path) -> None:
    nowhere = SecretStr("postgresql://nobody:s3cret@127.0.0.1:9/mlflow")
    settings = Settings(home=tmp_path, mlflow_uri=nowhere, database_patience=1.0)
    stopwatch = Stopwatch()
    with pytest.raises(Unavailable, match="MLflow at postgresql") as caught:
        mlflow_registry.aliases(settings, "loans")
    assert stopwatch.seconds < 30
    assert "s3cret" not in str(caught.value)


# What `evergreen serve` does before the node starts, at an upgrade too.
AS_STARTED = """
import os
os.environ["EVERGREEN_RECORDS_URL"] = {url!r}
from include.cli.context import open_records
from include.clock import utc_now
from include.deployment.adoption import adopt_signatures
from include.deployment.apply import adopt_artefacts, adopt_use_cases
opened = open_records(settings())
adopt_use_cases(settings(), opened)
adopt_artefacts(settings(), opened)
assert adopt_signatures(settings(), opened, at=utc_now(), makes_key=False) == []
"""


# A busy machine's records may take longer than a rollback waits for them.
PATIENT = "from include.serving import rollbacks\nrollbacks.RECORDS_SECONDS = 30.0\n"


def test_a_node_serves_and_rolls_back_as_its_role(tmp_path: Path) -> None:
    """All that a node does: start, follow, answer, report, roll back, end."""
    with prepared_place() as place:
        desk = Desk(tmp_path, records_url=SecretStr(place.worker))
        for version in (1, 2):
            desk.train(version)
        desk.record_route(champion=1)
        desk.record_route(champion=2, previous=1)
        with desk.node(PATIENT + AS_STARTED.format(url=place.node)) as node:
            node.serves(2)
            until(
                lambda: any(
                    one.role == "previous" and one.state == "ready"
                    for one in desk.records.nodes.of(NAME)
                ),
                what="report of the node",
            )
            body = {"reason": "bad", "version": 2, "request_id": "one"}
            told = node.post(f"/v1/{NAME}/rollback", json=body, headers=node.token)
            assert told.status == 200, told.body
            assert "scope" not in told.body, "it is on record, not only on this node"
            assert node.health["model_version"] == 1
        route = desk.records.routes.get(NAME)
        assert (route.champion, len(route.held)) == (1, 1)
        until(lambda: not any(one.living for one in desk.records.nodes.of(NAME)), what="end of it")
        assert desk.records.audit.verify() is None
        desk.records.close()


def test_a_node_answers_while_its_records_restart_and_tells_them_later(
    server: Server, tmp_path: Path
) -> None:
    urls = {role: server.url(f"late_{role}", "secret", "late") for role in ("owner", "w", "node")}
    init = Settings(
        home=tmp_path / "init",
        postgres_admin_url=SecretStr(server.url()),
        records_owner_url=SecretStr(urls["owner"]),
        records_url=SecretStr(urls["w"]),
        records_node_url=SecretStr(urls["node"]),
    )
    make_roles(init)
    owners_records(init).migrate(roles=roles_of(init))
    desk = Desk(tmp_path, records_url=SecretStr(urls["w"]))
    for version in (1, 2):
        desk.train(version)
    desk.record_route(champion=1)
    desk.record_route(champion=2, previous=1)
    with desk.node(AS_STARTED.format(url=urls["node"])) as node:
        node.serves(2)
        until(lambda: node.health["roles"]["previous"]["state"] == "ready", what="previous model")
        server.stop()
        try:
            slowest = 0.0
            for _ in range(20):
                stopwatch = Stopwatch()
                answer = node.predict(features=ROW)
                slowest = max(slowest, stopwatch.seconds)
                assert answer.status == 200, answer.body
                time.sleep(0.05)
            assert slowest < 1.0, "nobody waits for the records"
            stopwatch = Stopwatch()
            body = {"reason": "bad", "version": 2, "request_id": "late"}
            told = node.post(f"/v1/{NAME}/rollback", json=body, headers=node.token)
            assert (told.status, told.body["scope"]) == (200, "this node only")
            assert stopwatch.seconds < 2.0
        finally:
            server.start()
        until(
            lambda: desk.records.routes.get(NAME).champion == 1,
            what="the rollback on record",
        )
    assert desk.records.audit.verify() is None
    assert utc_now() > desk.records.audit.entries(NAME)[-1].at
    desk.records.close()
