"""The commands that change which model serves: which model they mean, and what they ask first."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from include.clock import utc_now
from include.config.settings import settings
from include.records.evidence_schema import ProbationRow
from include.records.records import AuditEntry, Records
from include.records.schema import ModelRow, ReleaseRow
from tests.builders.command_line import AT, YAML, Run, add_model, open_records
from tests.builders.ports import free_port
from tests.builders.releases import sign_model, under_way


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
    done = run("release", "lift", "visits", model, "--reason", "it was the data", "--yes")
    assert (done.code, done.out) == (0, "visits: version 2 is no longer on hold\n"), done
    records = open_records()
    (entry,) = records.audit.entries("visits", action="release.hold_lifted", limit=5)
    assert entry.details["reason"] == "it was the data"
    assert not records.routes.get("visits").held


@pytest.mark.usefixtures("held")
def test_a_model_that_is_not_on_hold_is_refused_with_those_that_are(run: Run) -> None:
    done = run("release", "lift", "visits", "3", "--reason", "checked", "--yes")
    assert done.code == 2
    assert "'3' names no single model on hold of visits; on hold is version 2 (sha256:0" in done.err


@pytest.mark.parametrize("model", ["0", "000", "", "sha256:", "s", "sha256"])
def test_no_hold_is_lifted_by_next_to_nothing(run: Run, held: Records, model: str) -> None:
    # A version that is not there, or not on hold, must not be another model by its digest.
    done = run("release", "lift", "visits", model, "--reason", "checked", "--yes")
    assert (done.code, "names no single model on hold" in done.err) == (2, True), done
    assert held.routes.get("visits").held


@pytest.mark.parametrize("reason", [(), ("--reason", "  ")])
def test_a_hold_is_lifted_for_a_reason_alone(
    run: Run, held: Records, reason: tuple[str, ...]
) -> None:
    done = run("release", "lift", "visits", "2", *reason, "--yes")
    assert (done.code, "needs its reason" in done.err) == (2, True), done
    assert held.routes.get("visits").held


def test_a_rollback_shows_what_serves_before_it_asks(run: Run, held: Records) -> None:
    asked = run("rollback", "visits", "--reason", "bad")
    assert (asked.code, "Roll visits back?" in asked.err) == (2, True)
    assert asked.out.split()[:4] == ["champion", "previous", "challenger", "generation"]
    assert held.routes.get("visits").champion == 1


@pytest.mark.usefixtures("held")
def test_release_is_an_option_of_rollback_too(run: Run) -> None:
    assert run("rollback", "visits", "--release", "2", "--reason", "ok", "--yes").code == 0


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
    assert (named.code, "does not answer" in named.err) == (9, True), named
    assert "asked to go back by themselves" in named.out


def test_status_asks_the_nodes_that_are_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, held: Records
) -> None:
    monkeypatch.setenv("EVERGREEN_NODE_URLS", f"http://127.0.0.1:{free_port()}")
    settings.cache_clear()
    done = run("status", "visits")
    assert (done.code, "the node at http://127.0.0.1" in done.out) == (0, True), done


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
    lifted = run("release", "lift", "visits", "3", "--reason", "it was the file", "--yes")
    assert lifted.code == 0, lifted


@pytest.fixture
def releasing(run: Run, tmp_path: Path) -> Records:
    """Return records in which model 2 is in the first step of its release."""
    (tmp_path / "visits.yaml").write_text(YAML)
    assert run("status", "visits").code == 0
    records = open_records()
    under_way(records, "2025-03-02", "visits")
    return records


def test_a_release_is_shown_and_steered_from_the_shell(run: Run, releasing: Records) -> None:
    shown = run("release", "status", "visits")
    assert (shown.code, "is in step 1 of 2 (shadow)" in shown.out) == (0, True), shown
    assert "visits: model 1 is champion" in shown.out
    [found] = json.loads(run("release", "status", "visits", "--json").out)
    assert (found["under_way"]["model"], found["under_way"]["steps"]) == (2, 2)
    assert "release: release" in run("status", "visits").out
    paused = run("release", "pause", "visits", "--reason", "month end")
    assert (paused.code, "(shadow, paused)" in paused.out) == (0, True), paused
    assert run("release", "unpause", "visits", "--reason", "over").code == 0
    asked = run("release", "advance", "visits", "--reason", "fine")
    assert (asked.code, "go on to its next step?" in asked.err) == (2, True)
    advanced = run("release", "advance", "visits", "--reason", "fine", "--yes")
    assert (advanced.code, "step 2 of 2 (5 %)" in advanced.out) == (0, True), advanced
    other = run("release", "abort", "visits", "--reason", "enough", "--version", "7", "--yes")
    assert (other.code, "no release of model 7 to abort; model 2 is in" in other.err) == (7, True)
    asked = run("release", "abort", "visits", "--reason", "enough")
    assert (asked.code, "End the release of visits (model 2)?" in asked.err) == (2, True), asked
    ended = run("release", "abort", "visits", "--reason", "enough", "--yes")
    assert (ended.code, "is aborted: enough" in ended.out) == (0, True), ended
    last = run("release", "status", "visits", "--watch")
    assert (last.code, "before: release" in last.out) == (0, True), last
    nothing = run("release", "promote", "visits", "--reason", "x", "--yes")
    assert (nothing.code, "no release is under way to promote" in nothing.err) == (7, True)


def test_a_probation_is_shown_and_judged_from_the_shell(run: Run, releasing: Records) -> None:
    sign_model(settings(), releasing, 2, "visits")
    release = releasing.releases.of("visits")[0]
    with releasing.transaction() as session:
        row = session.get_one(ReleaseRow, ("visits", release.id))
        row.plan = {**row.plan, "probation": 3600.0}
    assert run("release", "promote", "visits", "--reason", "fine", "--yes").code == 0
    says = "model 2 is on probation until the outcomes of its release are mature, on "
    assert says in run("release", "status", "visits").out
    assert f"release: {says}" in run("status", "visits").out
    words = ("release", "probation", "visits", "2")
    early = run(*words, "--bad", "--reason", "auc")
    assert (early.code, "judge it then" in early.err) == (7, True), early
    with releasing.transaction() as session:
        row = session.get_one(ProbationRow, ("visits", release.id))
        row.matures_at = row.began_at - timedelta(hours=1)
    without = run(*words, "--bad")
    assert (without.code, "needs a reason" in without.err) == (2, True), without
    judged = run(*words, "--bad", "--reason", "auc .1 lost")
    assert judged.code == 0, judged
    assert "model 2 has regressed on probation (auc .1 lost) and still serves" in judged.out
    [found] = json.loads(run("release", "status", "visits", "--json").out)
    assert [one["state"] for one in found["probations"]] == ["regressed"]
    other = run("release", "probation", "visits", "1", "--good", "--reason", "x")
    assert (other.code, "on probation: 2" in other.err) == (7, True), other


@pytest.mark.usefixtures("releasing")
def test_a_freeze_needs_its_end_and_its_reason(run: Run) -> None:
    frozen = run("release", "freeze", "visits", "--until", "2126-01-01", "--reason", "fair")
    assert (frozen.code, "a year from now" in frozen.err) == (2, True), frozen
    until = (utc_now() + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M")
    assert run("release", "freeze", "visits", "--until", until).code == 2
    frozen = run("release", "freeze", "visits", "--until", until, "--reason", "fair")
    assert (frozen.code, "no release starts until" in frozen.out) == (0, True), frozen
    assert "frozen until" in run("release", "status", "visits").out
    wrong = run("release", "freeze", "visits", "--until", "tomorrow", "--reason", "fair")
    assert (wrong.code, "write it as 2026-12-27" in wrong.err) == (2, True), wrong
    thawed = run("release", "thaw", "visits", "--reason", "over")
    assert (thawed.code, "releases start again" in thawed.out) == (0, True), thawed
