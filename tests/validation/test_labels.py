"""Labels from a column: which values are one, which row of a decision stands, and what is
refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from include.config.use_case import UseCase
from include.config.use_case_file import parse
from include.errors import ConfigError
from include.lake.sql import connect
from include.point_in_time.curated import curated_schema
from include.validation import labels

T0 = datetime(2026, 1, 1, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
YAML = """
name: shop
history: {{first: 2026-01-01}}
entity: {{name: customer, key: customer_id, type: {entity}}}
sources:
  orders:
    path: orders.csv
    key: [order_id]
    {more}
    columns:
      order_id: {{type: int64}}
      customer_id: {{type: {key}}}
      paid: {{type: {label}}}
      known: {{type: {known}}}
label: {{source: orders, column: paid, label_time: {time}, delay: 1d{positive}}}
features: {{facts: {{grain: event, source: orders, columns: {{order_id: int64}}}}}}
"""
KNOBS = {
    "entity": "int64",
    "key": "int64",
    "label": "int64",
    "known": "timestamp",
    "time": "event + 1d",
    "more": "",
    "positive": "",
}
Row = tuple[Any, ...]


def case(**knobs: str) -> UseCase:
    return parse(YAML.format(**{**KNOBS, **knobs}))


def made(use_case: UseCase, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the labels of curated rows (order, customer, paid, known, created); all decisions
    are of one moment.
    """
    schema = curated_schema(use_case.sources["orders"])
    order, customer, paid, known, created = zip(*rows, strict=True)
    columns = [order, customer, paid, known, [T0] * len(rows), created]
    table = pa.table(
        [pa.array(values).cast(kind) for values, kind in zip(columns, schema.types, strict=True)],
        schema=schema,
    )
    with connect() as con:
        return list(labels.from_column(use_case, table, con).to_pylist())


def outcomes(use_case: UseCase, values: Sequence[Any]) -> list[float | None]:
    rows = [(number, number, value, None, T0) for number, value in enumerate(values)]
    return [row["label"] for row in made(use_case, rows)]


def test_which_row_of_a_decision_stands_does_not_depend_on_its_label() -> None:
    for first, second, third in itertools.product([0, 1, None], repeat=3):
        (row,) = made(
            case(), [(2, 7, second, None, T0), (3, 7, third, None, T0), (1, 7, first, None, T0)]
        )
        assert row["label"] == third


def test_a_correction_is_kept_beside_what_was_known_before_and_no_earlier_duplicate_is() -> None:
    """What a duplicate says is of another record, and so are the features beside it."""
    rows = [(9, 7, 1, None, T0), (1, 7, 0, None, T0 + HOUR), (1, 7, 1, None, T0 + 2 * HOUR)]
    found = made(case(), rows)
    assert [(row["created_timestamp"], row["label"]) for row in found] == [
        (T0 + HOUR, 0.0),
        (T0 + 2 * HOUR, 1.0),
    ]


@pytest.mark.parametrize(
    ("knobs", "values", "right"),
    [
        (
            {"label": "string", "positive": ', positive: ">50K"'},
            [">50K", "<=50K", " >50K ", None, ""],
            [1, 0, 1, None, None],
        ),
        (
            {"label": "string", "positive": ', positive: [">50K", ">50K."]'},
            [">50K", "<=50K.", ">50K."],
            [1, 0, 1],
        ),
        (
            {"label": "string", "positive": ', positive: "zuru\u0308ck"'},
            ["zur\u00fcck", "nein"],
            [1, 0],
        ),
        ({"label": "int64", "positive": ", positive: 2"}, [1, 2, None], [0, 1, None]),
        ({"label": "float64", "positive": ', positive: "2"'}, [1.0, 2.0], [0, 1]),
        ({"label": "bool", "positive": ', positive: "no"'}, [True, False, None], [0, 1, None]),
        ({"label": "bool"}, [True, False, None], [1, 0, None]),
        ({"label": "float64"}, [1.0, 0.0, None], [1, 0, None]),
    ],
)
def test_the_positive_value_counts_as_one(
    knobs: dict[str, str], values: list[Any], right: list[float | None]
) -> None:
    assert outcomes(case(**knobs), values) == right


@pytest.mark.parametrize(
    ("knobs", "values", "says"),
    [
        (
            {"label": "string", "positive": ', positive: ">50K"'},
            [">50K", ">50K."],
            r"holds \['>50K\.'\] beside >50K",
        ),
        (
            {"label": "string", "positive": ', positive: "Yes"'},
            ["Yes", "YES "],
            r"holds \['YES'\] beside Yes",
        ),
        (
            {"label": "string", "positive": ', positive: "charged off"'},
            ["charged off", "charged\u202foff\u200d"],
            "as if they were other outcomes",
        ),
        (
            {"label": "string"},
            ["1", "0"],
            "paid is VARCHAR; a label is bool or 0 and 1, else write positive",
        ),
        ({"label": "date"}, [date(2026, 1, 1)], "paid is DATE"),
        (
            {"label": "int64", "positive": ', positive: "two"'},
            [1, 2],
            "positive 'two' is no value of paid",
        ),
        ({"label": "int64"}, [1, 2], "labels are 0, 1 or null; .*label=2.*label.positive"),
        ({"key": "string"}, [1], "customer_id is VARCHAR, declared int64"),
        ({"key": "float64"}, [1], "customer_id is DOUBLE, declared int64"),
        ({"entity": "string"}, [1], "customer_id is BIGINT, declared string"),
        (
            {"known": "string", "time": "known"},
            [1],
            "label_time known is VARCHAR; declare its column timestamp or date",
        ),
    ],
)
def test_what_is_no_label_no_key_and_no_time_is_refused(
    knobs: dict[str, str], values: list[Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        outcomes(case(**knobs), values)


@pytest.mark.parametrize(("means", "hour"), [("start_of_day", 0), ("end_of_day", 23)])
def test_a_date_as_label_time_is_what_the_source_says(means: str, hour: int) -> None:
    use_case = case(known="date", time="known", more=f"date_means: {means}")
    (row,) = made(use_case, [(1, 7, 1, date(2026, 1, 3), T0)])
    assert (row["label_timestamp"].date(), row["label_timestamp"].hour) == (date(2026, 1, 3), hour)


@pytest.mark.parametrize(
    ("dates", "last"),
    [("%m/%Y", date(2026, 1, 31)), ("%Y", date(2026, 12, 31)), ("%d.%m.%Y", date(2026, 1, 1))],
)
def test_an_outcome_of_a_month_or_a_year_is_known_when_that_is_over(dates: str, last: date) -> None:
    known = f'date, dates: "{dates}"'
    use_case = case(known=known, time="known", more="date_means: end_of_day")
    (row,) = made(use_case, [(1, 7, 1, date(2026, 1, 1), T0)])
    assert row["label_timestamp"].isoformat() == f"{last}T23:59:59.999999+00:00"


def test_a_truth_value_of_yaml_is_no_positive_value() -> None:
    with pytest.raises(ConfigError, match="put it in quotes"):
        case(label="string", positive=", positive: yes")
