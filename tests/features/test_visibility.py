"""When the rows of event views are known, and views that hide rows which a request could bring."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from include.errors import ConfigError
from include.features import frames, visibility
from include.features.feature_sets import FeatureSet
from include.lake.sql import TIMESTAMP
from tests.builders.shop import DAY, HOUR, T0, US, YAML, Shop

AT_AS_OF = YAML.replace("visible: with_request", "visible: at_as_of").replace(
    "availability: 0s", "availability: 2h"
)


def test_an_at_as_of_row_is_known_from_the_as_of_of_the_partition_in_which_it_arrived(
    tmp_path: Path,
) -> None:
    """So are late rows; of one entity and moment the newest stands, in and over partitions."""
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
    """Only at_as_of stands in a definition, so that older sets read back as they were."""
    shop = Shop(tmp_path)
    stated = shop.feature_set
    assert "visible" not in stated.to_dict()["views"][1]
    assert [view.visible for view in FeatureSet.from_dict(stated.to_dict()).views] == [
        None,
        "with_request",
    ]
    unsaid = YAML.replace("    visible: with_request\n", "")
    shop.define(unsaid)
    assert visibility.visibility_of(shop.use_case, "visit") == "at_as_of", (
        "the label is made of orders"
    )
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
        assert visibility.visibility_of(shop.use_case, "visit") == "with_request"
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
    (problem,) = visibility.find_unseen_rows(shop.lake, shop.use_case, shop.feature_set, frame)
    assert "empty for 4 of 4 decisions" in problem
    assert "visible: with_request in features.visit" in problem
    assert list(visibility.describe_visibility(shop.use_case)) == [
        ("view visit", "visible: at_as_of, known from the as_of after it arrived")
    ]
    shifted = rows.set_column(
        1, "event_timestamp", pa.array([moment + DAY for moment in moments[:3]] + [T0], TIMESTAMP)
    )
    frame = frames.training_frame(
        shop.settings, shop.use_case, shop.feature_set, shifted, {}, records=shop.records
    )
    problems = visibility.find_unseen_rows(shop.lake, shop.use_case, shop.feature_set, frame)
    assert list(problems) == []
