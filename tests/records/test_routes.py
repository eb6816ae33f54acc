"""The routing row on SQLite and PostgreSQL: one change wins, the others are told."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from include.config.settings import ROOT
from include.errors import Conflict, EvergreenError
from include.records.audit import AuditEntry
from include.records.records import Opponent, Records, Route
from include.records.rows import locked
from include.records.schema import ModelRow, RouteRow
from tests.records.builders import (
    AT,
    model,
)


def entry(action: str = "deployed", **changes: object) -> AuditEntry:
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


def promote(records: Records, version: int, **expected: object) -> Route:
    """Make a version the champion, as deployment does."""
    route, day = records.routes.get("loans"), f"2026-03-{version:02d}"
    changes = {"champion": version, "previous": route.champion, "challenger": None}
    return records.routes.change(
        "loans", set=changes, entry=entry(), **{"partition": day, **expected}
    )  # type: ignore[arg-type]


@pytest.fixture
def released(records: Records) -> Records:
    """Records with models 1, 2, 3 released in turn, 4 and 5 trained since."""
    for version in (1, 2, 3):
        records.models.add(model(version, generation=version - 1))
        promote(records, version)
    for version in (4, 5):
        records.models.add(model(version, generation=3))
    return records


def test_nothing_released_yet(records: Records) -> None:
    route = records.routes.get("loans")
    assert (route.generation, route.champion, route.watermark, route.held, len(route.salt)) == (
        0,
        None,
        None,
        [],
        16,
    )
    assert records.audit.entries() == []


def test_a_promotion_moves_the_row_and_the_log_together(records: Records) -> None:
    records.models.add(model(1))
    route = promote(records, 1, expect_generation=0, expect_champion=None)
    assert (route.champion, route.generation, route.watermark) == (1, 1, "2026-03-01")
    assert route == records.routes.get("loans")
    assert records.models.get("loans", 1).state == "released"  # type: ignore[union-attr]
    (row,) = records.audit.entries()
    assert row.details == {
        "generation": 1,
        "before": {"champion": None, "watermark": None},
        "after": {"champion": 1, "watermark": "2026-03-01"},
    }


def test_a_lost_compare_and_set_changes_nothing_and_is_on_record(released: Records) -> None:
    before = released.routes.get("loans")
    for expected, reason in (
        ({"expect_generation": 2}, "at generation 3, not 2"),
        ({"expect_champion": 1}, "champion is 3, not 1"),
        ({"expect_champion": None}, "champion is 3, not None"),
        ({"partition": "2026-03-02"}, "older than 2026-03-03"),
    ):
        with pytest.raises(Conflict, match=reason):
            promote(released, 4, **expected)
        refused = released.audit.entries(action="deployed.refused")[-1]
        assert reason in refused.details["reason"]
    assert released.routes.get("loans") == before
    assert len(released.audit.entries(action="deployed")) == 3
    assert (
        promote(
            released, 4, expect_generation=3, expect_champion=3, partition="2026-03-03"
        ).champion
        == 4
    )


def test_steps_and_weights_change_without_a_partition(released: Records) -> None:
    def step(**changes: object) -> Route:
        return released.routes.change("loans", set=changes, entry=entry("step"))

    assert step(challenger=4, step=1, weight=5.0).weight == 5.0
    route = step(step=2, weight=25)
    assert (route.champion, route.challenger, route.weight, route.generation, route.watermark) == (
        3,
        4,
        25.0,
        5,
        "2026-03-03",
    )
    for wrong in (
        {"weight": 101},
        {"weight": -1},
        {"generation": 1},
        {"held": []},
        {"watermark": "2020-01-01"},
    ):
        with pytest.raises(EvergreenError, match=r"percentage|cannot be set"):
            step(**wrong)
    assert released.routes.get("loans") == route


def test_only_a_recorded_model_enters(records: Records) -> None:
    with pytest.raises(Conflict, match="no model version 7 on record"):
        records.routes.change("loans", set={"challenger": 7}, entry=entry())


def test_a_change_in_a_failed_transaction_leaves_no_trace(released: Records) -> None:
    before = released.routes.get("loans")

    def fail(session: Session) -> None:
        released.routes.change("loans", set={"champion": 4}, entry=entry(), session=session)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        released.database.write(fail)
    assert (released.routes.get("loans"), len(released.audit.entries())) == (before, 3)


def test_a_promotion_whose_answer_was_lost_happens_once(records: Records) -> None:
    records.models.add(model(1))
    lost: list[int] = []

    def fail(session: Session) -> None:
        if not lost:
            lost.append(1)
            raise DBAPIError("COMMIT", {}, ConnectionError("gone"), connection_invalidated=True)

    event.listen(Session, "after_commit", fail)
    try:
        route = promote(records, 1, expect_generation=0, expect_champion=None)
    finally:
        event.remove(Session, "after_commit", fail)
    assert (lost, route.generation, route.champion) == ([1], 1, 1)
    assert [row.action for row in records.audit.entries()] == ["deployed"]
    mine = entry(once="release of 1")
    for _ in range(2):  # and by a caller who names his change, also after a restart
        assert (
            records.routes.change(
                "loans", set={"step": 1}, entry=mine, expect_generation=1
            ).generation
            == 2
        )


def test_a_rollback_goes_back_holds_the_digest_and_keeps_the_watermark(released: Records) -> None:
    route = released.routes.rollback("loans", entry=entry("rollback"), expect_generation=3)
    assert (route.champion, route.previous, route.held) == (2, 1, ["sha256:3"])
    assert (route.watermark, route.generation, route.rollback_generation) == ("2026-03-03", 4, 4)
    assert released.models.get("loans", 3).state == "retired"  # type: ignore[union-attr]
    with pytest.raises(Conflict, match=r"version 3 \(sha256:3\) was rolled back and is on hold"):
        promote(released, 3)
    with pytest.raises(
        Conflict, match="trained in generation 3, before the rollback of generation 4"
    ):
        promote(released, 4)  # in flight when the rollback came
    released.models.add(model(6, generation=4))
    with pytest.raises(Conflict, match="judged in generation 3"):
        promote(released, 6, judged_generation=3)
    assert promote(released, 6, judged_generation=4).champion == 6
    assert released.audit.verify() is None


def test_an_equal_artefact_under_another_version_is_held_too(released: Records) -> None:
    released.routes.rollback("loans", entry=entry("rollback"))
    released.models.add(model(6, generation=9, digest="sha256:3"))
    with pytest.raises(Conflict, match="on hold"):
        promote(released, 6)


def test_after_two_bad_releases_the_last_good_one_serves(released: Records) -> None:
    released.routes.rollback("loans", entry=entry("rollback"))
    route = released.routes.rollback("loans", entry=entry("rollback"))
    assert (route.champion, route.previous, route.held) == (1, None, ["sha256:2", "sha256:3"])
    with pytest.raises(Conflict, match="no earlier champion to go back to"):
        released.routes.rollback("loans", entry=entry("rollback"))
    released.models.add(model(6, generation=5))
    assert promote(released, 6).previous == 1


def test_what_is_on_hold_by_a_late_rollback_is_no_way_back(released: Records) -> None:
    """Model 2 was bad, which came on record when model 3 had been released already."""
    late = released.routes.take_back_digest("loans", "sha256:2", entry=entry("rollback"))
    assert (late.champion, late.previous, late.held) == (3, 1, ["sha256:2"])
    route = released.routes.rollback("loans", entry=entry("rollback"))
    assert (route.champion, route.previous) == (1, None)
    assert released.audit.verify() is None


def test_a_row_that_names_a_held_model_as_the_one_before_goes_past_it(released: Records) -> None:
    """An earlier version wrote such rows."""
    with released.transaction() as session:
        session.get_one(RouteRow, "loans").held = ["sha256:2"]
    assert released.routes.rollback("loans", entry=entry("rollback")).champion == 1


def test_a_late_rollback_without_a_good_model_only_holds(released: Records) -> None:
    with released.transaction() as session:
        session.get_one(RouteRow, "loans").held = ["sha256:1", "sha256:2"]
    route = released.routes.take_back_digest("loans", "sha256:3", entry=entry("rollback"))
    assert (route.champion, route.held) == (3, ["sha256:1", "sha256:2", "sha256:3"])
    with pytest.raises(Conflict, match="no earlier champion"):
        released.routes.rollback("loans", entry=entry("rollback"))


def test_a_challenger_that_is_the_model_of_before_leaves_no_way_back_to_it(
    released: Records,
) -> None:
    released.models.add(model(6, generation=9, digest="sha256:2"))
    released.routes.change("loans", set={"challenger": 6}, entry=entry(), partition="2026-03-06")
    route = released.routes.rollback("loans", entry=entry("rollback"), of="challenger")
    assert (route.champion, route.previous, route.held) == (3, 1, ["sha256:2"])


def test_a_rollback_drops_a_challenger_on_its_way(released: Records) -> None:
    released.routes.change(
        "loans", set={"challenger": 4, "weight": 5.0}, entry=entry(), partition="2026-03-04"
    )
    route = released.routes.rollback("loans", entry=entry("rollback"), of="challenger")
    assert (route.champion, route.previous, route.challenger, route.weight, route.held) == (
        3,
        2,
        None,
        0.0,
        ["sha256:4"],
    )
    assert route.watermark == "2026-03-04"
    with pytest.raises(Conflict):
        promote(released, 4)
    with pytest.raises(Conflict, match="no challenger"):
        released.routes.rollback("loans", entry=entry("rollback"), of="challenger")


def test_a_person_lifts_a_hold(released: Records) -> None:
    released.opponents.record(Opponent("loans", "sha256:3", "live", 2, 2, "2026-03-03", AT))
    released.routes.rollback("loans", entry=entry("rollback"))
    with pytest.raises(Conflict, match="sha256:9 is not held; held are"):
        released.routes.lift("loans", "sha256:9", entry=entry("release"))
    route = released.routes.lift("loans", "sha256:3", entry=entry("release"), expect_generation=4)
    assert (route.held, route.champion) == ([], 2)
    judged = released.opponents.get("loans", "sha256:3", mode="live")
    assert judged is not None
    assert (judged.version, judged.generation) == (2, route.generation)
    assert (
        promote(released, 3, expect_champion=2, judged_generation=judged.generation).champion == 3
    )
    assert [row.action for row in released.audit.entries()][-4:] == [
        "rollback",
        "release.refused",
        "release",
        "deployed",
    ]


RACER = """
import sys
from datetime import UTC, datetime
from include.errors import Conflict
from include.records.records import AuditEntry, Records
url, version, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
records, won = Records.open(url), []
entry = lambda number: AuditEntry("race", "loans", str(version), f"racer {version}",
    {"round": number}, datetime.now(UTC))
sys.stdin.readline()
for number in range(rounds):
    try:
        records.routes.change("loans", set={"champion": version}, expect_generation=number,
            entry=entry(number))
        won.append(number)
    except Conflict:
        pass
print(won)
"""


@pytest.mark.slow
def test_of_two_promotions_at_once_exactly_one_succeeds_a_hundred_times(records_url: str) -> None:
    records, rounds = Records.open(records_url), 100
    records.migrate()
    for version in (1, 2):
        records.models.add(model(version))
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, records_url, str(version), str(rounds)],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for version in (1, 2)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [eval(racer.communicate(timeout=60)[0]) for racer in racers]
    assert sorted(won[0] + won[1]) == list(range(rounds))
    assert records.routes.get("loans").generation == rounds
    assert [row.details["generation"] for row in records.audit.entries(action="race")] == list(
        range(1, rounds + 1)
    )
    assert len(records.audit.entries(action="race.refused")) == rounds
    assert records.audit.verify() is None


def test_many_threads_promote_at_once(released: Records) -> None:
    def race(number: int) -> bool:
        try:
            promote(released, 4 + number % 2, expect_champion=3)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(race, range(16))) == 1


def test_a_model_whose_files_are_being_collected_is_not_released(records: Records) -> None:
    records.models.add(model(1))
    with ThreadPoolExecutor(1) as pool:

        def collect(session: Session) -> Future[Route]:
            row = locked(session, ModelRow, "loans", 1)
            assert row is not None
            row.collected_at = AT
            session.flush()
            released = pool.submit(promote, records, 1)
            time.sleep(0.3)  # it has come as far as it can
            return released

        with pytest.raises(Conflict, match="were collected"):
            records.database.write(collect).result()


def test_a_rollback_wins_over_a_promotion_in_flight(released: Records) -> None:
    def go_back() -> Route:
        return released.routes.rollback("loans", entry=entry("rollback"))

    with ThreadPoolExecutor(2) as pool:
        promotion = pool.submit(promote, released, 4, expect_champion=3)
        back = pool.submit(go_back).result()
    route = released.routes.get("loans")
    assert back == route  # nothing came after it
    if promotion.exception() is None:  # the promotion came first, and was taken back
        assert (route.champion, route.held) == (3, ["sha256:4"])
    else:
        assert isinstance(promotion.exception(), Conflict)
        assert (route.champion, route.held) == (2, ["sha256:3"])
    assert released.audit.verify() is None
