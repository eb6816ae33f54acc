"""The point-in-time join against a brute-force one: restated rows, ties, unknown keys, duplicates, boundaries."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from include.asof_join import MATCHED, as_of_join
from include.errors import EvergreenError
from include.lake import TIMESTAMP, connect

T0 = datetime(2025, 1, 10, tzinfo=UTC)
US = timedelta(microseconds=1)
DAY = timedelta(days=1)
Row = tuple[object, datetime, datetime, object, object]
INT = pa.int64()


def features_table(rows: list[Row], key_type: pa.DataType = INT) -> pa.Table:
    keys, events, createds, numbers, texts = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    return pa.table(
        {
            "id": pa.array(keys, key_type),
            "event_timestamp": pa.array(events, TIMESTAMP),
            "created_timestamp": pa.array(createds, TIMESTAMP),
            "number": pa.array(numbers, pa.int64()),
            "text": pa.array(texts, pa.string()),
        }
    )


def spine_table(rows: list[tuple[object, datetime]], key_type: pa.DataType = INT) -> pa.Table:
    return pa.table(
        {"id": pa.array([key for key, _ in rows], key_type), "event_timestamp": pa.array([t for _, t in rows], TIMESTAMP)}
    )


def joined(spine: pa.Table, features: pa.Table, ttl: timedelta | None = None) -> list[tuple[object, object, object]]:
    with connect() as con:
        con.register("f", features)
        found = as_of_join(con, spine, "f", key="id", ttl=ttl, matched=True)
    return list(zip(*(found.column(name).to_pylist() for name in ("number", "text", MATCHED)), strict=True))


def brute_force(spine: pa.Table, features: pa.Table, ttl: timedelta | None) -> list[tuple[object, object, object]]:
    rows = features.to_pylist()
    answers: list[tuple[object, object, object]] = []
    for asked in spine.to_pylist():
        moment = asked["event_timestamp"]
        seen = [
            row
            for row in rows
            if row["id"] == asked["id"] and row["event_timestamp"] <= moment and row["created_timestamp"] <= moment
        ]
        best = max(
            seen,
            key=lambda row: (
                row["event_timestamp"],
                row["created_timestamp"],
                (row["number"] is not None, row["number"] or 0),
                (row["text"] is not None, row["text"] or ""),
            ),
            default=None,
        )
        if best is None or (ttl is not None and moment - best["event_timestamp"] > ttl):
            answers.append((None, None, None))
        else:
            answers.append((best["number"], best["text"], best["event_timestamp"]))
    return answers


@pytest.mark.parametrize("ttl", [None, timedelta(0), timedelta(hours=7), timedelta(days=3)])
@pytest.mark.parametrize("seed", range(4))
def test_equals_brute_force(seed: int, ttl: timedelta | None) -> None:
    """Restatements, late rows, ties in one or both times, unknown keys and duplicate spine rows, all at once."""
    draw = random.Random(seed)

    def some_moment() -> datetime:
        return T0 + timedelta(hours=draw.randrange(0, 96)) + draw.choice([-US, 0 * US, US])

    rows: list[Row] = []
    for _ in range(400):
        event = some_moment()
        created = draw.choice([event, event + timedelta(hours=draw.randrange(0, 40)), event - timedelta(hours=draw.randrange(5))])
        rows.append((draw.randrange(12), event, created, draw.choice([None, draw.randrange(5)]), draw.choice([None, "a", "b"])))
    rows += rows[:20]
    spine = spine_table([(draw.choice([*range(14), None]), some_moment()) for _ in range(300)])
    assert joined(spine, features_table(rows), ttl) == brute_force(spine, features_table(rows), ttl)


@pytest.mark.parametrize("ttl", [None, timedelta(0), timedelta(hours=7), timedelta(days=3)])
@pytest.mark.parametrize("seed", range(3))
def test_equals_brute_force_where_all_ask_about_one_moment(seed: int, ttl: timedelta | None) -> None:
    draw = random.Random(seed)
    rows: list[Row] = []
    for _ in range(120):
        event = T0 + timedelta(hours=draw.randint(0, 40))
        created = event + draw.choice([timedelta(0), US, timedelta(hours=draw.randint(-5, 30))])
        rows.append((draw.randint(1, 9), event, created, draw.choice([None, 1, 2]), draw.choice([None, "a", "b"])))
    for hours in (0, 7, 20, 33):
        moment = T0 + timedelta(hours=hours)
        spine = spine_table([(draw.choice([*range(1, 12), None]), moment) for _ in range(30)])
        assert joined(spine, features_table(rows), ttl) == brute_force(spine, features_table(rows), ttl)


def test_a_value_restated_later_is_not_seen_earlier() -> None:
    features = features_table([(1, T0, T0, 10, "x"), (1, T0, T0 + 10 * DAY, 999, "x")])
    spine = spine_table([(1, T0 + DAY), (1, T0 + 10 * DAY - US), (1, T0 + 10 * DAY)])
    assert [row[0] for row in joined(spine, features)] == [10, 10, 999]


def test_a_late_older_event_does_not_replace_a_newer_one() -> None:
    features = features_table([(1, T0, T0, 2, "new"), (1, T0 - DAY, T0 + DAY, 1, "late")])
    assert [row[0] for row in joined(spine_table([(1, T0 + 2 * DAY), (1, T0 - US)]), features)] == [2, None]


@pytest.mark.parametrize(("shift", "seen"), [(-US, None), (0 * US, 7), (US, 7)])
def test_both_times_are_cut_at_the_microsecond(shift: timedelta, seen: int | None) -> None:
    for event, created in ((T0, T0), (T0 - DAY, T0)):
        assert joined(spine_table([(1, T0 + shift)]), features_table([(1, event, created, 7, "x")]))[0][0] == seen


@pytest.mark.parametrize(("shift", "seen"), [(-US, 7), (0 * US, 7), (US, None)])
def test_ttl_ends_after_its_last_microsecond(shift: timedelta, seen: int | None) -> None:
    features = features_table([(1, T0, T0, 7, "x")])
    assert joined(spine_table([(1, T0 + 3 * DAY + shift)]), features, 3 * DAY)[0][0] == seen


def test_rows_in_are_rows_out_in_order() -> None:
    """Unknown keys, keys with only future features, duplicates and text keys: five rows in, five out."""
    features = features_table([("a", T0, T0, 1, "x"), ("b", T0 + DAY, T0 + DAY, 2, "x")], pa.string())
    spine = spine_table([("b", T0), ("a", T0), ("zz", T0), ("a", T0), (None, T0)], pa.string())
    assert [row[0] for row in joined(spine, features)] == [None, 1, None, 1, None]


def test_nanoseconds_round_down() -> None:
    """A moment 999 ns before a feature row must not see it."""
    nanos = np.array([int(T0.timestamp()) * 10**9 - 1, int(T0.timestamp()) * 10**9 + 1])
    spine = pa.table({"id": pa.array([1, 1]), "event_timestamp": pa.array(nanos, pa.timestamp("ns", tz="UTC"))})
    assert [row[0] for row in joined(spine, features_table([(1, T0, T0, 7, "x")]))] == [None, 7]


def test_empty_sides() -> None:
    assert joined(spine_table([]), features_table([(1, T0, T0, 7, "x")])) == []
    assert joined(spine_table([(1, T0)]), features_table([])) == [(None, None, None)]


def test_a_row_without_a_moment_is_refused() -> None:
    spine = pa.table({"id": pa.array([1]), "event_timestamp": pa.array([None], TIMESTAMP)})
    with pytest.raises(EvergreenError, match="no event_timestamp"):
        joined(spine, features_table([(1, T0, T0, 7, "x")]))
