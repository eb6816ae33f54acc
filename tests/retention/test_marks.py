"""What keeps a version's files: each kind of name, from the records alone."""

from __future__ import annotations

from include.records.records import RoleReport
from include.records.schema import OpponentRow
from include.retention.marks import mark, pinned_versions
from tests.builders.serving import NAME
from tests.retention.place import NOW, Home, digest


def kept(home: Home, newest: int = 1) -> dict[int, str]:
    return home.records.database.read(lambda session: mark(session, NAME, newest=newest))


def test_the_newest_few_are_kept_by_their_number(home: Home) -> None:
    home.train(*range(1, 6))
    assert kept(home, 2) == {4: "one of the newest 2", 5: "one of the newest 2"}
    assert set(kept(home, 30)) == {1, 2, 3, 4, 5}


def test_what_serves_and_where_two_rollbacks_would_go_is_kept(home: Home) -> None:
    home.train(*range(1, 8))
    for version in (1, 2, 3, 4):
        home.release(version)
    assert kept(home) == {
        4: "champion",
        3: "previous",
        2: "where a second rollback would go",
        7: "one of the newest 1",
    }
    home.roll_back()
    found = kept(home)
    assert (found[3], found[2]) == ("champion", "previous")
    assert found[4] == "on hold: a person may lift it"
    home.roll_back()
    found = kept(home)
    assert (found[2], found[1]) == ("champion", "previous")
    assert {3, 4} <= set(found), "held by two rollbacks"


def test_a_challenger_on_its_way_and_one_that_waits_are_kept(home: Home) -> None:
    home.train(*range(1, 8))
    home.release(3)
    home.records.routes.change(NAME, set={"challenger": 4}, entry=home.entry("release.requested"))
    home.records.models.update(NAME, 2, state="challenger")
    home.records.models.update(NAME, 5, state="challenger")
    found = kept(home)
    assert found[4] == "challenger"
    assert found[5] == "waits for its release"
    assert 2 not in found, "superseded"
    home.records.routes.change(
        NAME,
        set={"champion": 6, "challenger": None},
        entry=home.entry("release.promoted"),
        partition=home.key(6),
    )
    assert 5 not in kept(home), "an older partition never replaces a newer one"


def test_both_models_of_a_release_are_kept_until_it_has_ended(home: Home) -> None:
    home.train(*range(1, 10))
    home.release(3)
    release = home.request(4)
    waiting = home.request(5, wait=True)
    home.records.models.update(NAME, 5, state="candidate")
    found = kept(home)
    assert (found[3], found[4]) == ("champion", "challenger")
    assert found[5] == "its release is waiting"
    release = home.records.releases.promote(release, home.entry("release.promoted"), None)
    home.release(6)
    home.release(7)
    home.release(8)
    found = kept(home)
    assert found[4] == "its release is watched", "as another hand has moved the row"
    assert found[3] == f"release {release.id} began with it"
    home.records.releases.settle(release, home.entry("release.settled"))
    home.records.releases.abort(waiting, "x", home.entry("release.aborted"))
    assert set(kept(home)) == {6, 7, 8, 9}


def test_what_a_node_reports_is_kept(home: Home) -> None:
    home.train(1, 2, 3)
    home.records.nodes.report(
        NAME,
        "node",
        "boot",
        generation=1,
        roles=[RoleReport("champion", 1, digest(1), "serving")],
    )
    assert kept(home)[1] == "a node reports it"


def test_whom_a_kept_version_was_judged_against_is_kept_and_no_further_one(home: Home) -> None:
    home.train(*range(1, 7))
    with home.records.transaction() as session:
        for candidate, opponent in ((6, 3), (3, 1)):
            session.add(
                OpponentRow(
                    use_case=NAME,
                    model_digest=digest(candidate),
                    mode="live",
                    version=opponent,
                    generation=1,
                    partition=home.key(candidate),
                    at=NOW,
                )
            )
    home.record("evaluate_model", 6, opponent=2)
    home.record("evaluate_model", 5, opponent=4)
    assert kept(home) == {
        6: "one of the newest 1",
        3: "version 6 was judged against it",
        2: "version 6 was judged against it",
    }


def test_versions_of_tables_that_a_manifest_or_a_training_names_are_pinned(home: Home) -> None:
    told = {"table": "shop/training_set", "table_version": 7, "digest": "d", "rows": 1}
    home.train(1, manifest={"tables": {"shop/labels": 3, "shop/none": None}, "training_set": told})
    home.record("train_model", 2, training_set={**told, "table_version": 9})
    home.record("train_model", 3, reason="too few rows")
    pinned = home.records.database.read(lambda session: pinned_versions(session, NAME))
    assert pinned == {"shop/labels": {3}, "shop/training_set": {7, 9}}
