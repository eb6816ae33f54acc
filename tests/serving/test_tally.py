"""What is counted of one request, and what comes of it in the records' form."""

from __future__ import annotations

import math

import pytest

from include.predictions.window_counts import (
    ABOVE,
    DECISIONS_DIFFER,
    DIFFERENCE_SQUARES,
    DIFFERENCE_SUM,
    ERRORS,
    INVALID,
    PAIRED,
    REQUESTS,
    SCORE_SQUARES,
    SCORE_SUM,
    SCORED,
    SLOW,
    TIME_BOUNDS,
    TIMED,
    Counts,
    add,
    entity_count,
)
from include.serving.tally import (
    INVALID_SCORE,
    MAX_LACKS,
    MAX_NAME,
    NOT_THE_MODELS,
    Recent,
    Tally,
)

PLACE = (3, 77)


def taken(
    score: float | None = 0.25,
    micros: int | None = 100,
    *,
    above: bool = False,
    error: str | None = None,
    lacks: str | None = None,
    own: bool = True,
) -> tuple[Counts, Recent]:
    """Return what is counted of a request."""
    tally, recent = Tally(), Recent()
    tally.take([(PLACE, score, micros, above, error, lacks)], 1000, recent, own=own)
    return tally.counts(), recent


def test_an_answer_is_counted_in_the_cluster_of_its_entity() -> None:
    counts, recent = taken(0.2506, 1001, above=True)
    row = counts.clusters[PLACE[0]]
    assert sum(map(sum, counts.clusters)) == sum(row)
    assert (row[REQUESTS], row[SCORED], row[TIMED], row[ABOVE], row[SLOW]) == (1, 1, 1, 1, 1)
    assert (row[SCORE_SUM], row[SCORE_SQUARES]) == (251, 251 * 251)
    assert (row[ERRORS], row[INVALID]) == (0, 0)
    assert entity_count(counts) == pytest.approx(1, rel=0.01)
    assert counts.score_bins[5] == sum(counts.score_bins) == 1
    assert recent == Recent(1, 0, 1, 1, {77}, set(), {77})


@pytest.mark.parametrize(
    ("score", "place"), [(0.0, 0), (0.049, 0), (0.05, 1), (0.9999, 19), (1.0, 19), (1.7, 19)]
)
def test_scores_fall_into_twenty_equal_bins(score: float, place: int) -> None:
    assert taken(score)[0].score_bins[place] == 1


@pytest.mark.parametrize(
    ("micros", "place"),
    [(0, 0), (10, 0), (11, 1), (TIME_BOUNDS[7], 7), (10**8, len(TIME_BOUNDS))],
)
def test_a_time_is_in_the_bin_whose_bound_it_does_not_exceed(micros: int, place: int) -> None:
    assert taken(micros=micros)[0].time_bins[place] == 1


def test_an_answer_as_slow_as_the_limit_is_not_slow() -> None:
    assert taken(micros=1000)[0].column(SLOW) == 0


@pytest.mark.parametrize("score", [None, math.nan, math.inf])
def test_what_is_no_score_is_in_no_sum_of_scores(score: float | None) -> None:
    counts, recent = taken(score, None, above=True, error=INVALID_SCORE)
    row = counts.clusters[PLACE[0]]
    assert (row[REQUESTS], row[ERRORS], row[INVALID]) == (1, 1, 1)
    assert (row[SCORED], row[ABOVE], row[TIMED], row[SCORE_SUM]) == (0, 0, 0, 0)
    assert sum(counts.score_bins) == sum(counts.time_bins) == 0
    assert recent.failed == {77}
    assert counts.error_kinds == {INVALID_SCORE: 1}


@pytest.mark.parametrize("reason", sorted(NOT_THE_MODELS))
def test_what_no_model_can_cause_is_told_and_is_no_error(reason: str) -> None:
    counts, recent = taken(error=reason, lacks="income")
    assert counts.column(ERRORS) == recent.errors == 0
    assert counts.error_kinds == {reason: 1}
    assert counts.lacks == {"income": 1}


@pytest.mark.parametrize(
    ("own", "score", "error", "count"),
    [
        (True, 0.5, None, 1),
        (True, None, "model_failed", 1),
        (True, math.nan, INVALID_SCORE, 1),
        (True, None, None, 0),  # scored without its features
        (True, None, "store_away", 0),
        (False, 0.5, "store_away", 0),  # the champion's score
        (False, 0.5, "model_late", 1),
    ],
)
def test_an_entity_counts_where_something_is_known_of_the_arms_own_model(
    own: bool, score: float | None, error: str | None, count: int
) -> None:
    counts, recent = taken(score, error=error, own=own)
    assert entity_count(counts) == pytest.approx(count, rel=0.01)
    assert recent.entities == {77}, "who asked is a coin of the assignment all the same"


def test_how_long_another_arm_took_in_its_place_is_none_of_its_slow_answers() -> None:
    counts, recent = taken(0.5, 1001, error="model_late", own=False)
    assert (counts.column(TIMED), counts.column(SLOW)) == (1, 1)
    assert (recent.timed, recent.slow, recent.late) == (0, 0, set())
    assert recent.failed == {77}


def test_pairs_are_differences_by_cluster() -> None:
    tally = Tally()
    assert tally.counts().pairs == []
    tally.take_pair(5, 0.3, 0.7, differ=True)
    tally.take_pair(5, 0.5, 0.4, differ=False)
    row = tally.counts().pairs[5]
    assert (row[PAIRED], row[DECISIONS_DIFFER]) == (2, 1)
    assert (row[DIFFERENCE_SUM], row[DIFFERENCE_SQUARES]) == (-300, 170_000)


def test_two_windows_add_as_their_counts_do() -> None:
    parts = []
    for number in range(2):
        tally, recent = Tally(), Recent()
        for bit in range(20):
            place = (bit % 5, bit + 10 * number)
            error = "late" if bit > 17 else None
            tally.take([(place, bit / 20, bit, bit > 9, error, "x")], 9, recent)
            tally.take_pair(bit % 5, bit / 20, 0.5, differ=bit > 9)
        tally.dropped, tally.fallbacks = number, 2
        parts.append(tally)
    expected = add(parts[0].counts(), parts[1].counts())
    alone = Tally()
    alone.add(parts[1])
    assert alone.counts() == parts[1].counts()
    parts[0].add(parts[1])
    assert parts[0].counts() == expected
    assert alone.counts() == parts[1].counts()


def test_a_process_that_names_another_feature_each_time_fills_no_memory() -> None:
    tally = Tally()
    for number in range(1000):
        lacks = f"{number}" * 1000
        tally.take([(PLACE, 0.5, None, False, None, lacks)], 1000, Recent())
    lacked = tally.counts().lacks
    assert sum(lacked.values()) == 1000
    assert len(lacked) == MAX_LACKS + 1
    assert max(map(len, lacked)) == MAX_NAME
