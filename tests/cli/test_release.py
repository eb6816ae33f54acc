"""The commands that change which model serves: which model they mean, and what they ask first."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.config.settings import settings
from include.records.records import AuditEntry, Records
from include.records.schema import ModelRow
from tests.builders.command_line import AT, YAML, Run, add_model, open_records
from tests.builders.ports import free_port


@pytest.fixture
def held(run: Run, tmp_path: Path) -> Records:
    """Return records in which model 2 was released, and rolled back to model 1."""
    (tmp_path / "visits.yaml").write_text(YAML)
    assert run("status", "visits").code == 0
    records = open_records()
    for version in (1, 2, 3):
        add_model(records, version, f"2025-03-0{version}")
    for changes in ({"champion": 1}, {"champion": 2, "previous": 1}):
        entry = AuditEntry("release.done", "visits", "1", "test", {}, AT)
        records.routes.change("visits", set=changes, entry=entry)
    entry = AuditEntry("route.rolled_back", "visits", "2", "test", {}, AT)
    records.routes.rollback("visits", entry=entry)
    return records


@pytest.mark.parametrize("model", ["2", "sha256:0", "0000"])
@pytest.mark.usefixtures("held")
def test_a_hold_is_lifted_by_version_or_digest(run: Run, model: str) -> None:
    done = run("release", "visits", model, "--reason", "it was the data", "--yes")
    assert (done.code, done.out) == (0, "visits: version 2 is no longer on hold\n"), done
    records = open_records()
    (entry,) = records.audit.entries("visits", action="release.hold_lifted", limit=5)
    assert entry.details["reason"] == "it was the data"
    assert not records.routes.get("visits").held


@pytest.mark.usefixtures("held")
def test_a_model_that_is_not_on_hold_is_refused_with_those_that_are(run: Run) -> None:
    done = run("release", "visits", "3", "--yes")
    assert done.code == 2
    assert "'3' names no single model on hold of visits; on hold is version 2 (sha256:0" in done.err


def test_a_rollback_shows_what_serves_before_it_asks(run: Run, held: Records) -> None:
    asked = run("rollback", "visits", "--reason", "bad")
    assert (asked.code, "Roll visits back?" in asked.err) == (2, True)
    assert asked.out.split()[:4] == ["champion", "previous", "challenger", "generation"]
    assert held.routes.get("visits").champion == 1


@pytest.mark.usefixtures("held")
def test_release_is_an_option_of_rollback_too(run: Run) -> None:
    assert run("rollback", "visits", "--release", "2", "--yes").code == 0


def test_a_rollback_that_is_run_again_takes_nothing_more_back(run: Run, held: Records) -> None:
    """As whoever got no answer does: it names what it takes back."""
    entry = AuditEntry("release.done", "visits", "3", "test", {}, AT)
    with held.transaction() as session:
        session.get_one(ModelRow, ("visits", 3)).generation = 9
    held.routes.change("visits", set={"champion": 3, "previous": 1}, entry=entry)
    words = ("rollback", "visits", "--reason", "bad", "--version", "3", "--yes")
    first, second = run(*words), run(*words)
    assert (first.code, second.code) == (0, 0)
    assert "model 3 is taken back; champion is version 1" in first.out
    assert "nothing was taken back; champion is version 1" in second.out


def test_without_records_the_node_of_this_machine_is_asked(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: Records
) -> None:
    """Only if the order names what is taken back: nobody can be shown what serves."""
    held.close()
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    monkeypatch.setenv("EVERGREEN_RECORDS_URL", f"sqlite:///{nowhere}")
    monkeypatch.setenv("EVERGREEN_NODE_PORT", str(free_port()))
    settings.cache_clear()
    words = ("rollback", "visits", "--reason", "bad")
    bare = run(*words)
    assert bare.code == 9
    assert "node" not in bare.out
    named = run(*words, "--version", "2", "--yes")
    assert (named.code, "does not answer either" in named.err) == (9, True), named
    assert "is asked to go back by itself" in named.out


@pytest.mark.parametrize("text", ["name: [", None])
def test_a_file_that_cannot_be_read_is_in_the_way_of_no_rollback(
    run: Run, tmp_path: Path, held: Records, text: str | None
) -> None:
    entry = AuditEntry("release.done", "visits", "3", "test", {}, AT)
    with held.transaction() as session:
        session.get_one(ModelRow, ("visits", 3)).generation = 9
    held.routes.change("visits", set={"champion": 3, "previous": 1}, entry=entry)
    path = tmp_path / "visits.yaml"
    path.unlink()
    if text is not None:
        path.write_text(text)
    words = ("--reason", "bad", "--version", "3", "--yes")
    wrong = run("rollback", "visit", *words)
    assert (wrong.code, "Did you mean `evergreen rollback visits" in wrong.err) == (2, True), wrong
    done = run("rollback", "visits", *words)
    assert (done.code, "champion is version 1" in done.out) == (0, True), done
    lifted = run("release", "visits", "3", "--reason", "it was the file", "--yes")
    assert lifted.code == 0, lifted
