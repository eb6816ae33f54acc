"""The model of a use case: what its parts refuse, and what follows from them."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from include.config.use_case import UseCase
from include.config.use_case_parts import Label, View

SHOP: dict[str, Any] = {
    "name": "shop",
    "history": {"first": "2025-01-01"},
    "entity": {"name": "customer", "key": "customer_id"},
    "sources": {
        "orders": {
            "path": "orders.csv",
            "key": ["order_id"],
            "columns": {
                "order_id": {"type": "int64"},
                "customer_id": {"type": "int64"},
                "amount": {"type": "float64"},
                "paid": {"type": "bool"},
            },
        }
    },
    "label": {"source": "orders", "column": "paid", "delay": "30d"},
    "features": {
        "spend": {"grain": "event", "source": "orders", "columns": {"amount": "float64"}},
        "past": {"sql": "SELECT 1", "columns": {"orders_90d": "int64", "age_group": "string"}},
    },
    "training": {"exclude": ["age_group"]},
}


def refused(model: type[Any], **values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        model(**values)
    return str(caught.value)


def test_features_stand_in_the_order_of_the_views_and_excluded_ones_are_not_trained() -> None:
    case = UseCase(**SHOP)
    assert list(case.feature_types) == ["amount", "orders_90d", "age_group"]
    assert case.feature_types["orders_90d"] == "int64"
    assert case.trained_features == ["amount", "orders_90d"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"delay": "1d"}, "give either source and column, or sql"),
        ({"delay": "1d", "source": "a", "sql": "SELECT 1"}, "give either source and column"),
        ({"delay": "1d", "source": "a"}, "a label from a source needs column"),
        ({"delay": "1d", "sql": "SELECT 1", "positive": "yes"}, "SQL gives 0 and 1 itself"),
        ({"delay": "1d", "source": "a", "column": "b", "positive": " "}, "positive is empty"),
        ({"delay": "1d", "source": "a", "column": "b", "positive": True}, "put it in quotes"),
    ],
)
def test_a_label_is_made_one_way(values: dict[str, Any], says: str) -> None:
    assert says in refused(Label, **values)


def test_a_label_knows_its_positive_words_and_its_assumed_lag() -> None:
    label = Label(source="a", column="b", delay="1d", positive=[">50K", 1], label_time="event + 2d")
    assert label.positives == [">50K", "1"]
    assert label.assumed_lag == timedelta(days=2)
    plain = Label(source="a", column="b", delay="1d")
    assert plain.positives == []
    assert plain.assumed_lag is None


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "give either source (columns taken as they are) or sql"),
        ({"source": "orders"}, "is of grain event; write sql for a snapshot"),
        ({"sql": "SELECT 1", "visible": "at_as_of"}, "a snapshot is known from its as_of on"),
        ({"sql": "SELECT 1", "columns": {}}, "at least 1 item"),
    ],
)
def test_a_view_is_made_one_way(values: dict[str, Any], says: str) -> None:
    assert says in refused(View, **{"columns": {"amount": "float64"}, **values})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"label": {**SHOP["label"], "source": "order"}}, "label.source: there is no source"),
        ({"training": {"exclude": ["amont"]}}, "training.exclude names ['amont'], which no view"),
        ({"training": {"known_at_decision": ["x"]}}, "training.known_at_decision names ['x']"),
        (
            {"features": {**SHOP["features"], "more": SHOP["features"]["past"]}},
            "'orders_90d' stands in the views 'past' and 'more'; rename one",
        ),
        ({"cadence": "week"}, "history.first: 2025-01-01 lies inside a week; write its key"),
        ({"features": {}}, "at least 1 item"),
    ],
)
def test_parts_must_fit_each_other(changes: dict[str, Any], says: str) -> None:
    assert says in refused(UseCase, **{**SHOP, **changes})


def test_periods_of_a_history_begin_where_the_cadence_says() -> None:
    monthly = {**SHOP, "cadence": "month", "history": {"first": "2025-02-01", "last": "2025-04-01"}}
    assert UseCase(**monthly).history.last == date(2025, 4, 1)
