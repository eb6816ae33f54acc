"""The point-in-time join against a brute-force one: restated rows, ties, duplicates, boundaries."""

from __future__ import annotations

import dataclasses
import random
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from include.config.durations import period_start
from include.errors import EvergreenError
from include.lake.sql import TIMESTAMP, connect
from include.point_in_time.expiry import Calendar
from include.point_in_time.join import MATCHED, as_of_join

T0 = datetime(2025, 1, 10, tzinfo=UTC)
US = timedelta(microseconds=1)
DAY = timedelta(days=1)
Row = tuple[object, datetime, datetime, object, object]
INT = pa.int64()


def features_table(rows: list[Row], key_type: pa.DataType = INT) -> pa.Table:
    keys, events, createds, numbers, texts = (
        zip(*rows, strict=True) if rows else ((), (), (), (), ())
    )
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
        {
            "id": pa.array([key for key, _ in rows], key_type),
            "event_timestamp": pa.array([t for _, t in rows], TIMESTAMP),
        }
    )


def joined(
    spine: pa.Table,
    features: pa.Table,
    ttl: timedelta | None = None,
    calendar: Calendar | None = None,
    own: bool = False,
) -> list[tuple[object, object, object]]:
    with connect() as con:
        con.register("f", features)
        found = as_of_join(
            con, spine, "f", key="id", ttl=ttl, calendar=calendar, matched=True, own=own
        )
    return list(
        zip(*(found.column(name).to_pylist() for name in ("number", "text", MATCHED)), strict=True)
    )


def horizon(moment: datetime, calendar: Calendar | None) -> datetime:
    """Return the newest as_of at or before a moment, found by walking from period to period."""
    if calendar is None:
        return moment
    ends, start = (
        [],
        datetime(calendar.first.year, calendar.first.month, calendar.first.day, tzinfo=UTC),
    )
    while calendar.last is None or start.date() <= calendar.last:
        if calendar.cadence == "month":
            start = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
        else:
            start += (7 if calendar.cadence == "week" else 1) * DAY
        if start + calendar.cut_off > moment:
            break
        ends.append(start + calendar.cut_off)
    return max(ends, default=moment)


def brute_force(
    spine: pa.Table,
    features: pa.Table,
    ttl: timedelta | None,
    calendar: Calendar | None = None,
    own: bool = False,
) -> list[tuple[object, object, object]]:
    rows = features.to_pylist()
    answers: list[tuple[object, object, object]] = []
    for asked in spine.to_pylist():
        moment = asked["event_timestamp"]
        seen = [
            row
            for row in rows
            if row["id"] == asked["id"]
            and row["event_timestamp"] <= moment
            and row["created_timestamp"] <= moment
        ]
        if own and not any(row["event_timestamp"] == moment for row in seen):
            came = [
                row for row in rows if row["id"] == asked["id"] and row["event_timestamp"] == moment
            ]
            first = min((row["created_timestamp"] for row in came), default=None)
            seen += [row for row in came if row["created_timestamp"] == first]
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
        if best is None or (
            ttl is not None and horizon(moment, calendar) - best["event_timestamp"] > ttl
        ):
            answers.append((None, None, None))
        else:
            answers.append((best["number"], best["text"], best["event_timestamp"]))
    return answers


CALENDARS = [
    None,
    Calendar("day", timedelta(0), date(2025, 1, 11), None),
    Calendar("day", timedelta(hours=5, microseconds=1), date(2025, 1, 1), date(2025, 1, 11)),
    Calendar("week", timedelta(hours=-30), date(2024, 12, 30), None),
]


@pytest.mark.parametrize("ttl", [None, timedelta(0), timedelta(hours=7), timedelta(days=3)])
@pytest.mark.parametrize(("seed", "own"), [(0, False), (1, False), (2, True), (3, True)])
def test_equals_brute_force(seed: int, own: bool, ttl: timedelta | None) -> None:
    """Restatements, late rows, ties in one or both times, unknown keys, duplicates, all at once."""
    draw = random.Random(seed)

    def some_moment() -> datetime:
        return T0 + timedelta(hours=draw.randrange(0, 96)) + draw.choice([-US, 0 * US, US])

    rows: list[Row] = []
    for _ in range(400):
        event = some_moment()
        created = draw.choice(
            [
                event,
                event + timedelta(hours=draw.randrange(0, 40)),
                event - timedelta(hours=draw.randrange(5)),
            ]
        )
        rows.append(
            (
                draw.randrange(12),
                event,
                created,
                draw.choice([None, draw.randrange(5)]),
                draw.choice([None, "a", "b"]),
            )
        )
    rows += rows[:20]
    spine = spine_table([(draw.choice([*range(14), None]), some_moment()) for _ in range(300)])
    for calendar in CALENDARS:
        expected = brute_force(spine, features_table(rows), ttl, calendar, own)
        assert joined(spine, features_table(rows), ttl, calendar, own) == expected


@pytest.mark.parametrize("ttl", [None, timedelta(0), timedelta(hours=7), timedelta(days=3)])
@pytest.mark.parametrize("seed", range(3))
def test_equals_brute_force_where_all_ask_about_one_moment(
    seed: int, ttl: timedelta | None
) -> None:
    draw = random.Random(seed)
    rows: list[Row] = []
    for _ in range(120):
        event = T0 + timedelta(hours=draw.randint(0, 40))
        created = event + draw.choice([timedelta(0), US, timedelta(hours=draw.randint(-5, 30))])
        rows.append(
            (
                draw.randint(1, 9),
                event,
                created,
                draw.choice([None, 1, 2]),
                draw.choice([None, "a", "b"]),
            )
        )
    for hours in (0, 7, 20, 33):
        moment = T0 + timedelta(hours=hours)
        spine = spine_table([(draw.choice([*range(1, 12), None]), moment) for _ in range(30)])
        for calendar in CALENDARS:
            assert joined(spine, features_table(rows), ttl, calendar) == brute_force(
                spine, features_table(rows), ttl, calendar
            )


@pytest.mark.parametrize(
    ("cadence", "cut_off"), [("day", 0), ("week", 3), ("month", 3), ("month", 0)]
)
def test_a_ttl_counts_from_the_newest_as_of_before_the_decision(cadence: str, cut_off: int) -> None:
    """A month's row of ttl 35 d is alive in all of the next month, and dead from then on."""
    calendar = Calendar(cadence, cut_off * DAY, date(2024, 12, 1), None)
    draw = random.Random(cut_off)
    for _ in range(200):
        moment = (
            T0 + timedelta(minutes=draw.randrange(60 * 24 * 150)) + draw.choice([-US, 0 * US, US])
        )
        assert calendar.horizon(moment) == horizon(
            moment, dataclasses.replace(calendar, first=period_start(cadence, calendar.first))
        )
    for moment in (
        datetime(2025, 3, 1, tzinfo=UTC) + cut_off * DAY,
        datetime(2025, 11, 10, tzinfo=UTC),
    ):
        assert calendar.horizon(moment) <= moment
    monthly = Calendar("month", timedelta(0), date(2025, 1, 1), None)
    features = features_table(
        [(1, datetime(2025, 10, 1, tzinfo=UTC), datetime(2025, 10, 1, tzinfo=UTC), 7, "x")]
    )
    asked = [
        datetime(2025, 11, 10, tzinfo=UTC),
        datetime(2025, 12, 1, tzinfo=UTC) - US,
        datetime(2025, 12, 1, tzinfo=UTC),
    ]
    found = joined(spine_table([(1, moment) for moment in asked]), features, 35 * DAY, monthly)
    assert [row[0] for row in found] == [7, 7, None]


def test_a_decisions_own_row_is_known_though_it_arrived_later() -> None:
    """The request brought its first version.

    A correction, and a row of another moment, are known when they arrived.
    """
    rows: list[Row] = [
        (1, T0, T0 + 6 * timedelta(hours=1), 1, "first"),
        (1, T0, T0 + DAY, 2, "corrected"),
    ]
    rows.append((1, T0 - DAY, T0 - DAY, 0, "before"))
    spine = spine_table([(1, T0), (1, T0 + US), (1, T0 + 2 * DAY)])
    assert [row[1] for row in joined(spine, features_table(rows), own=True)] == [
        "first",
        "before",
        "corrected",
    ]
    assert [row[1] for row in joined(spine, features_table(rows))] == [
        "before",
        "before",
        "corrected",
    ]


def test_a_value_restated_later_is_not_seen_earlier() -> None:
    features = features_table([(1, T0, T0, 10, "x"), (1, T0, T0 + 10 * DAY, 999, "x")])
    spine = spine_table([(1, T0 + DAY), (1, T0 + 10 * DAY - US), (1, T0 + 10 * DAY)])
    assert [row[0] for row in joined(spine, features)] == [10, 10, 999]


def test_a_late_older_event_does_not_replace_a_newer_one() -> None:
    features = features_table([(1, T0, T0, 2, "new"), (1, T0 - DAY, T0 + DAY, 1, "late")])
    assert [row[0] for row in joined(spine_table([(1, T0 + 2 * DAY), (1, T0 - US)]), features)] == [
        2,
        None,
    ]


@pytest.mark.parametrize(("shift", "seen"), [(-US, None), (0 * US, 7), (US, 7)])
def test_both_times_are_cut_at_the_microsecond(shift: timedelta, seen: int | None) -> None:
    for event, created in ((T0, T0), (T0 - DAY, T0)):
        assert (
            joined(spine_table([(1, T0 + shift)]), features_table([(1, event, created, 7, "x")]))[
                0
            ][0]
            == seen
        )


@pytest.mark.parametrize(("shift", "seen"), [(-US, 7), (0 * US, 7), (US, None)])
def test_ttl_ends_after_its_last_microsecond(shift: timedelta, seen: int | None) -> None:
    features = features_table([(1, T0, T0, 7, "x")])
    assert joined(spine_table([(1, T0 + 3 * DAY + shift)]), features, 3 * DAY)[0][0] == seen


def test_rows_in_are_rows_out_in_order() -> None:
    """Unknown keys, keys with only future features, duplicates and text keys.

    Five rows in, five out.
    """
    features = features_table(
        [("a", T0, T0, 1, "x"), ("b", T0 + DAY, T0 + DAY, 2, "x")], pa.string()
    )
    spine = spine_table([("b", T0), ("a", T0), ("zz", T0), ("a", T0), (None, T0)], pa.string())
    assert [row[0] for row in joined(spine, features)] == [None, 1, None, 1, None]


def test_times_before_1970_keep_their_order() -> None:
    """Of negative microseconds too the greater created time of one event stands."""
    old = datetime(1950, 6, 1, tzinfo=UTC)
    far = datetime(2261, 6, 1, tzinfo=UTC)
    rows: list[Row] = [
        (1, old, old, 1, "x"),
        (1, old, old + DAY, 2, "x"),
        (1, old - US, old + 2 * DAY, 3, "x"),
        (1, old + 3 * DAY, far, 4, "x"),
        (1, far, old, 5, "x"),
    ]
    asked = [old, old + 2 * DAY, T0, far - US, far]
    for spine in [spine_table([(1, moment) for moment in asked])] + [
        spine_table([(1, moment)]) for moment in asked
    ]:
        assert joined(spine, features_table(rows)) == brute_force(
            spine, features_table(rows), None, None, False
        )


def test_nanoseconds_round_down() -> None:
    """A moment 999 ns before a feature row must not see it."""
    nanos = np.array([int(T0.timestamp()) * 10**9 - 1, int(T0.timestamp()) * 10**9 + 1])
    spine = pa.table(
        {"id": pa.array([1, 1]), "event_timestamp": pa.array(nanos, pa.timestamp("ns", tz="UTC"))}
    )
    assert [row[0] for row in joined(spine, features_table([(1, T0, T0, 7, "x")]))] == [None, 7]


def test_empty_sides() -> None:
    assert joined(spine_table([]), features_table([(1, T0, T0, 7, "x")])) == []
    assert joined(spine_table([(1, T0)]), features_table([])) == [(None, None, None)]


def test_a_row_without_a_moment_is_refused() -> None:
    spine = pa.table({"id": pa.array([1]), "event_timestamp": pa.array([None], TIMESTAMP)})
    with pytest.raises(EvergreenError, match="no event_timestamp"):
        joined(spine, features_table([(1, T0, T0, 7, "x")]))
