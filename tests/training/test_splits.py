"""Parts of a training: no moment divided, an embargo, boundaries that never move back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from include.config.use_case_model import Split
from include.training import splits

DAY = 86_400_000_000


def divided(
    moments: Any, split: Split | None = None, **options: Any
) -> tuple[splits.Boundaries, Any]:
    """Return the boundaries and the parts of decisions by time."""
    split = split or Split()
    how = splits.boundaries(moments, split, **options)
    return how, splits.assign([0] * len(moments), moments, split, 7, how)


def test_a_moment_is_never_divided_and_parts_follow_in_time_by_shares_of_the_rows() -> None:
    moments = np.repeat(np.arange(370, dtype=np.int64) ** 2, 5)
    how, parts = divided(moments)
    assert how.by == "time"
    assert all(len(set(parts[moments == moment].tolist())) == 1 for moment in np.unique(moments))
    assert (np.diff(parts) >= 0).all()
    assert np.bincount(parts) / len(parts) == pytest.approx([0.6, 0.2, 0.2], abs=0.004)


def test_a_boundary_is_the_first_moment_that_begins_at_or_after_its_row() -> None:
    # The eighth row begins the moment, the ninth does not.
    moments = np.array([0, 1, 2, 3, 4, 5, 6, 7, 7, 7], dtype=np.int64)
    assert divided(moments, Split(evaluation=0.3))[0].evaluation_from == 7
    assert divided(np.append(moments, [8, 9]), Split(evaluation=0.3))[0].evaluation_from == 8


def test_the_embargo_belongs_to_no_part_and_the_rest_is_divided_in_proportion() -> None:
    moments = np.arange(100, dtype=np.int64) * DAY
    how, parts = divided(moments, embargo=timedelta(days=10))
    assert (how.evaluation_from, how.tune_until) == (80 * DAY, 70 * DAY)
    assert moments[parts == splits.NO_PART].tolist() == moments[70:80].tolist()
    # A quarter of what is left is tune.
    assert np.bincount(parts[parts >= 0]).tolist() == [53, 17, 20]
    assert how.tune_from == 53 * DAY
    assert (divided(moments, embargo=timedelta(0))[1] >= 0).all()
    by_hash = Split(by="hash")
    hashed = splits.boundaries(moments, by_hash, embargo=timedelta(days=10))
    assert (splits.assign(list(range(100)), moments, by_hash, 7, hashed) >= 0).all()


def test_an_outcome_known_right_at_the_first_judged_decision_is_embargoed() -> None:
    moments = np.arange(100, dtype=np.int64) * DAY
    parts = divided(moments, embargo=timedelta(days=1))[1]
    assert parts[78:81].tolist() == [1, splits.NO_PART, 2]
    assert divided(moments, embargo=timedelta(days=1) - timedelta(microseconds=1))[1][
        78:81
    ].tolist() == [1, 1, 2]


def test_the_embargo_is_the_delay_but_at_most_a_tenth_of_the_span_where_none_is_stated() -> None:
    moments = np.arange(1000, dtype=np.int64) * DAY
    assert divided(moments, delay=timedelta(days=33))[0].tune_until == (800 - 33) * DAY
    how = divided(moments, delay=timedelta(days=700))[0]
    assert how.tune_until == 725 * DAY, (
        "a tenth of what lies between the fiftieth decision and the first judged"
    )


def test_one_row_of_long_ago_changes_neither_parts_nor_embargo() -> None:
    """10,000 decisions of 90 days were divided 1 : 1 : 9,999 by one more of five years before,
    and training ended for good.
    """
    moments = np.sort(np.random.default_rng(2).integers(0, 90 * 86_400, 10_000)) * 1_000_000
    delay = timedelta(days=60)
    before, parts = divided(moments, delay=delay)
    old = np.insert(moments, 0, -1800 * DAY)
    after, more = divided(old, delay=delay)
    for name in ("tune_from", "tune_until", "evaluation_from"):
        assert abs(getattr(before, name) - getattr(after, name)) < DAY // 4
    assert np.bincount(parts[parts >= 0]) == pytest.approx(np.bincount(more[more >= 0]), abs=30)


def test_an_embargo_longer_than_the_history_leaves_a_moment_to_each_part() -> None:
    moments = np.repeat(np.arange(10, dtype=np.int64) * DAY, 3)
    parts = divided(moments, embargo=timedelta(days=400))[1]
    assert parts.tolist() == [0] * 3 + [1] * 3 + [splits.NO_PART] * 18 + [2] * 6


@pytest.mark.parametrize(
    "shares", [(0.2, 0.2), (0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (0.05, 0.3), (0.9, 0.31)]
)
@pytest.mark.parametrize("embargo", [None, timedelta(0), timedelta(days=9)])
def test_boundaries_only_move_forward_as_decisions_are_added_at_the_end_and_no_part_is_empty(
    shares: tuple[float, float], embargo: timedelta | None
) -> None:
    split = Split(by="time", tune=shares[0], evaluation=shares[1])
    for seed in range(12):
        draw = np.random.default_rng(seed)
        # Ties, bursts and long gaps.
        steps = draw.integers(0, draw.choice([2, 5, 30]), 70) * draw.choice([1, 1, 1, 400], 70)
        moments = np.cumsum(steps).astype(np.int64) * DAY
        last = (-1, -1, -1)
        for count in range(1, 70):
            given = draw.permutation(moments[:count])
            how = splits.boundaries(given, split, embargo=embargo, delay=timedelta(days=20))
            if how.reason:
                assert len(np.unique(given)) < 3
                continue
            found = (how.tune_from or 0, how.tune_until or 0, how.evaluation_from or 0)
            assert all(now >= before for now, before in zip(found, last, strict=True))
            last = found
            parts = splits.assign([0] * count, given, split, 7, how)
            assert {0, 1, 2} <= set(parts.tolist())
            assert all(len(set(parts[given == moment].tolist())) == 1 for moment in given)


def test_two_moments_are_too_few_for_a_split_by_time() -> None:
    assert "only 2 different times" in splits.boundaries(np.array([1, 1, 2]), Split()).reason
    assert splits.boundaries(np.array([1, 1, 1]), Split()) == splits.Boundaries("hash")
    assert splits.boundaries(np.array([], dtype=np.int64), Split()).by == "hash"
    assert (
        "only 0 different times"
        in splits.boundaries(np.array([], dtype=np.int64), Split(by="time")).reason
    )


def test_the_hash_split_is_fixed_for_an_entity_and_has_its_shares() -> None:
    entities = [f"e{number}" for number in range(20_000)]
    moments = np.zeros(len(entities), dtype=np.int64)
    how = splits.boundaries(moments, Split())
    parts = splits.assign(entities, moments, Split(), 7, how)
    assert np.bincount(parts) / len(parts) == pytest.approx([0.6, 0.2, 0.2], abs=0.01)
    fewer = splits.assign(entities[5_000:], moments[5_000:], Split(), 7, how)
    assert (parts[5_000:] == fewer).all()
    assert (splits.assign(entities, moments, Split(), 8, how) != parts).any()
    integers = splits.hash_shares([1, 2], 7)
    assert integers.tolist() == splits.hash_shares(["1", "2"], 7).tolist()


def test_thinning_keeps_the_same_rows_whatever_their_order() -> None:
    entities, moments = list(range(500)), np.arange(500, dtype=np.int64) % 7
    kept = splits.subsample(entities, moments, limit=100, seed=7)
    order = np.random.default_rng(1).permutation(500)
    shuffled = splits.subsample(
        [entities[index] for index in order], moments[order], limit=100, seed=7
    )
    assert len(kept) == 100
    assert set(kept.tolist()) == {entities[order[index]] for index in shuffled}
