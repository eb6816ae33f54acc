"""When a row has expired: the calendar of `as_of`s, and what the node then answers."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.deployment.description import Description
from include.features import online_reader, online_rows, online_store
from include.features.online_rows import OnlineSet, OnlineView
from include.point_in_time.expiry import Calendar, is_expired, is_forgotten
from include.serving import predict
from include.serving.http import Refusal
from include.serving.prediction_request import CheckedRequest
from include.serving.snapshot import Loaded, Online, Served
from tests.builders.shop import DAY, T0, US, YAML, Shop


def test_the_newest_as_of_is_that_of_the_period_before_within_the_history() -> None:
    monthly = Calendar("month", 3 * DAY, date(2025, 1, 1), date(2025, 3, 1))
    february = datetime(2025, 2, 4, tzinfo=UTC)
    assert monthly.horizon(february) == february
    assert monthly.horizon(february + 20 * DAY) == february
    # Before the first as_of a row's age counts to the moment itself.
    assert monthly.newest(date(2025, 1, 31)) is None
    assert monthly.horizon(february - US) == february - US
    # The last partition's as_of is the newest for ever.
    assert monthly.horizon(datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2025, 4, 4, tzinfo=UTC)


@pytest.mark.parametrize("last", [None, date(2025, 6, 1)])
def test_a_calendar_comes_back_from_its_text(last: date | None) -> None:
    calendar = Calendar("month", timedelta(hours=2, microseconds=1), date(2025, 1, 1), last)
    assert Calendar.from_text(calendar.text) == calendar


def test_a_row_is_alive_up_to_and_including_its_ttl() -> None:
    assert not is_expired(3, 3)
    assert is_expired(4, 3)


def test_an_entity_is_unknown_once_every_view_is_four_ttls_old() -> None:
    ttls = {"a": 10, "b": 100}
    assert not is_forgotten({"a": 40}, ttls)
    assert is_forgotten({"a": 41}, ttls)
    assert not is_forgotten({"a": 41, "b": 400}, ttls)
    assert is_forgotten({}, ttls), "no view has a row"


class Model:
    """A model that is only asked which features it reads."""

    features = ("a", "b", "c")

    def one(self, row: Any) -> float:
        """Return no score that anybody looks at."""
        return 0.5


VIEWS = (
    OnlineView("daily", 3 * 86_400_000_000, ("a", "b")),
    OnlineView("asked", 5 * 86_400_000_000, ("c",)),
)


def answer(
    shop: Shop, days: int, given: dict[str, Any] | None, *, entity: int = 1
) -> predict.Features:
    """Return what the node asks its model with, so many days after the row of day 0."""
    now = T0 + DAY + days * DAY
    model = Loaded(1, "sha256:m", "fs", "", scorer=Model())  # type: ignore[arg-type]
    served = Served(Description.of(shop.use_case), online=Online(shop.settings.home / "o.db"))
    horizon = predict.Horizon(
        Description.of(shop.use_case), clock=lambda: round(now.timestamp()) * 10**9
    )
    return predict.find_features(CheckedRequest(entity, given), served, model, horizon)


def test_each_view_expires_by_itself_and_a_request_may_bring_a_part(tmp_path: Path) -> None:
    score, refuse = Shop(tmp_path, YAML + "fallback: {unknown: score, stale: score}\n"), YAML
    newest = round((T0 + DAY).timestamp() * 1e6)
    what = OnlineSet("fs", ("a", "b", "c"), score.key(0), timedelta(days=3), T0, "", "", VIEWS)
    online_store.publish(
        score.settings.home / "o.db",
        what,
        [
            online_rows.pack(1, newest, [1, None, 7, newest, newest]),
            online_rows.pack(2, newest, [1, 2, None, newest, None]),
        ],
    )
    assert online_reader.OnlineReader(score.settings.home / "o.db").describe("fs") == what
    for days, given, row, flags in (
        (3, None, [1, None, 7], []),
        (4, None, [None, None, 7], ["stale", "fallback"]),
        (4, {"a": 5, "b": 6}, [5, 6, 7], []),
        (6, {"c": 8}, [None, None, 8], ["stale", "fallback"]),
        (6, None, [None, None, None], ["stale", "fallback"]),
        (20, None, [None, None, None], ["stale", "fallback"]),
        (21, {"c": 8}, [None, None, 8], ["unknown", "fallback"]),
    ):
        found = answer(score, days, given)
        assert ([found.row[name] for name in "abc"], found.flags) == (row, flags), days
    assert answer(score, 13, {"c": 8}, entity=2).flags == ["unknown", "fallback"]
    assert answer(score, 0, {"a": 1, "b": 2, "c": 3}, entity=99).flags == []
    score.define(refuse)
    for days, status in ((4, 409), (21, 404)):
        with pytest.raises(Refusal) as caught:
            answer(score, days, None)
        assert caught.value.status == status


def test_rows_of_before_expire_as_one(tmp_path: Path) -> None:
    shop = Shop(tmp_path, YAML + "fallback: {unknown: score, stale: score}\n")
    newest = round((T0 + DAY).timestamp() * 1e6)
    what = dataclasses.replace(
        OnlineSet("fs", ("a", "b", "c"), shop.key(0), timedelta(days=3), T0, "", ""), views=()
    )
    online_store.publish(
        shop.settings.home / "o.db", what, [online_rows.pack(1, newest, [1, 2, 3])]
    )
    assert [answer(shop, days, None).flags for days in (3, 4, 12, 13)] == [
        [],
        ["stale", "fallback"],
        ["stale", "fallback"],
        ["unknown", "fallback"],
    ]
