"""Migrations: by several processes at once, from any place, and from older versions."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from include.config.settings import ROOT
from include.errors import ConfigError
from include.records import migrate
from include.records.records import Records
from include.records.schema import HEAD, VERSION_TABLE, Base, ResultRow
from tests.records.builders import (
    nightly,
)

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
        session.execute(text("DROP TABLE reads"))
        session.execute(text("DROP TABLE observations"))
        session.execute(text("ALTER TABLE routes DROP COLUMN description"))
        session.execute(text("ALTER TABLE models DROP COLUMN bento_digest"))
        session.execute(text("ALTER TABLE models DROP COLUMN artefact_digest"))
        session.execute(text("ALTER TABLE models DROP COLUMN collected_at"))
        session.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0002'"))
    records.migrate()
    with records.database.engine.connect() as connection:
        kept = connection.execute(text("SELECT reads FROM results")).scalar_one()
    assert len(kept) < 1000, "the list itself stands in blocks"
    (found,) = records.results.of("loans")
    assert sorted(found.reads) == sorted(night.reads)
    assert dataclasses.replace(found, reads=[]) == dataclasses.replace(night, reads=[])
