"""What the role of a node may do to a release, tried as that role on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from include.clock import utc_now
from include.deployment.rollback import Late, Order, take_back, take_back_late
from include.errors import Unavailable
from include.records.records import Records, Roles, Window
from tests.builders.postgres_roles import Place, empty, prepared_place
from tests.records.builders import model
from tests.records.released import asked, entry, in_step, serve, watched

NAME = "loans"
# What a rollback writes beside what is tried, in one transaction with it.
TELL = (
    "INSERT INTO audit SELECT sequence + 1, '', 'release.rolled_back', 'loans', '', 'x', "
    "'{\"generation\":' || (SELECT generation FROM routes) || '}', NULL, hash, repeat('f', 64) "
    "FROM audit_head",
    "UPDATE audit_head SET sequence = sequence + 1, hash = repeat('f', 64)",
)
ROUTE = "UPDATE routes SET generation = generation + 1, "
BACK = (
    f"{ROUTE}rollback_generation = generation + 1, challenger = NULL, step = 0, weight = 0, "
    "share = 0, mode = NULL, release_id = NULL, release_key = NULL, held = '[\"sha256:3\"]'"
)
END = (
    "UPDATE releases SET state = 'rolled_back', reason = 'bad', ended_at = now(), "
    "revision = revision + 1"
)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with prepared_place() as made:
        yield made


@pytest.fixture
def worker(place: Place) -> Records:
    """The records as a worker; what the test before left is gone."""
    empty(place)
    worker = place.open("worker")
    serve(worker)
    return worker


@pytest.fixture
def node(place: Place, worker: Records) -> Records:
    """The records as a node, in which the release of model 3 is at 5 percent."""
    in_step(worker, 1)
    return place.open("node")


def refused(records: Records, *statements: str, match: str = "") -> None:
    """Expect a transaction to be refused for what this role is."""

    def run() -> None:
        with records.transaction() as session:
            for statement in statements:
                session.execute(text(statement))

    with pytest.raises(Unavailable, match=f"does not let this role do that.*{match}"):
        run()


def test_a_node_reads_the_release_and_reports_of_it(node: Records, worker: Records) -> None:
    worker.releases.beat(NAME, "before", 180.0)
    release = worker.releases.running(NAME)
    assert release is not None
    assert worker.releases.beat(NAME, release.id, 180.0) > 1
    worker.releases.freeze(NAME, datetime(2100, 1, 1, tzinfo=UTC), entry("frozen"))
    (row,) = node.serving_rows().rows
    assert row.release is not None
    assert (row.release.id, row.route.share, row.route.mode) == (release.id, 500, "canary")
    assert row.route.release_key is not None
    assert row.beat == node.releases.last_beat(NAME)
    assert node.releases.frozen(NAME) is not None
    window = Window(NAME, release.id, 1, "challenger", "champion", "n1", "b1", 7, {"n": 1})
    node.releases.put_windows([window])
    node.releases.put_windows([window])
    assert worker.releases.windows(NAME, release.id) == [window]
    node.releases.latch(NAME, release.id, "n1", "b1", "errors")
    assert [one.reason for one in worker.releases.guards(NAME, release.id)] == ["errors"]


@pytest.mark.parametrize("state", ["trying", "running"])
def test_a_node_takes_the_challenger_back_with_its_release(
    worker: Records, place: Place, state: str
) -> None:
    release = in_step(worker, -1 if state == "trying" else 2)
    worker.models.add(model(5, generation=3))
    waiting = worker.releases.wait(NAME, **asked(worker, 5), entry=entry("queued"))
    node = place.open("node")
    order = Order("me", "bad", version=3, of="challenger", request_id="r1")
    for changed in (True, False):
        taken = take_back(node, NAME, order)
        assert taken.changed is changed
        route = taken.route
        assert (route.champion, route.challenger, route.share, route.mode) == (2, None, 0, None)
        assert (route.release_id, route.release_key) == (None, None)
    ended = {one.id: (one.state, one.reason) for one in node.releases.of(NAME)}
    assert ended == {
        release.id: ("rolled_back", "bad"),
        waiting.id: ("aborted", "trained before a rollback"),
    }
    assert node.audit.verify() is None


def test_a_node_takes_a_watched_champion_back(worker: Records, place: Place) -> None:
    release, node = watched(worker), place.open("node")
    route = take_back(node, NAME, Order("me", "bad", version=3)).route
    assert (route.champion, route.previous, route.release_id) == (2, 1, None)
    assert [one.state for one in node.releases.of(NAME)] == ["rolled_back"]
    assert node.releases.get(NAME, release.id) is not None


def test_a_node_takes_a_champion_back_beside_a_release(node: Records, worker: Records) -> None:
    late = Late(NAME, "sha256:2", 2, "me", "", "bad", "r9", utc_now().isoformat(), "n1")
    for _ in range(2):
        route = take_back_late(node, late)
    assert (route.champion, route.challenger, route.share) == (1, None, 0)
    (release,) = node.releases.of(NAME)
    assert (release.state, release.reason) == ("aborted", "rolled back meanwhile")
    assert node.audit.verify() is None


def test_a_node_leaves_a_watched_release_named_when_it_takes_the_next_one_back(
    worker: Records, place: Place
) -> None:
    before, node = watched(worker), place.open("node")
    in_step(worker, 1, 4)
    order = Order("me", "bad", version=4, of="challenger")
    assert take_back(node, NAME, order).route.release_id == before.id


def test_a_node_of_before_rolls_back_without_knowing_of_releases(node: Records) -> None:
    """It leaves the new columns as they are."""
    with node.transaction() as session:
        for statement in (
            f"{ROUTE}rollback_generation = generation + 1, challenger = NULL, step = 0, "
            "weight = 0, held = '[\"sha256:3\"]'",
            *TELL,
        ):
            session.execute(text(statement))
    assert node.routes.get(NAME).challenger is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("share = 501", "no more traffic"),
        ("share = -1", "no more traffic"),
        ("mode = 'shadow'", "no more traffic"),
        ("release_key = repeat('0', 32)", "no more traffic"),
        ("release_id = 'another'", "only a watched release"),
        ("release_id = NULL", "that the routing row leaves has ended"),
    ],
)
def test_a_node_gives_a_release_no_other_traffic(node: Records, change: str, reason: str) -> None:
    refused(node, f"{ROUTE}{change}", *TELL, match=reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (END.replace("rolled_back", "promoted"), "as rolled back or aborted"),
        (END.replace("rolled_back", "watched"), "as rolled back or aborted"),
        (END.replace("now()", "NULL"), "no more of a release"),
        (END.replace("revision + 1", "revision"), "no more of a release"),
        (END.replace("rolled_back", "aborted") + ", rolled_back_by_itself = true", "no more of a"),
        ("UPDATE releases SET reason = 'x', revision = revision + 1", "no more of a release"),
    ],
)
def test_a_node_does_no_more_to_a_release_than_end_it(
    node: Records, change: str, reason: str
) -> None:
    refused(node, BACK, change, *TELL, match=reason)


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        ((END,), "ends with a rollback"),
        ((BACK.replace("release_id = NULL, ", ""), END, *TELL), "ends with a rollback"),
        ((BACK.replace("challenger = NULL, ", ""), END, *TELL), "ends with a rollback"),
        ((BACK.replace("sha256:3", "sha256:0"), END, *TELL), "ends with a rollback"),
        ((BACK.replace("rollback_generation = generation + 1, ", ""), END, *TELL), "ends with a"),
        ((BACK, *TELL), "that the routing row leaves has ended"),
        ((BACK, END), "told in the audit log"),
    ],
    ids=["alone", "named", "tried", "not held", "no rollback", "not ended", "not told"],
)
def test_a_release_ends_by_a_node_with_the_whole_of_a_rollback(
    node: Records, statements: tuple[str, ...], reason: str
) -> None:
    refused(node, *statements, match=reason)


def test_the_whole_of_a_rollback_is_let_through(node: Records) -> None:
    with node.transaction() as session:
        for statement in (BACK, END, *TELL):
            session.execute(text(statement))
    assert [one.state for one in node.releases.of(NAME)] == ["rolled_back"]


def test_an_ended_release_stays_as_it_is(node: Records) -> None:
    take_back(node, NAME, Order("me", "bad", version=3, of="challenger"))
    refused(node, END.replace("rolled_back", "aborted"), match="no more of a release")


def test_a_candidate_that_waits_is_ended_by_nothing_but_a_rollback(
    node: Records, worker: Records
) -> None:
    worker.releases.wait(NAME, **asked(worker, 4), entry=entry("queued"))
    change = END.replace("rolled_back", "aborted") + " WHERE state = 'waiting'"
    refused(node, change, match="ends with a rollback")
    refused(node, change.replace("aborted", "rolled_back"), match="as rolled back or aborted")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE releases SET step = 2",
        "UPDATE releases SET plan = '{}'",
        "UPDATE releases SET suspended = false",
        "UPDATE releases SET entered_at = now()",
        "UPDATE releases SET verdicts = '[]'",
        "UPDATE releases SET challenger = 9",
        "INSERT INTO releases SELECT * FROM releases",
        "DELETE FROM releases",
        "DELETE FROM release_windows",
        "DELETE FROM release_guards",
        "INSERT INTO release_beats VALUES ('loans', 'x', 9, 1e9, now())",
        "UPDATE release_beats SET beat = beat + 1",
        "DELETE FROM release_beats",
        "INSERT INTO release_evidence VALUES ('loans', 'x', 0, 'auc', '', '{}', now())",
        "INSERT INTO freezes VALUES ('loans', now(), 'x', 'x', now())",
        "UPDATE freezes SET until = now()",
        "DELETE FROM freezes",
        "ALTER TABLE releases DISABLE TRIGGER USER",
        "DROP TRIGGER guard_release ON releases",
    ],
)
def test_a_node_does_nothing_else_to_releases(node: Records, statement: str) -> None:
    refused(node, statement)


def test_a_role_that_was_granted_too_much_meets_the_rules_of_the_nodes(
    node: Records, place: Place
) -> None:
    owner, role = place.open("owner"), f"{place.prefix}_node"
    with owner.transaction() as session:
        session.execute(text(f'GRANT UPDATE ON releases TO "{role}"'))
    try:
        refused(node, BACK, f"{END}, step = 2", *TELL, match="no more of a release")
    finally:
        owner.migrate(roles=Roles(f"{place.prefix}_worker", role))
