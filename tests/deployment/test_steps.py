"""The judgement of a release: one rule a test, on windows as nodes report them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from include.deployment.decision import Decision
from include.deployment.metric_verdicts import Offline
from include.deployment.release_plan import ReleasePlan
from include.deployment.sequential import Ratio, Tally
from include.deployment.steps import judge
from include.deployment.watched import was_beside
from include.predictions.window_counts import (
    ABOVE,
    CHALLENGER,
    CHAMPION,
    ERRORS,
    REQUESTS,
    SCORE_SQUARES,
    SCORE_SUM,
    SCORED,
    SHADOW,
    SLOW,
    Counts,
)
from include.records.release_reports import Window
from include.records.release_rows import Release
from tests.builders.release_windows import (
    START,
    both,
    drawn,
    guard_of,
    later,
    node_of,
    plan_of,
    release_of,
)

CANARY = plan_of(500, 2500)
MIRRORED = plan_of(0, 500)


def judged(
    windows: Sequence[Window],
    *,
    plan: ReleasePlan = CANARY,
    minutes: float = 40,
    nodes: Any = None,
    guards: Any = (),
    beat_age: float = 60.0,
    offline: Offline | None = None,
    **release: Any,
) -> Decision:
    """Return the decision on a release whose step has lasted so many minutes."""
    found = [node_of()] if nodes is None else nodes
    return judge(
        release_of(plan, **release), plan, windows, found, guards, beat_age, later(minutes),
        offline=offline,
    )  # fmt: skip


def test_an_equal_model_passes_once_bake_and_minimum_are_reached() -> None:
    found = judged(both())
    assert (found.word, found.action) == ("pass", "advance")
    assert set(found.evidence) >= {"errors", "slow", "invalid", "scores", "decisions", "burn rate"}
    assert {found.evidence[name]["word"] for name in ("errors", "slow", "scores")} == {"pass"}
    assert found.ends_at == START + timedelta(days=1)


def test_a_step_whose_answers_had_no_features_has_seen_nothing_and_does_not_pass() -> None:
    """As the store was away they were refused, or scored alike: of the model that says nothing."""

    def unscored(window: Window) -> Window:
        counts = Counts.read(window.counts)
        for row in counts.clusters:
            row[SCORED] = row[SCORE_SUM] = row[SCORE_SQUARES] = row[ABOVE] = 0
        return dataclasses.replace(window, counts=counts.plain())

    found = judged([unscored(window) for window in both()])
    assert (found.word, found.action) == ("hold", "stay")
    assert " of 500 requests" in found.reason


@pytest.mark.parametrize("errors", [0.0, 0.1])
def test_what_the_champion_answers_in_its_place_fills_no_minimum(errors: float) -> None:
    """As the store of its features was away the challenger answered nothing; errors are its own."""
    instead = [
        dataclasses.replace(window, answering=CHAMPION)
        for window in drawn(CHALLENGER, errors=errors)
    ]
    failed = sum(Counts.read(window.counts).column(ERRORS) for window in instead)
    found = judged([*drawn(CHAMPION, requests=200, errors=errors), *instead])
    assert (found.word, found.action) == ("hold", "stay")
    assert (failed > 0) == (errors > 0)
    assert f"{failed} of 500 requests" in found.reason.split("; ")


def test_the_report_says_which_worsening_would_have_been_seen() -> None:
    errors = judged(both()).evidence["errors"]
    assert 0.005 < errors["would_have_seen"] < 0.03
    more = judged(both(requests=500)).evidence["errors"]
    assert more["would_have_seen"] < errors["would_have_seen"]


@pytest.mark.parametrize(
    ("champion", "challenger", "whose"),
    [(4, 64, "the champion's"), (0, 64, "the champion's"), (64, 4, "its")],
)
def test_errors_of_too_few_entities_for_a_test_never_pass(
    champion: int, challenger: int, whose: str
) -> None:
    plan = plan_of(500, 2500)
    plan = msgspec.structs.replace(
        plan, steps=[msgspec.structs.replace(step, entities=1) for step in plan.steps]
    )
    bad = list(_of_few(drawn(CHALLENGER, errors=0.6), challenger))
    windows = [*_of_few(drawn(CHAMPION), champion), *bad]
    found = judged(windows, plan=plan)
    assert (found.word, found.action) == ("hold", "stay")
    assert f"2000 are above the limit of 2.00%, but {whose} requests" in found.reason
    assert found.evidence["errors"]["word"] == "not known"
    late = judged(windows, plan=plan, minutes=25 * 60)
    assert (late.word, late.action) == ("hold", "abort")


def test_a_sound_model_of_few_entities_passes_and_says_what_nobody_has_seen() -> None:
    windows = [*drawn(CHAMPION), *_of_few(drawn(CHALLENGER), 4)]
    found = judged(windows)
    assert (found.word, found.evidence["errors"]["word"]) == ("pass", "not known")


def test_errors_of_few_entities_of_a_watched_champion_are_shown_to_a_person() -> None:
    plan = plan_of(500)
    windows = list(_of_few(drawn(CHAMPION, errors=0.01, invalid=0.05, minutes=range(20)), 4))
    found = judged(windows, plan=plan, state="watched", minutes=60)
    assert (found.word, found.action, found.asks) == ("hold", "stay", True)
    over = judged(windows, plan=plan, state="watched", minutes=26 * 60)
    assert (over.word, over.action, over.asks) == ("hold", "promote", True)


@pytest.mark.parametrize(
    ("column", "value"),
    [(ERRORS, -5), (ERRORS, 10**9), (REQUESTS, 10**400), (SLOW, 10**6), (SCORED, -1)],
)
def test_counts_that_cannot_be_are_no_evidence(column: int, value: int) -> None:
    windows = both()
    windows[-1].counts["clusters"] = [
        [value if at == column else count for at, count in enumerate(row)]
        for row in windows[-1].counts["clusters"]
    ]
    with pytest.raises(ValueError, match=r"Expected `int`|are counted"):
        judged(windows)


def _of_few(windows: Iterable[Window], clusters: int) -> Iterator[Window]:
    """Yield windows as of entities of so many clusters; of none there are no windows."""
    for window in windows if clusters else ():
        rows = np.array(window.counts["clusters"])
        few = np.zeros_like(rows)
        np.add.at(few, np.arange(len(rows)) % clusters, rows)
        yield dataclasses.replace(window, counts={**window.counts, "clusters": few.tolist()})


def test_the_last_step_promotes() -> None:
    found = judged(both(step=1), step=1)
    assert (found.word, found.action) == ("pass", "promote")


@pytest.mark.parametrize(
    ("challenger", "minutes", "says"),
    [
        ({"minutes": range(20), "requests": 100}, 20, "bakes until 2026-03-05 10:30:00"),
        ({"requests": 10}, 40, "400 of 500 requests"),
        ({}, 29, "bakes until"),
    ],
)
def test_a_step_without_its_bake_or_minimum_is_on_hold(
    challenger: dict[str, Any], minutes: float, says: str
) -> None:
    found = judged(both(**challenger), minutes=minutes)
    assert (found.word, found.action) == ("hold", "stay")
    assert says in found.reason


def test_many_requests_of_few_entities_are_no_evidence() -> None:
    windows = both()
    few = [
        dataclasses.replace(one, counts=one.counts | {"entities": windows[-1].counts["entities"]})
        if one.arm == CHALLENGER
        else one
        for one in windows
    ]
    found = judged(few)
    assert (found.word, found.action) == ("hold", "stay")
    assert found.reason == "about 50 of 100 entities"


@pytest.mark.parametrize(
    ("challenger", "metric"),
    [
        ({"errors": 0.02}, "errors"),
        ({"slow": 0.08}, "slow"),
        ({"invalid": 0.03}, "invalid"),
        ({"mean": 0.65}, "scores"),
    ],
)
def test_a_worse_model_is_rolled_back_with_the_metric_named(
    challenger: dict[str, Any], metric: str
) -> None:
    found = judged(both(**challenger))
    assert (found.word, found.action) == ("fail", "roll_back")
    assert metric in found.reason or "burns" in found.reason


def test_a_metric_that_is_switched_off_fails_nobody() -> None:
    rules = {name: rule for name, rule in CANARY.metrics.items() if name != "slow"}
    found = judged(both(slow=0.08), plan=plan_of(500, 2500, metrics=rules))
    assert (found.word, found.action) == ("pass", "advance")
    assert "slow" not in found.evidence


def mirrored(difference: float) -> list[Window]:
    """Return the windows of a shadow step whose challenger scores by so much otherwise."""
    mine = drawn(SHADOW, pair_difference=difference, mean=0.5 + difference)
    return [*drawn(CHAMPION), *mine]


def test_a_quarter_of_a_deviation_is_seen_on_mirrored_pairs_and_not_without() -> None:
    assert "scores" in judged(mirrored(0.05), plan=MIRRORED).reason
    assert judged(mirrored(0.0), plan=MIRRORED).action == "advance"


def canary_with_pairs(difference: float, **pairs: Any) -> list[Window]:
    """Return the windows of a step with a share, a part of whose entities both models scored.

    The challenger's own entities differ from the champion's by nothing that could be told apart.
    """
    mine = drawn(SHADOW, pair_difference=difference, mean=0.5 + difference, seed=5, **pairs)
    return [*both(requests=20, mean=0.5 + difference), *mine]


def test_a_quarter_of_a_deviation_is_seen_on_the_pairs_of_a_step_with_a_share() -> None:
    assert judged(both(requests=20, mean=0.55)).action == "advance", "by the arms alone it is not"
    found = judged(canary_with_pairs(0.05, requests=25))
    assert (found.word, found.action) == ("fail", "roll_back")
    assert "scores: moved by +0.2" in found.reason
    assert 900 < found.evidence["scores"]["pairs"] <= 1000
    assert judged(canary_with_pairs(0.0, requests=25)).action == "advance"


def test_pairs_may_come_of_either_arms_requests() -> None:
    windows = canary_with_pairs(0.05, requests=25)
    asked_behind = [
        dataclasses.replace(
            one, answering=CHAMPION, counts=Counts(pairs=one.counts["pairs"]).plain()
        )
        for one in windows
        if one.arm == SHADOW
    ]
    found = judged([*[one for one in windows if one.arm != SHADOW], *asked_behind])
    assert "scores: moved by +0.2" in found.reason


def test_where_there_are_too_few_pairs_the_arms_are_compared() -> None:
    few = canary_with_pairs(0.05, requests=2, minutes=range(20))
    found = judged(few).evidence["scores"]
    assert found["pairs"] == 40
    assert found["moved"] == judged(both(requests=20, mean=0.55)).evidence["scores"]["moved"]
    assert judged([*both(mean=0.7), *few[len(both()) :]]).word == "fail"


def test_what_is_mirrored_in_a_step_with_a_share_is_no_request_of_the_challenger() -> None:
    windows = [*both(requests=10), *drawn(SHADOW, requests=200, errors=0.5, lacks={"income": 99})]
    found = judged(windows)
    assert (found.word, found.reason) == ("hold", "400 of 500 requests")
    assert found.evidence["errors"]["requests"] == 400


def test_a_feature_that_requests_lack_holds_the_step_and_is_named() -> None:
    found = judged(both(lacks={"income": 1}, requests=50))
    assert (found.word, found.action) == ("hold", "stay")
    assert "2.0% of the requests lack the feature income" in found.reason
    assert judged(both(lacks={"income": 1}, requests=150)).word == "pass"


def test_a_guard_that_has_latched_is_a_fail_for_all_nodes() -> None:
    found = judged(both(), guards=[guard_of("NaN of 12 of 12")])
    assert (found.word, found.action) == ("fail", "roll_back")
    assert "NaN of 12 of 12" in found.reason


def test_an_arm_that_burns_alone_is_rolled_back_before_its_bake_and_says_of_what() -> None:
    windows = both(errors=0.3, minutes=range(4))
    found = judged(windows, minutes=4)
    assert (found.word, found.action) == ("fail", "roll_back")
    assert "burns at" in found.reason
    assert found.causes[0]["kind"] == "time-out"


def burning() -> list[Window]:
    """Return the windows of a step in which both models fail."""
    return [*drawn(CHAMPION, requests=200, errors=0.2), *drawn(CHALLENGER, errors=0.2)]


def test_two_arms_that_burn_have_a_common_cause_and_a_person_is_asked() -> None:
    found = judged(burning())
    assert (found.word, found.action, found.asks) == ("hold", "stay", True)
    assert "common cause" in found.reason
    assert found.asks_about[:2] == ("both burn", "champion above errors")


def test_a_common_cause_suspends_at_the_deadline_where_other_holds_abort() -> None:
    late = [dataclasses.replace(one, minute=one.minute + 1400) for one in burning()]
    assert judged(late, minutes=1440).action == "suspend"
    assert "suspended" in judged(late, minutes=1440).asks_about
    found = judged(both(requests=10), minutes=1440)
    assert (found.word, found.action) == ("hold", "abort")
    assert "deadline" in found.reason


def test_a_suspended_release_goes_on_when_the_cause_has_passed_and_ends_when_it_does_not() -> None:
    late = [dataclasses.replace(one, minute=one.minute + 1420) for one in burning()]
    assert judged(late, minutes=1460, suspended=True).action == "stay"
    found = judged(late, minutes=1480, suspended=True)
    assert (found.word, found.action) == ("hold", "resume")
    assert judged(late, minutes=1440 + 60, suspended=True).action == "abort"


def test_a_judge_that_was_away_for_too_long_aborts() -> None:
    found = judged(both(), beat_age=3601)
    assert (found.word, found.action) == ("hold", "abort")
    assert "judge away" in found.reason
    assert judged(both(), beat_age=3600).action == "advance"


def test_a_paused_release_stays_is_rolled_back_all_the_same_and_ends_at_its_deadline() -> None:
    assert judged(both(), paused=True).action == "stay"
    assert judged(both(errors=0.05), paused=True).action == "roll_back"
    assert judged(both(), paused=True, minutes=1440).action == "abort"


def test_a_shadow_plan_waits_for_a_person_until_its_deadline() -> None:
    plan = plan_of(0, kind="shadow")
    found = judged(mirrored(0.0), plan=plan)
    assert (found.word, found.action) == ("pass", "stay")
    assert "a person promotes it" in found.reason
    assert judged(mirrored(0.0), plan=plan, minutes=1440).action == "abort"


@pytest.mark.parametrize("kind", ["first", "direct"])
def test_a_plan_without_steps_promotes_at_once(kind: str) -> None:
    found = judged([], plan=plan_of(kind=kind), nodes=[])
    assert (found.word, found.action) == ("pass", "promote")


def test_a_start_that_ended_without_a_word_holds_and_a_second_one_fails() -> None:
    windows = both()
    lost = [*drawn(CHALLENGER, minutes=range(2), boot="b0")]
    found = judged([*windows, *lost])
    assert (found.word, found.action) == ("hold", "stay")
    assert "n1 has ended without a word" in found.reason
    recounted = [dataclasses.replace(one, closed=True) for one in lost]
    assert judged([*windows, *recounted]).word == "pass"
    again = [*drawn(CHALLENGER, minutes=range(2, 4), boot="b00")]
    found = judged([*windows, *lost, *again])
    assert (found.word, found.action) == ("fail", "roll_back")


def test_a_start_that_was_killed_counts_also_when_it_was_counted_again() -> None:
    once = [*drawn(CHALLENGER, minutes=range(1), boot="b0", unclean=1, closed=True)]
    assert judged([*both(), *once]).word == "pass"
    twice = [*once, *drawn(CHALLENGER, minutes=range(1), boot="b00", unclean=1, closed=True)]
    found = judged([*both(), *twice])
    assert (found.word, found.action) == ("fail", "roll_back")
    assert "n1 was killed 2 times" in found.reason


def test_a_node_that_is_silent_leaves_the_count_while_enough_others_live() -> None:
    nodes = [node_of(), node_of("n2", "c1", living=False)]
    windows = [*both(), *drawn(CHALLENGER, minutes=range(5), node="n2", boot="c1")]
    assert judged(windows, nodes=nodes).word == "pass"
    found = judged(windows, nodes=nodes, plan=plan_of(500, 2500, min_nodes=2))
    assert found.word == "hold"
    assert "1 of 2 node(s)" in found.reason


def unsound(challenger: float) -> list[Window]:
    """Return the windows of a champion that is slow itself, and a challenger of such a share."""
    return [*drawn(CHAMPION, requests=200, slow=0.3), *drawn(CHALLENGER, slow=challenger)]


def test_of_a_champion_above_its_limits_the_challenger_is_judged_by_limits_alone() -> None:
    found = judged(unsound(0.6))
    assert (found.word, found.action, found.asks) == ("fail", "roll_back", True)
    assert "limit is 5.00%" in found.reason
    found = judged([*drawn(CHAMPION, requests=200, slow=0.3), *drawn(CHALLENGER, invalid=0.05)])
    assert (found.word, found.action) == ("fail", "roll_back"), "that limit the champion keeps"
    found = judged(unsound(0.02))
    assert (found.word, found.action, found.asks) == ("pass", "advance", True)
    assert "champion is above its own limit of slow" in found.reason
    assert "scores" not in found.evidence


def test_a_model_as_bad_as_a_champion_above_its_limits_is_held_and_shown_to_a_person() -> None:
    found = judged(unsound(0.3))
    assert (found.word, found.action, found.asks) == ("hold", "stay", True)
    assert found.reason.endswith("the limit is 5.00%, and the champion is above it too")
    assert found.evidence["slow"]["word"] == "hold"
    assert found.asks_about == ("champion above slow", "hold slow")
    late = judged(unsound(0.3), minutes=1440)
    assert (late.word, late.action, late.asks) == ("hold", "abort", True)


@pytest.mark.parametrize("after", range(6))
def test_an_equal_model_is_not_rolled_back_for_an_outage_that_is_over(after: int) -> None:
    times = [(range(30), 0.001), (range(30, 40), 0.5), (range(40, 40 + after), 0.001)]
    windows = [
        window
        for seed, (minutes, errors) in enumerate(times)
        for arm, requests in ((CHAMPION, 285), (CHALLENGER, 15))
        for window in drawn(arm, minutes=minutes, requests=requests, errors=errors, seed=seed)
    ]
    found = judged(windows, minutes=40 + after)
    assert (found.word, found.action, found.asks) == ("hold", "stay", True)


def watched(minutes: float = 60, **champion: Any) -> Decision:
    """Return the decision on a watched release whose model behaves so."""
    plan = plan_of(500)
    release = {name: champion.pop(name) for name in ("champion", "rolled_back_by_itself")
               if name in champion}  # fmt: skip
    windows = [*drawn(CHAMPION, requests=100, step=1, minutes=range(60), **champion)]
    return judged(windows, plan=plan, state="watched", step=1, minutes=minutes, **release)


def test_a_watched_champion_is_settled_when_its_watch_is_over() -> None:
    assert (watched().word, watched().action) == ("pass", "stay")
    assert watched(1440).action == "promote"


def test_a_watched_champion_is_judged_by_its_limits_and_its_slo() -> None:
    assert "limit is 2.00%" in watched(errors=0.04).reason
    assert "burns at" in watched(errors=0.2).reason
    assert watched(errors=0.04).action == "roll_back"


def test_a_watched_release_is_rolled_back_by_itself_only_once_and_only_to_somebody() -> None:
    for why in ({"rolled_back_by_itself": True}, {"champion": None}):
        found = watched(errors=0.04, **why)
        assert (found.word, found.action, found.asks) == ("fail", "stay", True)


def other(**changes: Any) -> Release:
    """Return a release that ended in its steps, an hour after it was requested at the tenth."""
    times = {"started_at": later(600), "entered_at": later(610), "ended_at": later(660)}
    return release_of(plan_of(500), **{"id": "b2", "state": "aborted", **times, **changes})


def watch_beside(minutes: float, *others: Release, **release: Any) -> Decision:
    plan, windows = plan_of(500), list(drawn(CHAMPION, requests=100, step=1))
    mine = release_of(plan, state="watched", step=1, **release)
    beside = [each for each in others if was_beside(mine, each)]
    return judge(mine, plan, windows, [], [], 0.0, later(minutes), beside=beside)


def test_a_watch_passes_nobody_while_the_next_release_is_under_way() -> None:
    for state in ("trying", "running"):
        for minutes in (700, 1500):
            found = watch_beside(minutes, other(state=state, ended_at=None))
            assert (found.word, found.action, found.ends_at) == ("hold", "stay", None)
            assert "not seen since 2026-03-05 20:00: release b2 is under way" in found.reason


def test_a_watch_that_is_over_says_what_it_has_not_seen() -> None:
    seen = watch_beside(1500)
    assert (seen.word, seen.action, seen.asks) == ("pass", "promote", False)
    found = watch_beside(1500, other())
    assert (found.word, found.action, found.asks) == ("hold", "promote", True)
    assert found.reason == (
        "its watch is over; not seen from 2026-03-05 20:00 to 2026-03-05 21:00: release b2 was "
        "under way"
    )
    assert watch_beside(700, other()).action == "stay"


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "a1"},
        {"state": "waiting", "ended_at": None},
        {"state": "superseded"},
        {"entered_at": later(600)},
        {"started_at": later(-90), "entered_at": later(-80), "ended_at": later(-5)},
    ],
)
def test_what_only_waited_or_was_over_before_took_nothing_from_the_watch(
    changes: dict[str, Any],
) -> None:
    assert watch_beside(1500, other(**changes)).word == "pass"


def test_a_watch_in_which_nobody_asked_anything_was_not_passed() -> None:
    found = judged([], plan=plan_of(500), state="watched", step=1, minutes=1500)
    assert (found.word, found.action, found.asks) == ("hold", "promote", False)
    assert found.reason == "its watch is over; nobody asked it anything"


def test_parity_and_auc_count_where_they_are_given() -> None:
    asked = np.full(64, 30.0)
    differing = Tally(np.arange(64) % 3 * 2.0, asked)
    assert "parity" in judged(both(), offline=Offline(parity=differing)).reason
    assert judged(both(), offline=Offline(parity=Tally(asked * 0, asked))).word == "pass"
    lost = Ratio(np.float64(0.08), np.float64(0.01), np.float64(60))
    assert "auc" in judged(both(), offline=Offline(auc=lost)).reason
    gained = lost._replace(value=np.float64(-0.08))
    assert judged(both(), offline=Offline(auc=gained)).word == "pass"


def test_a_release_whose_model_a_node_loads_no_more_is_aborted_at_once() -> None:
    refused = dataclasses.replace(
        node_of(), role="challenger", version=2, state="refused", reason="its key k1 is revoked"
    )
    found = judged(both(), minutes=1, nodes=[node_of(), refused])
    assert (found.word, found.action, found.asks) == ("hold", "abort", True)
    assert found.reason == "n1 refuses it: its key k1 is revoked"


@pytest.mark.parametrize(
    "changes",
    [{"living": False}, {"version": 3}, {"state": "could_not"}, {"role": "previous"}],
)
def test_no_other_report_of_a_node_aborts_a_release(changes: dict[str, Any]) -> None:
    report = dataclasses.replace(node_of(), role="challenger", version=2, state="refused")
    found = judged(both(), nodes=[node_of(), dataclasses.replace(report, **changes)])
    assert (found.word, found.action) == ("pass", "advance")
