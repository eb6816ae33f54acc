"""Probations, on SQLite and PostgreSQL: begun at the promotion, moved by exact facts or a judge."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from include.errors import Conflict
from include.records.evidence_schema import ProbationRow
from include.records.probations import LAPSES
from include.records.records import Probation, Records, Release, Window
from include.retention.marks import mark
from tests.builders.releases import PLAN, add_model, entry, request

NAME = "shop"
DAY = timedelta(days=1)


def promote(records: Records, version: int, *, delay: float | None = 5 * 86_400.0) -> Release:
    """Bring a model through a step to everybody; its outcomes are mature after `delay` seconds."""
    if records.routes.get(NAME).champion is None:
        add_model(records, 1, "2026-01-01")
        records.routes.change(NAME, set={"champion": 1}, entry=entry())
        records.models.update(NAME, 1, state="released")
    plan: dict[str, Any] = {**PLAN, **({} if delay is None else {"probation": delay})}
    release = request(records, version, f"2026-01-{version:02d}", plan=plan)
    release = records.releases.begin(release, entry())
    return records.releases.promote(release, entry("release.promoted"), None)


def of(records: Records, version: int) -> Probation:
    return next(one for one in records.probations.of(NAME) if one.version == version)


def age(records: Records, by: timedelta) -> None:
    """Let all open probations have begun, and be mature, so much earlier."""
    with records.transaction() as session:
        for one in records.probations.open(NAME):
            values = {"began_at": one.began_at - by, "matures_at": one.matures_at - by}
            mine = ProbationRow.release_id == one.release_id
            session.execute(update(ProbationRow).where(mine).values(**values))


def review(records: Records) -> list[tuple[int, str]]:
    moved = records.probations.review(NAME, entry("probation.reviewed"))
    return [(one.version, one.state) for one in moved]


def judge(records: Records, version: int, *, good: bool, once: str | None = None) -> Probation:
    told = dataclasses.replace(entry("probation.judged"), once=once)
    return records.probations.judge(
        of(records, version), good=good, reason="auc .1 lost", entry=told
    )


def actions(records: Records) -> list[str]:
    rows = records.audit.entries(NAME)
    return [row.action for row in rows if row.action.startswith("probation.")]


def test_who_came_through_steps_is_on_probation_until_its_outcomes_are_mature(
    records: Records,
) -> None:
    release = promote(records, 2)
    (one,) = records.probations.open(NAME)
    assert (one.version, one.digest, one.opponent, one.state) == (2, "sha256:2", 1, "maturing")
    assert one.release_id == release.id
    assert one.matures_at - one.began_at == 5 * DAY
    assert one.began_at == release.entered_at
    assert review(records) == [], "nothing is due yet"
    with pytest.raises(Conflict, match="judge it then"):
        judge(records, 2, good=True)


def test_whose_outcomes_nobody_knows_the_time_of_is_not_on_probation(records: Records) -> None:
    """By a plan of a version before; and by no steps there is no cohort."""
    promote(records, 2, delay=None)
    tried = request(records, 3, "2026-01-03", plan={**PLAN, "probation": 60.0})
    records.releases.promote(tried, entry(), None)
    assert records.probations.of(NAME) == []


def test_what_is_mature_is_due_once_and_lapses_where_nobody_judges_it(records: Records) -> None:
    promote(records, 2)
    age(records, 5 * DAY)
    generation = records.routes.get(NAME).generation
    assert review(records) == [(2, "due")]
    assert review(records) == []
    age(records, LAPSES)
    assert review(records) == [(2, "lapsed")]
    assert records.probations.open(NAME) == []
    assert of(records, 2).reason == "nobody judged it for 90 days"
    assert records.routes.get(NAME).generation == generation
    assert actions(records) == ["probation.due", "probation.lapsed"]


def test_a_good_one_has_passed_and_is_a_rollback_target_as_before(records: Records) -> None:
    promote(records, 2)
    age(records, 5 * DAY)
    review(records)
    assert judge(records, 2, good=True, once="x").state == "passed"
    assert judge(records, 2, good=True, once="x").state == "passed", "the same call once more"
    with pytest.raises(Conflict, match="the probation of model 2 is passed"):
        judge(records, 2, good=False)
    promote(records, 3)
    assert records.routes.get(NAME).previous == 2


def test_a_bad_one_that_still_serves_goes_on_serving_until_a_person_takes_it_back(
    records: Records,
) -> None:
    promote(records, 2)
    age(records, 5 * DAY)
    review(records)
    before = records.routes.get(NAME)
    assert judge(records, 2, good=False).state == "regressed"
    assert records.routes.get(NAME) == before, "nobody's traffic moves"
    assert review(records) == []
    records.routes.rollback(NAME, of="champion", entry=entry("rollback"))
    assert review(records) == [(2, "rolled_back")]
    assert records.routes.get(NAME).champion == 1
    assert actions(records)[-2:] == ["probation.regressed", "probation.rolled_back"]


def test_a_bad_one_that_was_replaced_is_no_rollback_target_and_no_opponent(
    records: Records,
) -> None:
    promote(records, 2)
    promote(records, 3)
    assert records.routes.get(NAME).previous == 2
    age(records, 5 * DAY)
    review(records)
    before = records.routes.get(NAME)
    assert judge(records, 2, good=False).state == "not_good"
    after = records.routes.get(NAME)
    assert (after.previous, after.champion, after.held) == (1, 3, before.held)
    assert after.rollback_generation == before.rollback_generation
    found = records.models.get(NAME, 2)
    assert found is not None
    assert found.state == "retired", "what was never released is no opponent of a backfill either"
    records.routes.rollback(NAME, of="champion", entry=entry("rollback"))
    assert records.routes.get(NAME).champion == 1
    with pytest.raises(Conflict, match="version 2 was found not good on probation"):
        records.routes.change(NAME, set={"champion": 2}, entry=entry())


def test_a_bad_one_that_is_replaced_later_is_no_rollback_target_at_once(records: Records) -> None:
    promote(records, 2)
    age(records, 5 * DAY)
    review(records)
    judge(records, 2, good=False)
    promote(records, 3)
    assert records.routes.get(NAME).previous == 1, "whoever was good before it"
    assert (2, "not_good") in review(records)
    assert of(records, 2).reason == "auc .1 lost"


def test_the_files_and_windows_that_a_probation_needs_are_kept(records: Records) -> None:
    first = promote(records, 2)
    for version in (3, 4, 5):
        promote(records, version)
    records.releases.put_windows(
        [Window(NAME, first.id, 0, "champion", "champion", "n1", "b1", 29_000_000, {})]
    )
    later = records.releases.now() + 60 * DAY  # the release is long over by then

    def kept() -> dict[int, str]:
        return records.database.read(lambda session: mark(session, NAME, newest=1))

    assert kept()[2].startswith("on probation: its outcomes are mature on ")
    assert kept()[1] == "version 2 on probation is compared with it"
    assert records.releases.finished(NAME, later) == {}
    age(records, 5 * DAY)
    review(records)
    for version in (2, 3, 4, 5):
        judge(records, version, good=version != 2)
    assert {1, 2} & set(kept()) == set()
    assert records.releases.finished(NAME, later) == {first.id: 1}


def test_a_use_case_that_is_reset_has_no_probation(records: Records) -> None:
    promote(records, 2)
    assert records.forget(NAME, entry=entry("use_case.reset"))["probations"] == 1
    assert records.probations.of(NAME) == []
    assert review(records) == []
