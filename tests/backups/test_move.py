"""A laptop's home moves into PostgreSQL and other folders, and stays as it was."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from include.backups import after
from include.backups import restore as restoring
from include.backups.move import move, source_settings
from include.backups.repository import InPlace
from include.clock import utc_now
from include.config.settings import ROOT
from include.deployment.rollback import Late
from include.errors import Busy, ConfigError, SourceError
from include.features.online_stores import open_store
from include.installation.lock import InstallationLock
from include.models import mlflow_client, mlflow_registry
from include.pipeline import runner
from include.pipeline.flow import DATA_STAGES
from include.predictions.log import PredictionLog
from include.records.records import AuditEntry, Records, RoleReport
from include.serving.journal import Journal
from tests.backups.place import KILLED_AT, Target, kill, score, trained
from tests.builders import redis_server
from tests.builders.installation import Installation, small_repayment
from tests.builders.judging import LATE, NAME, Bench, new_bench
from tests.builders.releases import add_model


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return trained(tmp_path_factory.mktemp("move") / "home")


@dataclass
class Compose:
    """Where it goes: records and MLflow in PostgreSQL, lake in a folder that machines share."""

    target: Target
    folder: Path


@pytest.fixture
def compose(bench: Bench, tmp_path: Path, postgres_url: str) -> Iterator[Compose]:
    import psycopg
    from sqlalchemy import make_url

    url = make_url(postgres_url)
    name = f"{url.database}_mlflow"
    server = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
        shutil.copytree(bench.home / "usecases", tmp_path / "usecases")
        target = Target(
            tmp_path / "srv" / "evergreen",
            str(tmp_path / "usecases"),
            records_url=postgres_url,
            mlflow_uri=url.set(database=name).render_as_string(hide_password=False),
            store_uri=str(tmp_path / "srv" / "store"),
            lake_uri=str(tmp_path / "srv" / "store" / "lake"),
            segments_uri=str(tmp_path / "srv" / "store" / "segments"),
        )
        try:
            yield Compose(target, tmp_path / "srv")
        finally:
            target.records.close()
            mlflow_client._client.cache_clear()
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def moved(bench: Bench, target: Target) -> restoring.Restored:
    made = move(
        bench.home,
        target.settings,
        target.records,
        at=utc_now(),
        actor="test",
        say=target.said.append,
    )
    after.examine_champions(target.settings, target.records, made)
    return made


@pytest.mark.parametrize("at", KILLED_AT)
def test_a_move_killed_half_way_is_run_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    target = Target(tmp_path / "target", bench.settings.usecases)
    with monkeypatch.context() as patched:
        kill(patched, InPlace, at)
        with pytest.raises(KeyboardInterrupt):
            moved(bench, target)
    assert target.records.routes.names() == []
    made = moved(bench, target)
    assert (made.epoch, made.champions) == (2, {NAME: 2})
    assert made.copied < made.files or at == "files"
    assert target.records.audit.verify() is None
    counted = mlflow_registry.count_entries(target.settings, NAME)
    assert counted == {"model versions": 2, "runs": 2}


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(("records.db", "mlflow.db", "lock", "."))
    }


def test_a_home_moves_with_its_champion_scores_and_history_and_stays_as_it_was(
    bench: Bench, compose: Compose
) -> None:
    before, home = score(bench.records, bench.settings), digests(bench.home)
    made = moved(bench, compose.target)
    assert (made.epoch, made.champions, made.notes) == (2, {NAME: 2}, [])
    # But for a segment that nobody writes any more: it is closed.
    home = {name.replace("two.open", "two.jsonl"): digest for name, digest in home.items()}
    assert digests(bench.home) == home
    away = bench.home.with_name("away")
    bench.records.close()
    bench.home.rename(away)
    try:
        assert compose.target.score() == before
        for stage in ("train_model", "evaluate_model"):
            again = runner.run(stage, NAME, LATE, settings=compose.target.settings)
            assert again.reused, stage
        assert compose.target.records.audit.verify() is None
        newest = compose.target.records.audit.entries(action="installation.restored")[-1]
        assert newest.details["from"] == str(bench.home)
        assert (compose.folder / "store" / "lake" / NAME).is_dir()
        segments = (compose.folder / "store" / "segments" / NAME).iterdir()
        assert sorted(path.name for path in segments) == ["one.jsonl", "two.jsonl"]
        assert str(bench.home) not in _all_texts(compose.target.records)
    finally:
        away.rename(bench.home)


def _all_texts(records: Records) -> str:
    """Return what the records say of models and results, but for the audit log."""
    from include.records.columns import Base

    with records.transaction() as session:
        found = [
            str(session.execute(Base.metadata.tables[name].select()).all())
            for name in ("models", "results", "routes")
        ]
    return "".join(found)


def test_what_is_no_home_or_is_in_use_or_served_is_refused(bench: Bench, tmp_path: Path) -> None:
    target = Target(tmp_path / "target", bench.settings.usecases)
    with pytest.raises(ConfigError, match="is no home of Evergreen"):
        move(
            tmp_path / "nothing",
            target.settings,
            target.records,
            at=utc_now(),
            actor="test",
            say=print,
        )
    itself = Target(bench.home, bench.settings.usecases)
    with pytest.raises(ConfigError, match="cannot be moved into itself"):
        moved(bench, itself)
    with InstallationLock(source_settings(bench.home)), pytest.raises(Busy, match="is in use"):
        moved(bench, target)
    report = RoleReport("champion", 2, "sha256:1", "serving")
    bench.records.nodes.report(NAME, "laptop", "boot", generation=1, roles=[report])
    try:
        with pytest.raises(Busy, match=r"served by laptop.*make stop"):
            moved(bench, target)
    finally:
        bench.records.nodes.stopped("laptop", "boot")
    assert target.records.routes.names() == []


@pytest.fixture
def killed(tmp_path: Path) -> Bench:
    """A home whose node was killed: a model that it took back by itself is champion on record."""
    bench = new_bench(tmp_path / "home")
    for version in (1, 2):
        add_model(bench.records, version, f"2026-02-0{version}", NAME)
    entry = AuditEntry("test", NAME, "2", "test", {}, utc_now())
    bench.records.routes.change(NAME, set={"champion": 2, "previous": 1}, entry=entry)
    late = Late(NAME, "sha256:2", 2, "kim", "", "it is wrong", "r1", utc_now().isoformat(), "n1")
    Journal(bench.home / "serving" / "rollbacks-8600.json").add(late)
    return bench


def test_what_a_killed_node_has_answered_and_taken_back_comes_along(
    killed: Bench, tmp_path: Path
) -> None:
    folder = killed.home / "predictions" / NAME
    folder.mkdir(parents=True)
    (folder / "last.open").write_bytes(b'{"answer": 1}\n{"answ')
    target = Target(tmp_path / "target", killed.settings.usecases)
    moved(killed, target)
    arrived = tmp_path / "target" / "predictions" / NAME / "last.jsonl"
    assert arrived.read_bytes() == b'{"answer": 1}\n', "half a line was never answered"
    route = target.records.routes.get(NAME)
    assert (route.champion, route.held) == (1, ["sha256:2"])
    (entry,) = target.records.audit.entries(NAME, action="release.rolled_back")
    assert (entry.actor, entry.details["reason"]) == ("kim", "it is wrong")
    assert Journal(killed.home / "serving" / "rollbacks-8600.json").entries == ()
    # Killed before the end, it is run again: the rollback is on record once.
    again = Target(tmp_path / "again", killed.settings.usecases)
    moved(killed, again)
    assert again.records.routes.get(NAME).champion == 1


def test_what_is_still_written_or_cannot_be_read_of_a_node_is_not_moved(
    killed: Bench, tmp_path: Path
) -> None:
    target = Target(tmp_path / "target", killed.settings.usecases)
    log = PredictionLog(killed.home, NAME)
    log.append(b'{"answer": 1}\n')
    with pytest.raises(Busy, match=r"\.open is being written"):
        moved(killed, target)
    log.close()
    (killed.home / "serving" / "rollbacks-8601.json").write_text("{")
    with pytest.raises(SourceError, match=r"8601\.json cannot be read .*roll back again"):
        moved(killed, target)
    assert target.records.routes.names() == []
    moved(killed, target)
    assert target.records.routes.get(NAME).champion == 1


def test_a_home_that_is_mounted_to_be_read_alone_is_refused_with_the_remedy(
    bench: Bench, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(bench.home, home)
    place = shlex.quote(str(home))
    mounted = f"mount --bind {place} {place} && mount -o remount,ro,bind {place}"
    alone = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*alone, mounted], capture_output=True, check=False).returncode:
        pytest.skip("this user may mount nothing, not even in a namespace of its own")
    command = f"{shlex.quote(sys.executable)} -m include move --from {place} --yes"
    done = subprocess.run(
        [*alone, f"{mounted} && exec {command}"],
        env={**os.environ, "EVERGREEN_HOME": str(tmp_path / "other")},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert f"{home} cannot be written to here" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_settings_of_a_home_are_its_own_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RECORDS_URL", "MLFLOW_URI", "LAKE_URI", "ONLINE_URL", "SEGMENTS_URI"):
        monkeypatch.setenv(f"EVERGREEN_{name}", "postgresql://elsewhere/x")
    settings = source_settings(tmp_path)
    assert settings.records_address == f"sqlite:///{tmp_path}/records.db"
    assert settings.mlflow_address == f"sqlite:///{tmp_path}/mlflow.db"
    assert settings.lake_root == str(tmp_path / "lake")
    assert settings.online_url.get_secret_value() == settings.segments_uri == ""


@pytest.mark.slow
def test_online_features_are_written_anew_to_redis_from_the_lake(tmp_path: Path) -> None:
    home = tmp_path / "home"
    small_repayment(home / "usecases")
    made = Installation(home)
    keys = made.keys("2026-01-01", "2026-01-03")
    for key in keys:
        made.day(key, DATA_STAGES, mode="live", target="data")
    entry = AuditEntry("test", made.name, "route", "test", {}, utc_now())
    made.records.routes.change(made.name, set={"step": 0}, entry=entry)
    version = made.records.feature_sets.of(made.name)[-1].version
    before = list(open_store(made.settings, made.name).rows(version))
    assert before
    with redis_server.prefix() as prefix:
        target = Target(
            tmp_path / "target",
            made.settings.usecases,
            online_url=redis_server.URL,
            online_prefix=prefix,
        )
        done = move(home, target.settings, target.records, at=utc_now(), actor="test", say=print)
        after.bring_online(target.settings, target.records, done, actor="test", say=print)
        assert done.notes == []
        store = open_store(target.settings, made.name)
        assert list(store.rows(version)) == before
        described = store.describe(version)
        assert described is not None
        assert described.partition == keys[-1]
