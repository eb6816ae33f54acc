"""The burn rate: whose it is, in which windows, and what one entity or one moment is worth."""

from __future__ import annotations

from collections.abc import Sequence

from include.deployment.burn_rate import BurnVerdict, arm_burn, burns_alone, causes, judge_burn
from include.deployment.release_plan import Objective
from include.deployment.window_sums import StepWindows
from include.predictions.window_counts import CHALLENGER, CHAMPION, CLUSTERS, Counts
from include.records.release_reports import Window
from tests.builders.release_windows import START, drawn

SLO = Objective()
LEVEL = 1e-6
FIRST = int(START.timestamp() // 60)


def verdict(windows: Sequence[Window], minute: int = 9) -> BurnVerdict:
    """Return the verdict at a minute of the step."""
    return judge_burn(StepWindows(windows, 0), FIRST + minute, SLO, LEVEL)


def arms(challenger: float, champion: float = 0.001, minutes: range = range(10)) -> list[Window]:
    """Return windows in which the arms fail so often."""
    return [
        *drawn(CHAMPION, requests=200, errors=champion, minutes=minutes),
        *drawn(CHALLENGER, errors=challenger, minutes=minutes),
    ]


def test_an_arm_that_burns_alone_is_told_from_two_that_do() -> None:
    assert verdict(arms(0.2)).alone
    both = verdict(arms(0.2, 0.2))
    assert (both.alone, both.together) == (False, True)
    sound = verdict(arms(0.001))
    assert (sound.alone, sound.together) == (False, False)


def test_it_is_told_three_minutes_after_it_began() -> None:
    windows = [*arms(0.001, minutes=range(7)), *arms(0.5, minutes=range(7, 10))]
    assert verdict(windows).alone


def test_what_is_over_burns_no_more() -> None:
    windows = [*arms(0.4, minutes=range(5)), *arms(0.0, 0.0, minutes=range(5, 10))]
    found = verdict(windows)
    assert found.challenger.rates[0] > 2
    assert found.challenger.rates[1] == 0
    assert not found.alone


def test_less_than_twenty_bad_answers_are_few() -> None:
    windows = [
        *drawn(CHAMPION, requests=200, errors=0.0, minutes=range(10)),
        *drawn(CHALLENGER, requests=3, errors=0.5, minutes=range(10)),
    ]
    assert verdict(windows).challenger.bad < 20
    assert not verdict(windows).alone


def test_one_entity_that_fails_all_the_time_is_one_event() -> None:
    def of_one_entity(window: Window) -> Window:
        counts = Counts.read(window.counts)
        counts.clusters[3][0] += 10
        counts.clusters[3][1] += 10
        return Window(**vars(window) | {"counts": counts.plain()})

    sound = arms(0.0)
    windows = [of_one_entity(one) if one.arm == CHALLENGER else one for one in sound]
    found = verdict(windows)
    assert found.challenger.burns(), "by its counts alone it burns"
    assert not found.alone


def test_one_moment_is_one_event() -> None:
    windows = [*arms(0.0, 0.0, minutes=range(9)), *arms(0.9, 0.0, minutes=range(9, 10))]
    found = verdict(windows)
    assert found.challenger.burns()
    assert not found.alone


def test_a_champion_that_is_watched_burns_by_itself() -> None:
    for errors, burns in ((0.2, True), (0.001, False)):
        windows = StepWindows(drawn(CHAMPION, errors=errors, minutes=range(10)), 0)
        assert burns_alone(windows, FIRST + 9, SLO, LEVEL) == burns


def test_without_requests_nothing_burns() -> None:
    assert arm_burn(StepWindows([], 0), CHAMPION, FIRST, SLO).rates == (0.0, 0.0)
    assert not verdict([]).alone


def test_causes_are_data_the_most_frequent_first() -> None:
    one = [*drawn(CHALLENGER, errors=0.3, invalid=0.1, node="n1")]
    two = [*drawn(CHALLENGER, errors=0.0, node="n2")]
    found = causes(
        StepWindows([*one, *two], 0), CHALLENGER, changes=["a migration"], staleness={"orders": 60}
    )
    assert [item["cause"] for item in found] == [
        "error", "error", "node", "change", "stale features",
    ]  # fmt: skip
    assert found[0]["kind"] == "time-out"
    assert found[0]["count"] > found[1]["count"]
    assert found[2]["node"] == "n1"
    assert found[4] == {"cause": "stale features", "view": "orders", "seconds": 60}


def test_clusters_are_those_of_the_windows() -> None:
    clusters, times = StepWindows(arms(0.1), 0).within(CHALLENGER, FIRST - 1, FIRST + 9)
    assert clusters.shape[0] == CLUSTERS
    assert times.shape[0] == 10
    assert clusters.sum() == times.sum()
