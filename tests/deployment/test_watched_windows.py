"""A champion that is watched while the next release is under way, on real records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from include.config.settings import Settings
from include.deployment.judge_release import turn
from include.deployment.release_ends import new_alerts
from include.deployment.release_plan import ReleasePlan
from include.deployment.watched_windows import watched_windows
from include.deployment.window_sums import StepWindows
from include.predictions.window_counts import (
    CHALLENGER,
    CHAMPION,
    NEITHER,
    NOBODY,
    REQUESTS,
    SHADOW,
)
from include.records.records import Records, Release
from include.records.schema import ReleaseRow, RouteRow
from tests.builders.release_windows import DAY, START, drawn, plan_of
from tests.builders.releases import add_model, entry, request

PLAN = plan_of(0, 500, watch=DAY)
MINUTES = 12
ASKED = 100  # a minute


class Watch:
    """Model 2, the champion after model 1, is watched; model 3 is in the first step, a shadow."""

    def __init__(self, home: Path, **next_plan: Any) -> None:
        self.settings = Settings(home=home)
        self.records = Records.open(self.settings.records_address)
        self.records.migrate()
        add_model(self.records, 1, "2026-01-01")
        self.records.routes.change("shop", set={"champion": 1}, entry=entry())
        first = self.request(2, "2026-03-02")
        self.mine = self.records.releases.promote(first, entry(), None)
        self.other = self.request(3, "2026-03-03", **next_plan)
        self.first = int(self.mine.entered_at.timestamp()) // 60 + 1

    def request(self, version: int, key: str, **plan: Any) -> Release:
        """Begin the release of a model."""
        plain = plan_of(0, 500, watch=DAY, **plan).plain()
        return self.records.releases.begin(request(self.records, version, key, plan=plain), entry())

    def count(
        self, release: Release, arm: str, step: int = 0, kind: str = "time-out", **drawing: Any
    ) -> None:
        """Have a node count twelve minutes of an arm, with errors of one kind."""
        drawing = {"requests": ASKED, "minutes": range(MINUTES), "errors": 0.0} | drawing
        began = int(START.timestamp()) // 60
        windows = [
            replace(one, release_id=release.id, minute=one.minute - began + self.first)
            for one in drawn(arm, step=step, **drawing)
        ]
        for one in windows:
            one.counts["error_kinds"] = {kind: sum(one.counts["error_kinds"].values())}
        self.records.releases.put_windows(windows)

    def look(self, *, later: float = 60.0 * MINUTES) -> dict[str, Any]:
        """Judge the watched release, so many seconds from now."""
        now = self.records.releases.now() + timedelta(seconds=later)
        state = turn(self.settings, "shop", self.mine.id, now)
        assert state is not None
        return state

    def asked(self, arm: str) -> int:
        """Return of how many requests of an arm the watch knows."""
        windows, _ = watched_windows(self.records, self.mine, ReleasePlan.read("", self.mine.plan))
        return StepWindows(windows, self.mine.step).arm_total(arm).column(REQUESTS)


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    made = Watch(tmp_path)
    yield made
    made.records.close()


def test_a_champion_that_fails_while_the_next_release_is_under_way_is_taken_back(
    watch: Watch,
) -> None:
    watch.count(watch.other, CHAMPION, errors=0.3)
    watch.count(watch.other, SHADOW)
    state = watch.look()
    assert (state["state"], "it burns at" in state["reason"]) == ("rolled_back", True)
    route = watch.records.routes.get("shop")
    assert (route.champion, route.challenger, route.release_id) == (1, None, None)
    assert route.held == [watch.mine.challenger_digest]
    # It was judged against the model that is taken back: it ends, held by nobody, and is told.
    other = watch.records.releases.get("shop", watch.other.id)
    assert other is not None
    assert (other.state, other.reason) == ("aborted", "rolled back meanwhile")
    told = [
        alert.event for alert in new_alerts(watch.records, "shop", watch.records.releases.now())
    ]
    assert sorted(told) == ["release.aborted", "release.asks_a_person", "release.rolled_back"]


def test_a_sound_champion_stands_its_watch_beside_the_next_release(watch: Watch) -> None:
    watch.count(watch.mine, CHAMPION, step=2, node="n2")
    watch.count(watch.other, CHAMPION)
    watch.count(watch.other, CHAMPION, step=1)
    watch.count(watch.other, CHALLENGER, step=1, errors=0.3, requests=5)
    watch.count(watch.other, SHADOW, step=1, answering=CHAMPION)  # the champion's part of a pair
    assert watch.asked(CHAMPION) == 3 * MINUTES * ASKED, "each window once"
    assert watch.asked(CHALLENGER) == 5 * MINUTES
    assert (watch.look()["word"], watch.look()["state"]) == ("pass", "watched")
    watch.records.releases.abort(watch.other, "a wish", entry())
    assert watch.asked(CHAMPION) == 3 * MINUTES * ASKED, "also when it has ended"
    over = watch.look(later=DAY + 1)
    assert (over["state"], over["asks"]) == ("promoted", False)
    [settled] = watch.records.audit.entries("shop", action="release.settled")
    assert settled.details["verdict"]["word"] == "pass"


def test_what_both_models_fail_at_takes_no_champion_back(watch: Watch) -> None:
    watch.count(watch.other, CHAMPION, errors=0.3)
    watch.count(watch.other, SHADOW, errors=0.3)
    for _ in range(2):
        state = watch.look()
        assert (state["state"], state["word"], state["asks"]) == ("watched", "hold", True)
        assert state["reason"].startswith("a common cause: both models burn; it burns at")
    [asked] = watch.records.audit.entries("shop", action="release.asks_a_person")
    assert asked.details["about"] == ["a common cause", "burns", "fail errors"]
    assert watch.records.routes.get("shop").champion == 2


@pytest.mark.parametrize("errors", [(0.3, 0.0), (0.3, 0.0005)], ids=["all", "nearly all"])
def test_what_the_model_before_it_fails_at_too_takes_no_champion_back(
    watch: Watch, errors: tuple[float, float]
) -> None:
    shared, own = errors
    kind = "no_features"
    watch.count(watch.mine, CHAMPION, step=2, kind=kind, answering=NEITHER, errors=shared)
    watch.count(watch.mine, CHAMPION, step=2, answering="fallback", errors=own)
    for _ in range(2):
        state = watch.look()
        assert (state["state"], state["word"], state["asks"]) == ("watched", "hold", True)
    told = "a common cause: the model before it fails at the same requests; it burns at"
    assert state["reason"].startswith(told)
    assert watch.records.routes.get("shop").champion == 2
    [asked] = watch.records.audit.entries("shop", action="release.asks_a_person")
    assert asked.details["causes"][0]["kind"] == "no_features"
    watch.records.releases.abort(watch.other, "a wish", entry())
    assert watch.look(later=DAY + 1)["state"] == "promoted"
    [settled] = watch.records.audit.entries("shop", action="release.settled")
    assert settled.details["verdict"]["word"] == "hold", "it is not said to have stood it"


@pytest.mark.parametrize("why", ["answered for", "not asked", "some its own", "nobody before it"])
def test_what_it_alone_fails_at_takes_a_champion_back(watch: Watch, why: str) -> None:
    answering = {"answered for": "fallback", "not asked": NOBODY}.get(why, NEITHER)
    watch.count(watch.mine, CHAMPION, step=2, answering=answering, errors=0.3)
    if why == "some its own":
        watch.count(watch.mine, CHAMPION, step=2, node="n2", answering="fallback", errors=0.1)
    if why == "nobody before it":
        watch.count(watch.mine, CHAMPION, step=2, node="n2", answering=NOBODY, errors=0.1)
        with watch.records.transaction() as session:
            session.get_one(RouteRow, "shop").previous = None
    is_back = why != "nobody before it"
    assert watch.look()["state"] == ("rolled_back" if is_back else "watched")
    [asked] = watch.records.audit.entries("shop", action="release.asks_a_person")
    assert asked.details["word"] == "fail"


@pytest.mark.parametrize(
    "change",
    [{"champion": 7}, {"plan": {"kind": "of a later version"}}, {"plan": "slow"}],
)
def test_what_was_counted_of_another_champion_or_by_another_limit_is_not_seen(
    watch: Watch, change: dict[str, Any]
) -> None:
    watch.count(watch.other, CHAMPION, errors=0.3)
    with watch.records.transaction() as session:
        row = session.get_one(ReleaseRow, ("shop", watch.other.id))
        slow = {**PLAN.plain(), "metrics": {"slow": {"margin": 0.01, "milliseconds": 20.0}}}
        for name, value in change.items():
            setattr(row, name, slow if value == "slow" else value)
    assert watch.asked(CHAMPION) == 0
    state = watch.look()
    assert (state["word"], state["ends_at"]) == ("hold", None)
    assert f"release {watch.other.id} is under way" in state["reason"]


def test_while_the_next_release_is_tried_for_long_the_champion_is_not_seen(watch: Watch) -> None:
    with watch.records.transaction() as session:
        session.get_one(ReleaseRow, ("shop", watch.mine.id)).entered_at -= timedelta(hours=3)
        session.get_one(ReleaseRow, ("shop", watch.other.id)).started_at -= timedelta(hours=2)
    watch.count(watch.other, CHAMPION)
    state = watch.look()
    assert (state["word"], "not seen from" in state["reason"]) == ("pass", True)
    assert watch.look(later=DAY + 1)["state"] == "promoted"
    [settled] = watch.records.audit.entries("shop", action="release.settled")
    assert settled.details["verdict"]["word"] == "hold"
