"""Sums of a minute: they add in any order, stand as JSON, and say how many entities there were."""

from __future__ import annotations

import json
import random
from functools import reduce

import pytest

from include.predictions.window_counts import (
    CLUSTERS,
    COLUMNS,
    ENTITY_BITS,
    ERRORS,
    PAIR_COLUMNS,
    REQUESTS,
    SCORE_SUM,
    SCORED,
    TIME_BOUNDS,
    TIMED,
    Counts,
    add,
    entity_count,
    place_of,
    total,
)

KEY = bytes(range(16))


def filled(seed: int, *, pairs: bool = False) -> Counts:
    """Return counts of made-up numbers in each field."""
    draw = random.Random(seed)
    counts = Counts()
    counts.clusters = [[draw.randrange(1000) for _ in range(COLUMNS)] for _ in range(CLUSTERS)]
    for row in counts.clusters:
        for whole in (REQUESTS, SCORED, TIMED):
            row[whole] += 1000  # there are more requests than bad ones
    counts.error_kinds = {draw.choice(["deadline", "invalid", "dead"]): draw.randrange(9)}
    counts.lacks, counts.dropped, counts.fallbacks = {"income": seed}, seed, 2 * seed
    counts.unclean = seed % 2
    counts.time_bins = [draw.randrange(99) for _ in range(len(TIME_BOUNDS) + 1)]
    counts.score_bins = [draw.randrange(99) for _ in counts.score_bins]
    counts.entities = draw.randbytes(ENTITY_BITS // 8)
    if pairs:
        counts.pairs = [[draw.randrange(-9, 9)] * PAIR_COLUMNS for _ in range(CLUSTERS)]
    return counts


def seen(names: range) -> Counts:
    """Return counts of entities alone."""
    bits = 0
    for name in names:
        bits |= 1 << place_of(KEY, str(name))[1]
    return Counts(entities=bits.to_bytes(ENTITY_BITS // 8, "little"))


def test_sums_are_the_same_in_any_order_and_change_nothing() -> None:
    parts = [filled(seed, pairs=seed % 2 == 0) for seed in range(6)]
    before = [part.plain() for part in parts]
    forth = total(parts)
    back = reduce(lambda left, right: add(right, left), reversed(parts))
    assert forth == back == add(total(parts[:2]), total(parts[2:]))
    assert forth.column(REQUESTS) == sum(part.column(REQUESTS) for part in parts)
    assert forth.dropped == 15
    assert forth.unclean == 3
    assert forth.fallbacks == 30
    assert forth.lacks == {"income": 15}
    assert forth.pairs[3] == [sum(part.pairs[3][0] for part in parts[::2])] * PAIR_COLUMNS
    forth.clusters[0][ERRORS] += 1
    forth.pairs[0][0] += 1
    assert [part.plain() for part in parts] == before


def test_nothing_adds_nothing() -> None:
    part = filled(7, pairs=True)
    sums = add(part, Counts())
    assert sums == part
    assert sums.pairs[0] is not part.pairs[0]
    assert total([]) == Counts()
    assert entity_count(Counts()) == 0


def test_what_is_written_as_json_is_read_back() -> None:
    for part in (Counts(), filled(3), filled(4, pairs=True)):
        assert Counts.read(json.loads(json.dumps(part.plain()))) == part


@pytest.mark.parametrize(
    "change",
    [
        {"clusters": [[0] * COLUMNS]},
        {"clusters": [[0] * (COLUMNS - 1)] * CLUSTERS},
        {"time_bins": [1, 2]},
        {"entities": "AAAA"},
        {"pairs": [[0] * PAIR_COLUMNS]},
        {"of_later": 1},
    ],
)
def test_counts_of_another_form_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^(Expected|Invalid|Object|pairs)"):
        Counts.read(Counts().plain() | change)


@pytest.mark.parametrize("count", [20, 100, 1000, 5000])
def test_entities_are_counted_within_a_few_percent_however_often_they_come(count: int) -> None:
    both = add(seen(range(count)), seen(range(count // 2, count)))
    assert entity_count(both) == pytest.approx(count, rel=0.05)


def test_a_full_bitmap_is_many_and_no_error() -> None:
    assert entity_count(Counts(entities=b"\xff" * (ENTITY_BITS // 8))) > 15_000


def test_clusters_are_filled_alike_and_hold_of_one_release_alone() -> None:
    clusters = [place_of(KEY, str(name))[0] for name in range(6400)]
    sizes = [clusters.count(cluster) for cluster in range(CLUSTERS)]
    assert min(sizes) > 60
    assert max(sizes) < 145
    assert clusters == [place_of(KEY, str(name))[0] for name in range(6400)]
    others = [place_of(KEY[::-1], str(name))[0] for name in range(6400)]
    agree = sum(a == b for a, b in zip(clusters, others, strict=True))
    assert agree < 170  # 100 by chance
    assert place_of(KEY, "\ud800") == place_of(KEY, "\ud800")  # whatever text it is


def test_time_bounds_ascend_from_a_fast_model_to_seconds() -> None:
    assert list(TIME_BOUNDS) == sorted(set(TIME_BOUNDS))
    assert TIME_BOUNDS[0] == 10
    assert 2_000_000 < TIME_BOUNDS[-1] < 5_000_000
    assert Counts().clusters[0][SCORE_SUM] == 0
