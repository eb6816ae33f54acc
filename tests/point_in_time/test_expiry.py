"""What is known, stale or unknown: event views by visibility, online rows by the ttl of each
view, requests with a row.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.errors import ConfigError, MissingPartition
from include.features import frames, online_store, visibility
from include.features.feature_sets import FeatureSet
from include.features.online_store import OnlineSet, OnlineView
from include.lake.sql import TIMESTAMP
from include.serving import predict
from include.serving.http import Refusal
from include.serving.snapshot import Loaded, Online, Served
from tests.builders.shop import DAY, HOUR, T0, US, YAML, Shop

AT_AS_OF = YAML.replace("visible: with_request", "visible: at_as_of").replace(
    "availability: 0s", "availability: 2h"
)


def test_an_at_as_of_row_is_known_from_the_as_of_of_the_partition_in_which_it_arrived(
    tmp_path: Path,
) -> None:
    """Late rows too; of one entity and moment the newest stands, in the partition and over
    partitions.
    """
    shop = Shop(tmp_path, AT_AS_OF)
    start = T0 + DAY
    shop.arrive(0, [], [(1, 5, "web", T0 + HOUR, T0 + HOUR)])
    late = (2, 7, "late", T0 + 3 * HOUR, start + HOUR)
    corrected = [
        (1, 9, "first", start + HOUR, start + HOUR),
        (1, 10, "second", start + HOUR, start + 4 * HOUR),
    ]
    shop.arrive(1, [], [late, *corrected])
    for day in range(2):
        shop.run(day)
    rows = [
        (row["customer_id"], row["device"], row["event_timestamp"], row["created_timestamp"])
        for row in shop.rows("visit", 1)
    ]
    known = shop.as_of(1) + 2 * HOUR
    assert rows == [(1, "second", start + HOUR, known), (2, "late", T0 + 3 * HOUR, known)]
    moments = [start + 5 * HOUR, known - US, known]
    asked = pa.table({"customer_id": [1] * 3, "event_timestamp": pa.array(moments, TIMESTAMP)})
    frame = frames.training_frame(
        shop.settings, shop.use_case, shop.feature_set, asked, {}, records=shop.records
    )
    assert frame["pages"].to_pylist() == [5, 5, 10]


def test_the_label_s_source_comes_with_the_request_and_versions_on_record_stay(
    tmp_path: Path,
) -> None:
    """Only at_as_of stands in a definition, so a set that was recorded before there was a choice
    reads back as it was.
    """
    shop = Shop(tmp_path)
    stated = shop.feature_set
    assert "visible" not in stated.to_dict()["views"][1]
    assert [view.visible for view in FeatureSet.from_dict(stated.to_dict()).views] == [
        None,
        "with_request",
    ]
    unsaid = YAML.replace("    visible: with_request\n", "")
    shop.define(unsaid)
    assert visibility.of(shop.use_case, "visit") == "at_as_of", "the label is made of orders"
    assert shop.feature_set.views[1].version != stated.views[1].version
    assert FeatureSet.from_dict(shop.feature_set.to_dict()) == shop.feature_set
    query = (
        "SELECT customer_id, event_timestamp, event_timestamp AS label_timestamp, 1.0 AS "
        "label FROM visits"
    )
    for label in ("{source: visits, column: pages, delay: 5d}", f"{{sql: {query!r}, delay: 5d}}"):
        shop.define(
            unsaid.replace(
                "{source: orders, column: amount, delay: 5d}",
                label.replace("column: pages", "column: customer_id"),
            )
        )
        assert visibility.of(shop.use_case, "visit") == "with_request"
        assert shop.feature_set.views[1].version == stated.views[1].version
    shop.define(YAML.replace("    lookback: 5d\n", "    lookback: 5d\n    visible: at_as_of\n"))
    with pytest.raises(ConfigError, match="a snapshot is known from its as_of on"):
        _ = shop.use_case


def test_a_view_that_could_come_with_the_request_is_named(tmp_path: Path) -> None:
    shop = Shop(tmp_path, AT_AS_OF.replace("availability: 2h", "availability: 0s"))
    moments = [T0 + day * DAY + HOUR for day in range(4)]
    for day, moment in enumerate(moments):
        shop.arrive(day, [], [(day, day, "web", moment, moment)])
        shop.run(day)
    rows = pa.table(
        {"customer_id": list(range(4)), "event_timestamp": pa.array(moments, TIMESTAMP)}
    )
    frame = frames.training_frame(
        shop.settings, shop.use_case, shop.feature_set, rows, {}, records=shop.records
    )
    (told,) = visibility.unseen(shop.lake, shop.use_case, shop.feature_set, frame)
    assert "empty for 4 of 4 decisions" in told
    assert "visible: with_request in features.visit" in told
    assert list(visibility.told(shop.use_case)) == [
        ("view visit", "visible: at_as_of, known from the as_of after it arrived")
    ]
    shifted = rows.set_column(
        1, "event_timestamp", pa.array([moment + DAY for moment in moments[:3]] + [T0], TIMESTAMP)
    )
    frame = frames.training_frame(
        shop.settings, shop.use_case, shop.feature_set, shifted, {}, records=shop.records
    )
    assert list(visibility.unseen(shop.lake, shop.use_case, shop.feature_set, frame)) == []


def test_nobody_is_online_longer_than_four_ttls(tmp_path: Path) -> None:
    """An entity is there while one of its views is; then it is unknown, also where stale
    features are scored.
    """
    shop = Shop(tmp_path)
    spending, visit = shop.feature_set.views
    for view, values in (
        (spending, {"orders_5d": [1], "amount_5d": [1.0], "today": [True]}),
        (visit, {"pages": [3], "device": ["a"]}),
    ):
        times = pa.array([T0 + DAY], TIMESTAMP)
        rows = pa.table(
            {"customer_id": [1], "event_timestamp": times, "created_timestamp": times, **values}
        ).cast(view.schema)
        shop.lake.replace(view.table("shop"), shop.key(0), rows)

    def there(as_of: datetime, *views: Any) -> int:
        return len(frames.answers_at(shop.lake, shop.use_case, FeatureSet(views), as_of))

    assert [there(T0 + (1 + days) * DAY, spending) for days in (0, 3, 12, 13)] == [1, 1, 1, 0]
    assert [there(T0 + (1 + days) * DAY, spending, visit) for days in (13, 16, 17)] == [1, 1, 0]
    alive = frames.population_at(
        shop.lake, shop.use_case, shop.feature_set, T0 + 5 * DAY
    ).to_pylist()
    assert [(row["__alive_spending"], row["__alive_visit"]) for row in alive] == [(False, True)]
    nobody = frames.population_at(shop.lake, shop.use_case, shop.feature_set, T0 + 30 * DAY)
    assert (len(nobody), nobody.schema) == (
        0,
        frames.population_at(shop.lake, shop.use_case, shop.feature_set, T0).schema,
    )


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
    served = Served(shop.use_case, online=Online(shop.settings.home / "o.db"))
    horizon = predict.Horizon(shop.use_case, clock=lambda: round(now.timestamp()) * 10**9)
    return predict.features_of(predict.Asked(entity, given), served, model, horizon)


def test_each_view_expires_by_itself_and_a_request_may_bring_a_part(tmp_path: Path) -> None:
    score, refuse = Shop(tmp_path, YAML + "fallback: {unknown: score, stale: score}\n"), YAML
    newest = round((T0 + DAY).timestamp() * 1e6)
    what = OnlineSet("fs", ("a", "b", "c"), score.key(0), timedelta(days=3), T0, "", "", VIEWS)
    online_store.publish(
        score.settings.home / "o.db",
        what,
        [
            online_store.pack(1, newest, [1, None, 7, newest, newest]),
            online_store.pack(2, newest, [1, 2, None, newest, None]),
        ],
    )
    assert online_store.OnlineReader(score.settings.home / "o.db").describe("fs") == what
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
        shop.settings.home / "o.db", what, [online_store.pack(1, newest, [1, 2, 3])]
    )
    assert [answer(shop, days, None).flags for days in (3, 4, 12, 13)] == [
        [],
        ["stale", "fallback"],
        ["stale", "fallback"],
        ["unknown", "fallback"],
    ]


def test_online_rows_go_by_the_record(tmp_path: Path) -> None:
    """Rows of a partition without a record are not read, and it is named; once it is recorded
    they are.
    """
    from include.clock import utc_now
    from include.features import online_sync
    from include.pipeline import runner

    shop = Shop(tmp_path)
    for day in range(4):
        moment = T0 + day * DAY + HOUR
        shop.arrive(day, [], [(day, day, "web", moment, moment)])
        shop.ask(day)
        if day != 2:
            shop.run(day)
    view, version = shop.feature_set.views[1], shop.feature_set.version
    orphan = pa.table(
        {
            "customer_id": [77],
            "event_timestamp": [T0 + 2 * DAY],
            "created_timestamp": [T0 + 2 * DAY],
            "pages": [1],
            "device": ["x"],
        }
    )
    shop.lake.replace(view.table("shop"), shop.key(2), orphan.cast(view.schema))
    with shop.records.leases.claim(
        "shop", "materialize_features", shop.key(3), owner="test 3", attempt=1, ttl=30
    ) as lease:
        context = runner._context(
            shop.settings, shop.use_case, shop.key(3), shop.records, lease, "test", utc_now(), {}
        )
        told = online_sync.materialize(context, [version], current="")[version]
        assert (told["rows"], told["missing"]) == (3, [shop.key(2)])
        shop.run(2)
        told = online_sync.materialize(context, [version], current="")[version]
        assert (told["rows"], told["written"], "missing" in told) == (4, True, False)


def test_scores_are_refused_where_features_that_can_be_alive_are_missing(tmp_path: Path) -> None:
    from include.scoring.score_entities import require_features

    shop = Shop(tmp_path)
    for day in range(4):
        shop.arrive(day)
        if day != 1:
            shop.run(day)
    with pytest.raises(MissingPartition, match="view spending") as caught:
        require_features(shop.records, shop.use_case, shop.feature_set, shop.key(3))
    assert caught.value.keys == (shop.key(1),)
