"""The records on SQLite and PostgreSQL: all or nothing, fenced, safe to repeat, and clear when
they fail.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import event, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from include.config.settings import ROOT
from include.errors import Busy, ConfigError, Unavailable
from include.records import audit, migrate
from include.records.audit import AuditEntry
from include.records.records import Records, StageResult
from include.records.schema import HEAD, VERSION_TABLE, Base, ResultRow

AT = datetime(2026, 3, 1, 6, 0, tzinfo=UTC)


def entry(action: str = "judged", **changes: object) -> AuditEntry:
    """Return an audit entry."""
    return AuditEntry(
        **{
            "action": action,
            "use_case": "loans",
            "subject": "x",
            "actor": "me",
            "details": {},
            "at": AT,
            **changes,
        }
    )


def result(
    digest: str = "sha256:1",
    *,
    key: str = "2026-03-01",
    stage: str = "train_model",
    **changes: object,
) -> StageResult:
    """Return a result."""
    made = StageResult(
        "loans",
        key,
        stage,
        "done",
        digest,
        "",
        {"rows": 3},
        [["t", key, "d"]],
        "memo",
        "live",
        AT,
        AT,
        1.5,
        "none",
    )
    return dataclasses.replace(made, **changes)


def raise_to(records: Records, mode: str, target: str, actor: str = "me") -> tuple[str, str]:
    """Raise one partition and return what it is meant for then."""
    row = records.partitions.raise_to(
        "loans", "2026-03-01", mode=mode, target=target, actor=actor, at=AT
    )  # type: ignore[arg-type]
    return row.mode, row.target


@contextmanager
def lost_answer() -> Iterator[list[str]]:
    """Let the next commit succeed and its answer get lost: the caller sees a broken connection."""
    seen: list[str] = []

    def fail(session: Session) -> None:
        if not seen and session.get_transaction() is not None:
            seen.append("lost")
            raise DBAPIError(
                "COMMIT",
                {},
                ConnectionError("server closed the connection"),
                connection_invalidated=True,
            )

    event.listen(Session, "after_commit", fail)
    try:
        yield seen
    finally:
        event.remove(Session, "after_commit", fail)


# partitions


def test_mode_and_target_only_rise(records: Records) -> None:
    assert raise_to(records, "backfill", "data", "load") == ("backfill", "data")
    assert raise_to(records, "backfill", "judged") == ("backfill", "judged")
    assert raise_to(records, "live", "data", "ann") == ("live", "judged")
    assert raise_to(records, "backfill", "data", "bob") == ("live", "judged")
    assert raise_to(records, "live", "deployed") == ("live", "deployed")
    row = records.partitions.get("loans", "2026-03-01")
    assert row is not None
    assert (row.actor, row.at) == ("me", AT)
    changes = [
        (made.details["before"], made.details["after"])
        for made in records.audit.entries(action="partition.raised")
    ]
    assert changes == [
        (None, ["backfill", "data"]),
        (["backfill", "data"], ["backfill", "judged"]),
        (["backfill", "judged"], ["live", "judged"]),
        (["live", "judged"], ["live", "deployed"]),
    ]
    assert records.partitions.get("loans", "2026-03-02") is None
    assert [row.key for row in records.partitions.of("loans")] == ["2026-03-01"]


def test_an_unknown_mode_is_refused(records: Records) -> None:
    with pytest.raises(ConfigError, match="nightly"):
        raise_to(records, "nightly", "data")


def test_raising_at_once_ends_at_the_highest(records: Records) -> None:
    asked = [
        ("backfill", "judged"),
        ("live", "data"),
        ("backfill", "deployed"),
        ("live", "judged"),
    ] * 5
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda pair: raise_to(records, *pair), asked))
    assert raise_to(records, "backfill", "data") == ("live", "deployed")
    assert len(records.audit.entries(action="partition.raised")) <= 4
    assert records.audit.verify() is None


# results


def test_a_result_is_committed_with_its_entries_and_further_writes(records: Records) -> None:
    with records.leases.claim(
        "loans", "train_model", "2026-03-01", owner="me", attempt=1, ttl=30
    ) as lease:
        records.results.commit(
            lease,
            result(outputs={"auc": float("nan"), "nested": [{"b": 1, "a": None}]}),
            entries=[entry()],
            in_transaction=lambda session: audit.append(session, entry("more")),
        )
    there = records.results.get("loans", "2026-03-01", "train_model")
    assert there == result(outputs={"auc": None, "nested": [{"b": 1, "a": None}]}, token=1)
    assert list(there.outputs["nested"][0]) == ["b", "a"]
    assert [row.action for row in records.audit.entries()] == ["judged", "more"]
    assert records.results.get("loans", "2026-03-01", "check_drift") is None


def test_the_same_result_again_is_a_no_op_and_another_one_replaces_it(records: Records) -> None:
    calls: list[int] = []
    with records.leases.claim(
        "loans", "train_model", "2026-03-01", owner="me", attempt=1, ttl=30
    ) as lease:
        for _ in range(2):
            records.results.commit(
                lease,
                result(),
                entries=[entry(), entry()],
                in_transaction=lambda session: calls.append(1),
            )
        assert (len(records.audit.entries()), calls) == (2, [1])
        records.results.commit(lease, result("sha256:2"), entries=[entry("restated")])
    there = records.results.get("loans", "2026-03-01", "train_model")
    assert there is not None
    assert there.digest == "sha256:2"
    assert len(records.audit.entries()) == 3


def test_a_commit_whose_answer_was_lost_is_recognised(records: Records) -> None:
    calls: list[int] = []
    with (
        records.leases.claim(
            "loans", "train_model", "2026-03-01", owner="me", attempt=1, ttl=30
        ) as lease,
        lost_answer() as lost,
    ):
        records.results.commit(
            lease, result(), entries=[entry()], in_transaction=lambda session: calls.append(1)
        )
    assert (lost, calls, len(records.audit.entries())) == (["lost"], [1], 1)
    with lost_answer() as lost:
        raise_to(records, "live", "judged")
    assert (lost, len(records.audit.entries())) == (["lost"], 2)
    with lost_answer() as lost:
        records.audit.append(entry("said"))
    assert (lost, len(records.audit.entries(action="said"))) == (["lost"], 1)
    with lost_answer() as lost:
        assert (
            records.leases.claim(
                "loans", "check_drift", "2026-03-01", owner="me", attempt=1, ttl=30
            ).token
            == 1
        )
    assert lost == ["lost"]
    assert records.audit.verify() is None


def test_a_failure_on_the_way_writes_nothing(records: Records) -> None:
    def fail(session: Session) -> None:
        audit.append(session, entry("half"))
        raise RuntimeError("on the way")

    with records.leases.claim(
        "loans", "train_model", "2026-03-01", owner="me", attempt=1, ttl=30
    ) as lease:
        with pytest.raises(RuntimeError, match="on the way"):
            records.results.commit(lease, result(), entries=[entry()], in_transaction=fail)
        assert (
            records.results.get("loans", "2026-03-01", "train_model"),
            records.audit.entries(),
        ) == (None, [])
        records.results.commit(lease, result(), entries=[entry()])
    assert records.results.get("loans", "2026-03-01", "train_model") is not None


def test_a_superseded_holder_writes_nothing(records: Records) -> None:
    old = records.leases.claim(
        "loans", "train_model", "2026-03-01", owner="task", attempt=1, ttl=30
    )
    new = records.leases.claim(
        "loans", "train_model", "2026-03-01", owner="task", attempt=2, ttl=30
    )
    with pytest.raises(Busy, match="is lost: task"):
        records.results.commit(old, result("old"), entries=[entry()])
    assert (records.results.get("loans", "2026-03-01", "train_model"), records.audit.entries()) == (
        None,
        [],
    )
    records.results.commit(new, result("new"))
    with pytest.raises(Busy):
        records.results.commit(old, result("old"))
    there = records.results.get("loans", "2026-03-01", "train_model")
    assert there is not None
    assert (there.digest, there.token) == ("new", 2)


def test_a_lease_covers_its_own_thing_only(records: Records) -> None:
    lease = records.leases.claim(
        "loans", "train_model", "2026-03-01", owner="me", attempt=1, ttl=30
    )
    with pytest.raises(Busy, match="does not cover loans/train_model/2026-03-02"):
        records.results.commit(lease, result(key="2026-03-02"))


def test_results_are_listed_by_stage_and_keys(records: Records) -> None:
    for stage in ("check_drift", "train_model"):
        for day in (3, 1, 2):
            key = f"2026-03-0{day}"
            records.results.commit(
                records.leases.claim("loans", stage, key, owner="me", attempt=1, ttl=30),
                result(key=key, stage=stage),
            )
    assert [
        (row.key, row.stage)
        for row in records.results.of("loans", keys=["2026-03-01", "2026-03-03", "2027-01-01"])
    ] == [
        ("2026-03-01", "check_drift"),
        ("2026-03-01", "train_model"),
        ("2026-03-03", "check_drift"),
        ("2026-03-03", "train_model"),
    ]
    assert [row.key for row in records.results.of("loans", stage="check_drift")] == [
        "2026-03-01",
        "2026-03-02",
        "2026-03-03",
    ]
    many = [f"no {number}" for number in range(40_000)] + ["2026-03-02"]
    assert [row.stage for row in records.results.of("loans", keys=many)] == [
        "check_drift",
        "train_model",
    ]
    assert records.results.of("loans", keys=[]) == []
    assert records.results.of("other") == []


def test_times_come_back_in_utc_and_naive_ones_are_refused(records: Records) -> None:
    kolkata = timezone(timedelta(hours=5, minutes=30))
    lease = records.leases.claim(
        "loans", "train_model", "2026-03-01", owner="me", attempt=1, ttl=30
    )
    records.results.commit(
        lease, result(started_at=datetime(2026, 3, 1, 11, 30, 0, 1, tzinfo=kolkata))
    )
    there = records.results.get("loans", "2026-03-01", "train_model")
    assert there is not None
    assert there.started_at.isoformat() == "2026-03-01T06:00:00.000001+00:00"
    with pytest.raises(Exception, match="no time zone"):
        records.results.commit(lease, result(started_at=datetime(2026, 3, 1)))  # noqa: DTZ001


# the database below


def test_a_fork_gets_connections_of_its_own(records: Records) -> None:
    raise_to(records, "backfill", "data")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for number in range(5):
                records.audit.append(entry("child", subject=str(number)))
            code = 0 if len(records.audit.entries(action="child")) == 5 else 2
        finally:
            os._exit(code)
    for number in range(5):
        records.audit.append(entry("parent", subject=str(number)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [len(records.audit.entries(action=who)) for who in ("parent", "child")] == [5, 5]
    assert records.audit.verify() is None


def test_the_tables_are_those_of_the_models(records: Records) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with records.database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
        )
        differences = [
            change
            for change in compare_metadata(context, Base.metadata)
            if "audit_once" not in str(change)
        ]
    assert differences == []


def test_the_newest_revision_is_the_head() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(migrate.FOLDER))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


MIGRATE = """
import sys
from include.records.records import Records
records = Records.open(sys.argv[1])
sys.stdin.readline()
records.migrate()
print(records.audit.verify(), records.audit.head()[0])
"""


def test_several_processes_migrate_at_once(records_url: str) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [
        subprocess.Popen([sys.executable, "-c", MIGRATE, records_url], cwd=ROOT, text=True, **pipes)  # type: ignore[call-overload]
        for _ in range(3)
    ]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60) for process in processes]
    assert [out for out, _ in answers] == ["None 0\n"] * 3, answers
    records = Records.open(records_url)
    records.migrate()
    with records.database.engine.connect() as connection:
        assert set(inspect(connection).get_table_names()) == {*Base.metadata.tables, VERSION_TABLE}
        assert connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).all() == [
            (HEAD,)
        ]


def test_an_installed_copy_migrates_from_anywhere(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "include",
        tmp_path / "100% site" / "include",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "100% site")}
    done = subprocess.run(
        [sys.executable, "-c", MIGRATE, f"sqlite:///{tmp_path}/new folder/records.db"],
        cwd=tmp_path,
        env=environment,
        input="\n",
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("None 0\n", 0), done.stderr


def test_a_database_of_a_newer_version_is_left_alone(records: Records) -> None:
    with records.transaction() as session:
        session.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(
        ConfigError, match=r"another version of Evergreen .*9999.*install that version"
    ):
        records.migrate()


def test_a_database_without_tables_says_what_makes_them(records_url: str) -> None:
    records = Records.open(records_url)
    for act in (
        lambda: records.partitions.get("loans", "2026-03-01"),
        lambda: records.audit.append(entry()),
    ):
        with pytest.raises(ConfigError, match="`make run` creates them"):
            act()


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://root@localhost/x",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql://h:no/x",
    ],
)
def test_a_wrong_url_is_refused_with_the_right_form(url: str) -> None:
    with pytest.raises(ConfigError, match="EVERGREEN_RECORDS_URL"):
        Records.open(url)


def test_no_error_tells_the_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said, form = [], "postgresql+psycopg://nobody:{0}@{2}/x?sslpassword={1}"
    secrets = ("s3cr%2Ft", "s3cond")  # apart from the calls: a traceback quotes those lines
    for address in ("127.0.0.1:9", "127.0.0.1:5432", "no-such-host.invalid"):
        records = Records.open(form.format(*secrets, address), patience=0.2)
        with pytest.raises(Unavailable, match="EVERGREEN_RECORDS_URL") as caught:
            records.audit.append(entry())
        said += ["".join(traceback.format_exception(caught.value)), repr(records)]
    with pytest.raises(ConfigError) as wrong:
        Records.open(form.format(*secrets, "host:no-port"))
    said += ["".join(traceback.format_exception(wrong.value)), caplog.text]
    assert not [text for text in said if "s3cr" in text or "s3cond" in text]
    assert "nobody:***@127.0.0.1:9/x" in said[0]


def test_sqlite_waits_for_a_writer_and_never_blocks_a_reader(tmp_path: Path) -> None:
    records = Records.open(f"sqlite:///{tmp_path / 'records.db'}")
    records.migrate()
    with records.database.engine.connect() as connection:
        settings = [
            connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout")
        ]
    assert settings == ["wal", 1, 30_000]
    finished: list[float] = []
    with records.transaction() as session:
        audit.append(session, entry())
        session.execute(text("UPDATE audit_head SET hash = hash"))
        writer = threading.Thread(
            target=lambda: finished.append(raise_to(records, "live", "data") and 1.0)
        )
        writer.start()
        assert records.audit.entries() == []  # a reader goes on, and sees the old state
        writer.join(0.3)
        assert finished == []
    writer.join(10)
    assert finished == [1.0]
    assert [row.action for row in records.audit.entries()] == ["judged", "partition.raised"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="file/deep: cannot be made for the records"):
        Records.open(f"sqlite:///{tmp_path}/file/deep/records.db")


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "records.db").mkdir()
    with pytest.raises(Unavailable, match=r"records\.db does not answer \(unable to open"):
        Records.open(f"sqlite:///{tmp_path}/records.db").migrate()


def test_a_full_disk_is_named_and_nothing_is_half_written(tmp_path: Path) -> None:
    records = Records.open(f"sqlite:///{tmp_path / 'records.db'}")
    records.migrate()

    def fill(session: Session) -> None:
        pages = session.execute(text("PRAGMA page_count")).scalar()
        session.execute(text(f"PRAGMA max_page_count = {pages}"))
        audit.append(session, entry(details={"x": "x" * 100_000}))

    with pytest.raises(Unavailable, match=r"no space is left for .*records\.db"):
        records.database.write(fill)
    assert (records.audit.entries(), records.audit.verify(), records.audit.head()[0]) == (
        [],
        None,
        0,
    )


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "records.db").write_bytes(
        b"no database, but long enough to look like a header" * 100
    )
    with pytest.raises(Unavailable, match=r"records\.db is damaged"):
        Records.open(f"sqlite:///{tmp_path / 'records.db'}").migrate()


def test_connections_that_the_server_ends_are_replaced(postgres_url: str) -> None:
    records = Records.open(postgres_url)
    records.migrate()
    ended: list[int] = []
    kill = text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = "
        "current_database() AND pid <> :mine"
    )

    def end_others() -> None:
        other = Records.open(postgres_url)
        with other.database.engine.connect() as connection:
            mine = connection.execute(text("SELECT pg_backend_pid()")).scalar()
            ended.append(connection.execute(kill, {"mine": mine}).scalar() or 0)
        other.close()

    def work(session: Session) -> None:
        session.execute(text("SELECT 1"))
        if len(ended) < 2:
            end_others()
        audit.append(session, entry("kept"))

    end_others()  # while idle in the pool
    records.audit.append(entry("idle"))
    records.database.write(work)  # in the middle of a transaction
    assert len(ended) == 2
    assert ended[1] >= 1
    assert [row.action for row in records.audit.entries()] == ["idle", "kept"]
    assert records.audit.verify() is None


def nightly(count: int) -> list[StageResult]:
    """Return trainings of so many nights, each of which reads every partition up to its own."""
    days = [(date(2025, 1, 1) + timedelta(days=number)).isoformat() for number in range(count)]
    tables = ("labels", "features/spending@0123456789", "features/visit@0123456789")

    def read(until: int) -> list[list[str]]:
        return [
            [table, key, f"sha256:{table}{key}".ljust(71, "0")]
            for key in days[:until]
            for table in tables
        ]

    return [result(key=key, reads=read(number + 1)) for number, key in enumerate(days)]


def test_records_do_not_grow_with_the_square_of_the_partitions(records: Records) -> None:
    """Twice the nights take about twice the space, and every list comes back whole."""
    sizes, nights = [], nightly(80)
    for start, end in ((0, 40), (40, 80)):
        for made in nights[start:end]:
            lease = records.leases.claim(
                "loans", "train_model", made.key, owner="me", attempt=1, ttl=30
            )
            records.results.commit(lease, made)
            records.results.commit(lease, made)  # a lost answer: the same again changes nothing
        with records.database.engine.connect() as connection:
            kept = [
                connection.execute(text(f"SELECT sum(length(reads)) FROM {table}")).scalar()
                for table in ("results", "reads")
            ]
        sizes.append(sum(kept))
    assert sizes[1] < 2.6 * sizes[0], "lists of their own would take four times the space"
    found = records.results.of("loans", stage="train_model")
    assert [sorted(row.reads) for row in found] == [sorted(row.reads) for row in nights]
    one = records.results.get("loans", nights[-1].key, "train_model")
    assert one is not None
    assert sorted(one.reads) == sorted(nights[-1].reads)
    assert records.results.states("loans") == {("train_model", row.key): "done" for row in nights}
    assert records.forget("loans")["reads"] > 0


def test_what_an_older_version_recorded_is_moved_and_read_alike(records: Records) -> None:
    night = nightly(70)[-1]
    with records.transaction() as session:  # as revision 0002 kept it
        session.add(ResultRow(**vars(night)))
        session.execute(text("DROP TABLE reads"))
        session.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0002'"))
    records.migrate()
    with records.database.engine.connect() as connection:
        kept = connection.execute(text("SELECT reads FROM results")).scalar_one()
    assert len(kept) < 1000, "the list itself stands in blocks"
    (found,) = records.results.of("loans")
    assert sorted(found.reads) == sorted(night.reads)
    assert dataclasses.replace(found, reads=[]) == dataclasses.replace(night, reads=[])


def test_forgetting_a_use_case_previews_and_keeps_the_log(records: Records) -> None:
    lease = records.leases.claim(
        "loans", "train_model", "2026-03-01", owner="me", attempt=1, ttl=30
    )
    raise_to(records, "live", "judged")
    records.results.commit(lease, result())
    records.feature_sets.add("loans", "v1", {"sql": "x"})
    records.partitions.raise_to(
        "other", "2026-03-01", mode="live", target="data", actor="me", at=AT
    )
    counts = records.forget("loans")
    assert {name: count for name, count in counts.items() if count} == {
        "partitions": 1,
        "results": 1,
        "feature_sets": 1,
    }
    assert records.partitions.get("loans", "2026-03-01") is not None
    assert records.forget("loans", entry=entry("reset")) == counts
    assert (
        records.partitions.of("loans"),
        records.results.of("loans"),
        records.feature_sets.of("loans"),
    ) == ([], [], [])
    assert records.audit.entries(action="reset")[0].details["rows"] == counts
    assert len(records.partitions.of("other")) == 1
    assert (
        records.leases.claim(
            "loans", "train_model", "2026-03-01", owner="me", attempt=2, ttl=30
        ).token
        == 2
    )
    assert records.audit.verify() is None


def test_a_database_file_that_is_put_anew_is_not_written_behind_the_scenes(tmp_path: Path) -> None:
    url, folder = f"sqlite:///{tmp_path}/state/records.db", tmp_path / "state"
    records = Records.open(url)
    records.migrate()
    records.audit.append(entry("old"))
    folder.rename(tmp_path / "kept")
    with pytest.raises(Unavailable, match="unable to open"):
        records.audit.entries()
    folder.mkdir()
    Records.open(url).migrate()
    records.audit.append(entry("new"))
    assert [row.action for row in Records.open(url).audit.entries()] == ["new"]


def test_verifying_while_others_append_sees_one_snapshot(records: Records) -> None:
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            records.audit.append(entry("more"))

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        assert [records.audit.verify() for _ in range(25)] == [None] * 25
    finally:
        stop.set()
        for writer in writers:
            writer.join()
