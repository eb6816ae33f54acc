"""A backup of a place that is not mounted is refused, and one that lacks a thing replaces none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from include.artefacts.store import ArtefactStore
from include.backups.move import move
from include.backups.repository import Repository
from include.clock import utc_now
from include.errors import SourceError
from include.records.records import AuditEntry, Records
from tests.backups.place import Target, back_up, take
from tests.builders.judging import NAME, Bench, new_bench
from tests.builders.releases import add_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """An installation with features in its lake, and two models with their files in the store."""
    bench = new_bench(tmp_path_factory.mktemp("named") / "home")
    bench.write(recorded=2)
    store = ArtefactStore.of(bench.settings)
    for version in (1, 2):
        add_model(bench.records, version, f"2026-02-0{version}", NAME)
        uris = {
            f"{kind}_uri": store.put(f"{kind}s", NAME, {"file": f"{kind} {version}".encode()})
            for kind in ("bundle", "reference")
        }
        bench.records.models.update(NAME, version, **uris)
    entry = AuditEntry("test", NAME, "2", "test", {}, utc_now())
    bench.records.routes.change(NAME, set={"champion": 2}, entry=entry)
    bench.records.close()
    return bench


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("lake",), "lake has none of the 1 tables .*set EVERGREEN_LAKE_URI"),
        (("bundles", "references"), "home has none of the 4 artefacts .*set EVERGREEN_STORE_URI"),
    ],
)
def test_a_place_that_is_away_is_refused_and_older_backups_stay(
    bench: Bench, tmp_path: Path, folders: tuple[str, ...], said: str
) -> None:
    assert back_up(tmp_path / "kept", keep=1) == 0
    kept = Repository(str(tmp_path / "kept"))
    before = kept.names()
    for folder in folders:
        (bench.home / folder).rename(tmp_path / folder)
    with pytest.raises(SourceError, match=said):
        back_up(tmp_path / "kept", keep=1)
    assert kept.names() == before
    assert len(bench.records.audit.entries(action="backup.taken")) == 1
    for folder in folders:
        (tmp_path / folder).rename(bench.home / folder)
    assert back_up(tmp_path / "kept", keep=1) == 0
    assert len(kept.names()) == 1
    assert kept.names() != before


def test_without_one_thing_a_backup_is_taken_and_says_so_and_replaces_none(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert back_up(tmp_path / "kept", keep=1) == 0
    kept = Repository(str(tmp_path / "kept"))
    model = bench.records.models.get(NAME, 1)
    assert model is not None
    assert model.bundle_uri is not None
    shutil.rmtree(bench.home / model.bundle_uri.removeprefix("store:"))
    capsys.readouterr()
    assert back_up(tmp_path / "kept", keep=1) == 1
    assert len(kept.names()) == 2
    assert kept.manifest().missing == (model.bundle_uri,)
    assert f"name what is not there, {model.bundle_uri}: put it back" in capsys.readouterr().out
    assert bench.records.audit.entries()[-1].details["missing"] == [model.bundle_uri]
    target = Target(tmp_path / "other", bench.settings.usecases)
    assert f"lacks what its records name: {model.bundle_uri}" in target.restore(kept).notes[0]
    # A model that was given up needs no files.
    bench.records.models.update(NAME, 1, collected_at=utc_now())
    assert back_up(tmp_path / "kept", keep=1) == 0
    assert len(kept.names()) == 1


def test_a_lake_that_was_begun_anew_where_it_was_not_mounted_replaces_no_backup(
    bench: Bench, tmp_path: Path
) -> None:
    table = f"{NAME}/labels"
    for key in ("2026-03-01", "2026-03-02"):
        bench.lake.replace(table, key, bench.lake.read(table, keys=["2026-01-05"]))
    newest = bench.lake.version(table)
    model = bench.records.models.get(NAME, 1)
    assert model is not None
    manifest = {**model.manifest, "tables": {table: newest}}
    bench.records.models.update(NAME, 1, manifest=manifest)
    assert back_up(tmp_path / "kept", keep=1) == 0
    for log in (bench.home / "lake" / table / "_delta_log").iterdir():
        if int(log.name.partition(".")[0]):
            log.unlink()
    assert back_up(tmp_path / "kept", keep=1) == 1
    kept = Repository(str(tmp_path / "kept"))
    assert kept.manifest().missing == (f"table {table} in version {newest} (its newest is 0)",)
    assert len(kept.names()) == 2


def test_a_home_whose_lake_lies_elsewhere_is_not_moved_without_it(
    bench: Bench, tmp_path: Path
) -> None:
    (bench.home / "lake").rename(tmp_path / "lake")
    target = Target(tmp_path / "other", bench.settings.usecases)
    with pytest.raises(SourceError, match=r"EVERGREEN_LAKE_URI set, `evergreen backup` with all"):
        move(bench.home, target.settings, target.records, at=utc_now(), actor="test", say=print)
    assert target.records.routes.names() == []


def test_what_has_no_data_yet_is_backed_up(tmp_path: Path) -> None:
    bench = new_bench(tmp_path / "home")
    assert Records.open(bench.settings.records_address).routes.names() == []
    assert take(bench, Repository(str(tmp_path / "kept"))).file_count == 0
