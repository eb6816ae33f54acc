"""Migrations: by several processes at once, from any place, and from older versions."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from include.config.settings import ROOT
from include.errors import ConfigError
from include.records import migrate
from include.records.columns import Base
from include.records.records import Model, Records
from include.records.schema import HEAD, VERSION_TABLE, ResultRow
from tests.builders.older_records import bring_back
from tests.records.builders import AT, nightly
from tests.records.released import in_step, serve

pytestmark = pytest.mark.usefixtures("alembics_migrations")
MIGRATE = """
import sys
from include.records.records import Records
records = Records.open(sys.argv[1])
sys.stdin.readline()
records.migrate()
print(records.audit.verify(), records.audit.head()[0])
"""


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


@pytest.mark.slow
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


def test_what_an_older_version_recorded_is_moved_and_read_alike(records: Records) -> None:
    night = nightly(70)[-1]
    with records.transaction() as session:  # as revision 0002 kept it
        session.add(ResultRow(**vars(night)))
        bring_back(session, "0002")
    records.migrate()
    with records.database.engine.connect() as connection:
        kept = connection.execute(text("SELECT reads FROM results")).scalar_one()
    assert len(kept) < 1000, "the list itself stands in blocks"
    (found,) = records.results.of("loans")
    assert sorted(found.reads) == sorted(night.reads)
    assert dataclasses.replace(found, reads=[]) == dataclasses.replace(night, reads=[])


def copies_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "before" in path.name)


def revision_of(path: Path) -> tuple[str, int]:
    with closing(sqlite3.connect(path)) as con:
        (found,) = con.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()
        (rows,) = con.execute("SELECT count(*) FROM audit").fetchone()
    return found, rows


def test_a_file_of_before_is_copied_as_it_was_before_it_is_migrated(tmp_path: Path) -> None:
    records = Records.open(f"sqlite:///{tmp_path}/records.db")
    records.migrate()
    records.migrate()
    assert copies_of(tmp_path) == [], "there was nothing, then nothing was to be done"
    serve(records)
    entries = records.audit.head()[0]
    (tmp_path / "records.db.before-0001").write_bytes(b"of the upgrade before")
    with records.transaction() as session:
        bring_back(session, "0011")
    records.migrate()
    assert copies_of(tmp_path) == ["records.db.before-0011"]
    kept = tmp_path / "records.db.before-0011"
    assert revision_of(kept) == ("0011", entries)
    assert kept.stat().st_mode & 0o777 == 0o600
    assert revision_of(tmp_path / "records.db") == (HEAD, entries)
    records.close()


def test_a_migration_that_fails_or_whose_copy_cannot_be_written_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records.open(f"sqlite:///{tmp_path}/records.db")
    records.migrate()
    with records.transaction() as session:
        bring_back(session, "0011")
    (tmp_path / "records.db.before-0011").mkdir()
    with pytest.raises(ConfigError, match=r"before-0011, cannot be written"):
        records.migrate()
    (tmp_path / "records.db.before-0011").rmdir()
    assert revision_of(tmp_path / "records.db")[0] == "0011"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(migrate, "_run_migrations", killed)
        with pytest.raises(KeyboardInterrupt):
            records.migrate()
    assert revision_of(tmp_path / "records.db")[0] == "0011"
    records.migrate()
    assert revision_of(tmp_path / "records.db")[0] == HEAD
    assert revision_of(tmp_path / "records.db.before-0011")[0] == "0011"
    records.close()


def test_a_routing_row_of_before_has_no_release_and_one_starts(records: Records) -> None:
    serve(records)
    before = records.routes.get("loans")
    with records.transaction() as session:
        bring_back(session, "0011")
    records.migrate()
    assert records.routes.get("loans") == before
    assert (before.release_id, before.mode, before.share) == (None, None, 0)
    release = in_step(records, 1)
    assert records.routes.get("loans").share == 500
    assert records.releases.of("loans") == [release]


@pytest.mark.parametrize(
    ("bundle", "address"),
    [
        ("/srv/a/var/models/loans/2026-03-01/0123456789abcdef/bundle", True),
        ("/srv/models/b/models/loans/2026-03-01/0123456789abcdef/bundle", True),
        ("models/loans/2026-03-01/0123456789abcdef/bundle", True),
        ("/srv/a/var/models/other/2026-03-01/0123456789abcdef/bundle", False),
        ("/srv/given/bundle", False),
        ("/srv/a/var/models/loans/../0123456789abcdef/bundle", False),
    ],
)
def test_recorded_paths_of_a_home_become_addresses_and_others_stay_paths(
    records: Records, bundle: str, address: bool
) -> None:
    folder = "store:models/loans/2026-03-01/0123456789abcdef"
    told = {"reference": {"path": bundle.replace("bundle", "reference.parquet"), "rows": 1}}
    model = Model("loans", 1, "sha256:x", "2026-03-01", AT, "live", "f", bundle, manifest=told)
    records.models.add(model)
    with records.transaction() as session:  # as revision 0009 kept it
        bring_back(session, "0009")
    records.migrate()
    (found,) = records.models.of("loans")
    assert found.bundle == bundle, "which nodes of the version before read"
    assert (found.bundle_uri, found.reference_uri, found.bento_uri) == (
        (f"{folder}/bundle", f"{folder}/reference.parquet", None) if address else (None,) * 3
    )
