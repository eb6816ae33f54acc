"""A backup and its restore: the same champion answers with the same score, wherever it goes."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import IO

import msgspec
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url, text

from include.backups import after, tables
from include.backups import take as taking
from include.backups.manifest import Piece
from include.backups.repository import Repository, files_of
from include.backups.restore import Restored
from include.clock import utc_now
from include.errors import ArtefactError, Busy, ConfigError, SourceError
from include.installation.databases import owners_records
from include.models import mlflow_registry
from include.models.mlflow_client import connected
from include.models.private_key import open_signer, signing_id
from include.models.public_keys import REVOKED, merge_keys, read_keys
from include.pipeline import runner
from include.records.records import AuditEntry
from include.retention import collect_garbage
from tests.backups.place import KILLED_AT, Target, kill, score, take, trained
from tests.builders.judging import LATE, MIDDLE, NAME, Bench
from tests.builders.object_stores import S3Store
from tests.builders.postgres_roles import prepared_place


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return trained(tmp_path_factory.mktemp("backups") / "home")


@pytest.fixture(scope="module")
def taken(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    made = Repository(str(tmp_path_factory.mktemp("kept")))
    take(bench, made)
    return made


@pytest.fixture
def repository(taken: Repository, tmp_path: Path) -> Repository:
    """A backup that a test may damage."""
    shutil.copytree(taken.tree.root, tmp_path / "kept")
    return Repository(str(tmp_path / "kept"))


@pytest.fixture
def elsewhere(bench: Bench, tmp_path: Path) -> Iterator[Path]:
    """A folder with the use case's file, while the home of the backup is away."""
    away = bench.home.with_name("away")
    shutil.copytree(bench.home / "usecases", tmp_path / "usecases")
    bench.records.close()
    bench.home.rename(away)
    try:
        yield tmp_path
    finally:
        away.rename(bench.home)


OF_RELEASES = (
    *("releases", "release_windows", "release_evidence"),
    *("release_guards", "release_beats", "freezes"),
)


def target_in(folder: Path, **settings: str | SecretStr) -> Target:
    return Target(folder / "other" / "home", str(folder / "usecases"), **settings)


def reused(target: Target) -> list[bool]:
    """Run stages of both days again, and return which were answered from the record."""
    days = (("train_model", MIDDLE), ("train_model", LATE), ("evaluate_model", LATE))
    return [runner.run(stage, NAME, key, settings=target.settings).reused for stage, key in days]


@pytest.mark.slow
def test_a_new_home_has_the_same_champion_and_score_and_its_history_goes_on(
    bench: Bench, taken: Repository, elsewhere: Path
) -> None:
    target = target_in(elsewhere)
    made = target.restore(taken)
    assert (made.epoch, made.champions, made.notes) == (2, {NAME: 2}, [])
    assert target.records.audit.verify() is None
    newest = target.records.audit.entries()[-1]
    assert (newest.action, newest.details["epoch"]) == ("installation.restored", 2)
    assert newest.details["backup"] == taken.names()[-1]
    assert target.records.serving_rows().epoch == 2
    assert reused(target) == [True] * 3
    assert mlflow_registry.count_entries(target.settings, NAME) == {"model versions": 2, "runs": 2}
    home = target.settings.home
    with connected(target.settings) as client:
        experiment = client.get_experiment_by_name(NAME)
        assert experiment.artifact_location == (home / "mlartifacts" / NAME).as_uri()
        for run in client.search_runs([experiment.experiment_id]):
            assert run.info.artifact_uri.startswith(experiment.artifact_location)
            listed = {each.path for each in client.list_artifacts(run.info.run_id)}
            assert {"bundle", "model"} <= listed
    segments = sorted(path.name for path in (home / "predictions" / NAME).iterdir())
    assert segments == ["one.jsonl"], "what is being written is no part of it"
    # A release is where it was; whether it goes on is for its judge, by the age of its last beat.
    (row,) = target.records.serving_rows().rows
    assert row.release is not None
    assert (row.release.state, row.route.share) == ("running", 500)
    assert row.beat == target.records.releases.last_beat(NAME)
    windows = target.records.releases.windows(NAME, row.release.id)
    assert [(one.boot, one.closed) for one in windows] == [("b1", False), ("b2", True)]
    assert all(rows(target, table) for table in OF_RELEASES)


def test_public_keys_come_along_and_private_ones_never(
    bench: Bench, taken: Repository, elsewhere: Path
) -> None:
    """What was revoked here since the backup stays revoked, and an own key is no obstacle."""
    target = target_in(elsewhere)
    own = open_signer(target.settings, utc_now()).id
    made = target.restore(taken)
    champion = target.records.models.get(NAME, 2)
    assert champion is not None
    old, folder = str(champion.signing_key), target.settings.signing_keys_folder
    assert read_keys(folder).keys.keys() == {own, old}
    assert signing_id(target.settings) == own
    assert made.champions == {NAME: 2}
    files = list(files_of(taken, taken.manifest()))
    names = [file.path for file in files if file.tree == "keys"]
    assert sorted(names) == sorted([f"{old}.json", REVOKED])
    private = bench.home.with_name("away") / "secrets" / "signing_key"
    digest = hashlib.sha256(private.read_bytes()).hexdigest()
    assert digest not in {file.digest.removeprefix("sha256:") for file in files}

    again = Target(elsewhere / "again", str(elsewhere / "usecases"))
    merge_keys(again.settings.signing_keys_folder, {REVOKED: f"{old} stolen".encode()})
    made = again.restore(taken)
    assert (made.champions, "is revoked" in made.notes[0]) == ({}, True)


@pytest.mark.slow
def test_the_restored_champion_gives_the_same_score(
    bench: Bench, taken: Repository, tmp_path: Path
) -> None:
    before = score(bench.records, bench.settings)
    shutil.copytree(bench.home / "usecases", tmp_path / "usecases")
    target = target_in(tmp_path)
    target.restore(taken)
    assert target.score() == before


@pytest.mark.slow
def test_it_goes_to_postgresql_and_an_object_store_and_back(
    bench: Bench, taken: Repository, elsewhere: Path, postgres_url: str, s3_store: S3Store
) -> None:
    import psycopg

    url = make_url(postgres_url)
    mlflow = f"{url.database}_mlflow"
    server = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{mlflow}"')
    try:
        target = target_in(
            elsewhere,
            records_url=postgres_url,
            mlflow_uri=url.set(database=mlflow).render_as_string(hide_password=False),
            lake_uri=f"{s3_store.uri}/lake",
            store_uri=f"{s3_store.uri}/store",
        )
        made = target.restore(taken)
        assert (made.epoch, made.champions, made.notes) == (2, {NAME: 2}, [])
        assert target.records.audit.verify() is None
        assert reused(target) == [True] * 3
        # What numbers MLflow's rows goes on behind those that were restored.
        with connected(target.settings) as client:
            assert int(client.create_experiment("another")) == 2

        before = target.score()
        back = Repository(f"{s3_store.uri}/backups")
        bench_there = _as_bench(target)
        take(bench_there, back)
        again = Target(elsewhere / "back", str(elsewhere / "usecases"))
        made = again.restore(back)
        assert (made.epoch, made.champions, made.notes) == (3, {NAME: 2}, [])
        assert again.score() == before
        assert again.records.audit.verify() is None
        assert reused(again) == [True] * 3
        for table in ("results", "models", "partitions", "routes", "opponents", *OF_RELEASES):
            assert rows(again, table) == rows(target, table), table
    finally:
        target.records.close()
        _forget_mlflow()
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(f'DROP DATABASE "{mlflow}" WITH (FORCE)')


def _as_bench(target: Target) -> Bench:
    bench = object.__new__(Bench)
    bench.home, bench.settings, bench.records = (
        target.settings.home,
        target.settings,
        target.records,
    )
    return bench


def _forget_mlflow() -> None:
    from include.models import mlflow_client

    mlflow_client._client.cache_clear()


def rows(target: Target, table: str) -> list[str]:
    """Return what a table holds, without what differs between homes."""
    from include.records.columns import Base

    with target.records.transaction() as session:
        found = session.execute(Base.metadata.tables[table].select()).all()
    return sorted(repr(tuple(row)).replace(str(target.settings.home), "HOME") for row in found)


def test_a_second_backup_copies_only_what_is_new_and_all_can_be_restored(
    bench: Bench, tmp_path: Path
) -> None:
    repository = Repository(str(tmp_path / "kept"))
    first = take(bench, repository)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*")}
    # What never changes is not even read: its bytes are known by the backup of before.
    read: list[str] = []
    real = Repository.keep

    def keep(self: Repository, tree: object, path: str) -> object:
        read.append(path)
        return real(self, tree, path)  # type: ignore[arg-type]

    Repository.keep = keep  # type: ignore[method-assign, assignment]
    try:
        second = take(bench, repository, before=repository.manifest())
    finally:
        Repository.keep = real  # type: ignore[method-assign]
    rows_read = [path for path in read if "/_delta_log/" not in path]
    assert not [path for path in rows_read if path.startswith(f"{NAME}/features")]
    assert repository.names() == [first.name, second.name]
    new = [path for path in (tmp_path / "kept" / "objects").rglob("*") if path.is_file()]
    added = [path for path in new if path not in before]
    # The audit log has a row more, and with it the table.
    assert len(added) <= 4, added
    assert {file.path for file in files_of(repository, first)} == {
        file.path for file in files_of(repository, second)
    }
    assert repository.forget(1, now=time.time())[0] == 1
    assert repository.names() == [second.name]
    shutil.copytree(bench.home / "usecases", tmp_path / "usecases")
    target = target_in(tmp_path)
    assert target.restore(repository).champions == {NAME: 2}


def test_what_a_killed_backup_left_half_written_goes_with_older_ones_after_a_day(
    repository: Repository,
) -> None:
    now = time.time()
    piece = next((Path(repository.tree.root) / "objects").rglob("*/*"))
    young = piece.with_name(f".0123456789ab.{piece.name}")  # another backup may be writing it
    old = piece.with_name(f".ba9876543210.{piece.name}")
    manifest = Path(repository.tree.root) / "backups" / ".ba9876543210.then.json"
    for path, hours in ((young, 1), (old, 25), (manifest, 25)):
        path.write_bytes(b"half of it")
        os.utime(path, (now - hours * 3600,) * 2)
    assert repository.forget(1, now=now) == (0, 2)
    assert [path.exists() for path in (piece, young, old, manifest)] == [True, True, False, False]


@pytest.mark.slow
def test_a_backup_killed_half_way_is_none_and_the_next_one_goes_on(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(str(tmp_path / "kept"))
    kept = 0
    real = Repository.keep

    def keep(self: Repository, tree: object, path: str) -> object:
        nonlocal kept
        kept += 1
        if kept > 40:
            raise KeyboardInterrupt
        return real(self, tree, path)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Repository, "keep", keep)
        with pytest.raises(KeyboardInterrupt):
            take(bench, repository)
    assert repository.names() == []
    with pytest.raises(ConfigError, match="holds no backup; there is none"):
        repository.manifest()
    # The lease is given back, so that a collection is not held up.
    assert bench.records.leases.holders(NAME) == []
    take(bench, repository)
    shutil.copytree(bench.home / "usecases", tmp_path / "usecases")
    assert target_in(tmp_path).restore(repository).champions == {NAME: 2}


@pytest.mark.parametrize("at", KILLED_AT)
def test_a_restore_killed_half_way_is_run_again(
    taken: Repository, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    target = target_in(elsewhere)
    with monkeypatch.context() as patched:
        kill(patched, Repository, at)
        with pytest.raises(KeyboardInterrupt):
            target.restore(taken)
    assert target.records.routes.names() == []
    assert target.records.epochs.current() == 1
    made = target.restore(taken)
    assert (made.epoch, made.champions) == (2, {NAME: 2})
    assert made.copied < made.files or at == "files"
    assert target.records.audit.verify() is None
    assert mlflow_registry.count_entries(target.settings, NAME) == {"model versions": 2, "runs": 2}


@pytest.mark.parametrize("since", ["nothing", "a run"])
def test_a_restore_killed_half_way_goes_on_by_a_newer_backup_of_the_same_rows(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since: str
) -> None:
    repository = Repository(str(tmp_path / "kept"))
    first = take(bench, repository)
    shutil.copytree(bench.home / "usecases", tmp_path / "usecases")
    target = target_in(tmp_path)
    with monkeypatch.context() as patched:
        kill(patched, Repository, "between the databases")
        with pytest.raises(KeyboardInterrupt):
            target.restore(repository)
    second = take(bench, repository)
    assert second.mlflow == first.mlflow, "equal rows are equal pieces"
    if since == "nothing":
        assert target.restore(repository, second).champions == {NAME: 2}
        return
    rows = {**second.mlflow.tables, "runs": second.records.tables["routes"]}
    other = msgspec.structs.replace(second.mlflow, tables=rows)
    with pytest.raises(ConfigError, match=r"has runs and registered_models already"):
        target.restore(repository, msgspec.structs.replace(second, mlflow=other))
    assert target.restore(repository, first).champions == {NAME: 2}


def test_what_a_version_before_has_loaded_is_known_by_the_name_of_its_backup(
    taken: Repository, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = target_in(elsewhere)
    with monkeypatch.context() as patched:
        kill(patched, Repository, "between the databases")
        with pytest.raises(KeyboardInterrupt):
            target.restore(taken)
    with tables.transaction(target.settings.mlflow_address) as connection:
        marked = text("UPDATE experiment_tags SET value = :value WHERE key = 'evergreen.restored'")
        assert connection.execute(marked, {"value": "another"}).rowcount == 1
    with pytest.raises(ConfigError, match=r"has runs and registered_models already"):
        target.restore(taken)
    with tables.transaction(target.settings.mlflow_address) as connection:
        connection.execute(marked, {"value": taken.manifest().name})
    assert target.restore(taken).champions == {NAME: 2}


def test_a_place_that_is_not_empty_is_refused_with_the_remedy(
    bench: Bench, taken: Repository, elsewhere: Path
) -> None:
    target = target_in(elsewhere)
    target.restore(taken)
    with pytest.raises(ConfigError, match=r"is not empty .*routes"):
        target.restore(taken)
    assert target.records.epochs.current() == 2
    other = Target(elsewhere / "third", str(elsewhere / "usecases"))
    strange = other.settings.home / "lake" / "someone" / "file.parquet"
    strange.parent.mkdir(parents=True)
    strange.touch()
    with pytest.raises(ConfigError, match=r"someone/file\.parquet.*name an empty place"):
        other.restore(taken)
    strange.unlink()
    assert other.restore(taken).epoch == 2


def damage(repository: Repository, digest: str) -> None:
    path = Path(repository.tree.root) / "objects" / digest[:2] / digest
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_file_is_refused_before_anything_is_in_the_records(
    repository: Repository, elsewhere: Path
) -> None:
    manifest = repository.manifest()
    bundle = next(
        file for file in files_of(repository, manifest) if file.path.endswith("model.txt")
    )
    damage(repository, bundle.digest)
    target = target_in(elsewhere)
    with pytest.raises(ArtefactError, match=r"model\.txt of the backup does not have its digest"):
        target.restore(repository)
    assert target.records.routes.names() == []


@pytest.mark.parametrize("what", ["audit", "routes", "manifest", "list"])
def test_a_damaged_table_list_or_manifest_is_refused(
    repository: Repository, elsewhere: Path, what: str
) -> None:
    manifest = repository.manifest()
    if what == "manifest":
        path = Path(repository.tree.root) / "backups" / f"{manifest.name}.json"
        path.write_text(path.read_text().replace('"epoch": 1', '"epoch": 7'))
        with pytest.raises(ArtefactError, match="was changed"):
            repository.manifest()
        return
    piece = manifest.files if what == "list" else manifest.records.tables[what].piece
    damage(repository, piece.digest)
    target = target_in(elsewhere)
    with pytest.raises(ArtefactError, match="does not have its digest"):
        target.restore(repository, manifest)
    assert target.records.routes.names() == []
    assert target.records.epochs.current() == 1


@pytest.mark.slow
def test_a_backup_of_a_broken_audit_log_is_not_restored(
    bench: Bench, elsewhere: Path, tmp_path: Path
) -> None:
    away = Bench(bench.home.with_name("away"))
    repository = Repository(str(tmp_path / "kept"))
    with away.records.transaction() as session:
        session.execute(text("DROP TRIGGER audit_no_update"))
        session.execute(text("UPDATE audit SET actor = actor || '!' WHERE sequence = 2"))
    try:
        take(away, repository)
        target = target_in(elsewhere)
        with pytest.raises(ArtefactError, match="row 2 was changed"):
            target.restore(repository)
        assert target.records.routes.names() == []
    finally:
        with away.records.transaction() as session:
            session.execute(text("UPDATE audit SET actor = rtrim(actor, '!') WHERE sequence = 2"))
            session.execute(
                text(
                    "CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT "
                    "RAISE(ABORT, 'audit rows are never changed or removed'); END"
                )
            )
        away.records.close()


def test_a_collection_waits_for_a_backup_and_removes_nothing_of_it(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(str(tmp_path / "kept"))
    refused: list[str] = []
    real = Repository.keep

    def collect() -> None:
        collect_garbage.collect(
            bench.settings,
            bench.records,
            bench.use_case,
            at=utc_now() + timedelta(days=3),
            actor="test",
        )

    def keep(self: Repository, tree: object, path: str) -> object:
        if not refused:
            with pytest.raises(Busy, match="held by backup@") as error:
                collect()
            refused.append(str(error.value))
        return real(self, tree, path)  # type: ignore[arg-type]

    monkeypatch.setattr(Repository, "keep", keep)
    take(bench, repository)
    assert refused
    collect()


def test_a_commit_in_the_middle_of_a_backup_is_no_part_of_it(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logs of the tables are listed before their files: no version lacks any."""
    import pyarrow as pa

    from include.lake.tables import Lake

    table = f"{NAME}/busy"
    rows_of = pa.table({"entity": pa.array([1, 2], pa.int64())})
    for number in range(3):
        bench.lake.replace(table, f"2026-03-0{number + 1}", rows_of)
    repository = Repository(str(tmp_path / "kept"))
    real, seen = Repository.keep, 0

    def keep(self: Repository, tree: object, path: str) -> object:
        nonlocal seen
        if path.startswith(table):
            seen += 1
            if seen < 30:
                Lake(bench.settings.lake_root).replace(table, f"2026-04-{seen:02d}", rows_of)
        return real(self, tree, path)  # type: ignore[arg-type]

    monkeypatch.setattr(Repository, "keep", keep)
    take(bench, repository)
    shutil.copytree(bench.home / "usecases", tmp_path / "usecases")
    target = target_in(tmp_path)
    target.restore(repository)
    restored = Lake(target.settings.lake_root)
    assert len(restored.read(table)) == 2 * len(restored.keys(table))
    assert set(restored.keys(table)) >= {"2026-03-01", "2026-03-02", "2026-03-03"}
    assert len(restored.keys(table)) < len(bench.lake.keys(table))
    shutil.rmtree(Path(bench.settings.lake_root) / table)


def test_who_holds_a_lease_or_reports_is_not_restored_and_tokens_go_on(
    bench: Bench, elsewhere: Path, tmp_path: Path
) -> None:
    away = Bench(bench.home.with_name("away"))
    repository = Repository(str(tmp_path / "kept"))
    claimed = away.records.leases.claim(
        NAME, "train_model", LATE, owner="somebody", attempt=1, ttl=600
    )
    with claimed:
        take(away, repository)
    away.records.close()
    target = target_in(elsewhere)
    target.restore(repository)
    assert target.records.leases.holders(NAME) == []
    again = target.records.leases.claim(NAME, "train_model", LATE, owner="me", attempt=1, ttl=600)
    assert again.token == claimed.token + 1
    again.release()


def test_a_place_in_what_is_backed_up_is_refused(bench: Bench, tmp_path: Path) -> None:
    for place in ("lake/backups", "lake", "predictions/kept"):
        with pytest.raises(ConfigError, match="is part of what is backed up"):
            taking.refuse_inside(bench.settings, Repository(str(bench.home / place)))
    taking.refuse_inside(bench.settings, Repository(str(bench.home / "lakes")))
    taking.refuse_inside(bench.settings, Repository(str(tmp_path)))


def test_only_one_process_takes_backups_and_removes_older_ones(bench: Bench) -> None:
    with (
        taking.only_one(bench.settings, bench.records),
        pytest.raises(Busy, match="held by backup@"),
    ):
        taking.only_one(bench.settings, bench.records)


def test_roles_of_their_own_work_on_what_the_owner_has_restored(
    taken: Repository, elsewhere: Path
) -> None:
    """In compose a worker may change no audit row, so the owner restores."""
    with prepared_place() as place:
        names = {role: SecretStr(getattr(place, role)) for role in ("owner", "worker", "node")}
        target = target_in(
            elsewhere,
            records_url=names["worker"],
            records_owner_url=names["owner"],
            records_node_url=names["node"],
        )
        target.records = owners_records(target.settings)
        made = target.restore(taken)
        assert (made.epoch, made.champions) == (2, {NAME: 2})
        assert reused(target) == [True] * 3, "as the worker"
        node = place.open("node")
        assert node.serving_rows().epoch == 2
        entry = AuditEntry("release.rolled_back", NAME, "2", "node", {}, utc_now())
        assert node.routes.rollback(NAME, entry=entry).champion == 1
        assert target.records.audit.verify() is None
        for records in (target.records, node, place.open("worker")):
            records.close()


def test_a_commit_of_a_table_that_was_made_anew_is_read_though_it_is_as_long(
    bench: Bench, tmp_path: Path
) -> None:
    """After a reset the table's log begins again, under the same names."""
    log = bench.home / "lake" / "again" / "rows" / "_delta_log" / f"{0:020d}.json"
    log.parent.mkdir(parents=True)
    repository = Repository(str(tmp_path / "kept"))
    try:
        log.write_bytes(b"one")
        take(bench, repository)
        log.write_bytes(b"two")
        newest = take(bench, repository, before=repository.manifest())
    finally:
        shutil.rmtree(bench.home / "lake" / "again")
    (kept,) = [file for file in files_of(repository, newest) if "again/rows" in file.path]
    with repository.open(Piece(kept.digest, kept.bytes)) as file:
        assert file.read() == b"two"


class _Slow(Repository):
    """A place to which, and from which, a large table takes its time."""

    seconds = 0.0

    def keep_text(self, lines: Iterable[bytes]) -> tuple[int, Piece]:
        kept = super().keep_text(lines)
        self._take_long()
        return kept

    def open(self, piece: Piece) -> IO[bytes]:
        if piece in {table.piece for table in self.manifest().records.tables.values()}:
            self._take_long()
        return super().open(piece)

    def _take_long(self) -> None:
        time.sleep(self.seconds)
        self.seconds = 0.0  # once is enough


def test_a_table_that_takes_long_to_copy_does_not_end_the_transaction(
    taken: Repository, elsewhere: Path, postgres_url: str
) -> None:
    impatient = make_url(postgres_url).update_query_dict(
        {"options": "-c timezone=UTC -c idle_in_transaction_session_timeout=1500ms"}
    )
    address = impatient.render_as_string(hide_password=False)
    target = target_in(elsewhere, records_url=SecretStr(address))
    slow = _Slow(taken.tree.root)
    slow.seconds = 3.0
    assert target.restore(slow).champions == {NAME: 2}
    slow = _Slow(str(elsewhere / "slow"))
    slow.seconds = 3.0
    before = time.monotonic()
    assert take(_as_bench(target), slow).use_cases == (NAME,)
    assert slow.seconds == 0.0
    assert time.monotonic() - before > 3.0
    target.records.close()


def test_a_target_that_cannot_be_written_is_named(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file")
    with pytest.raises(SourceError, match=r"kept: cannot be written .*mend that"):
        take(bench, Repository(str(tmp_path / "kept")))


def test_the_note_on_features_names_a_command_that_there_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from include.cli.app import app

    monkeypatch.setattr(after, "_online", lambda records: iter([("nobody", LATE)]))
    made = Restored(2, 0, 0, 0)
    after.bring_online(bench.settings, bench.records, made, actor="test", say=lambda line: None)
    (note,) = made.notes
    monkeypatch.setenv("EVERGREEN_HOME", str(bench.home))
    found = re.search("`evergreen (.*)`", note)
    assert found is not None
    came = CliRunner().invoke(app, found[1].split())
    assert "nobody" in str(came.exception), "the use case is unknown, the command is not"
