"""The model of a source: what fits no source, and what follows from its fields."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from include.config.use_case_sources import Column, History, Source

ORDERS: dict[str, Any] = {
    "path": "orders.csv",
    "key": ["order_id"],
    "columns": {"order_id": {"type": "int64"}},
}


def refused(model: type[Any], **values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        model(**values)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sql": {"url_env": "SHOP_URL", "query": "SELECT 1"}}, "(given: path, sql)"),
        ({"path": None}, "(given: none)"),
        ({"sql": {"url_env": "shop-url", "query": "SELECT 1"}}, "should match pattern"),
        ({"kind": "static"}, "a static source needs valid_from"),
        ({"arrival": "event + soon"}, "is no duration"),
        ({"arrival": "after the event"}, "is neither a column nor 'event + DURATION'"),
        ({"fresh": "6h", "empty": "allow"}, "fresh is for events that must come"),
        ({"event_time": "at", "arrival": "at"}, "event_time and arrival are one column, 'at'"),
        ({"key": ["number"]}, "key columns ['number'] are not among the declared columns"),
        ({"sheet": "A", "format": "csv"}, "sheet is for Excel workbooks, and format is csv"),
        (
            {"path": None, "member": "a", "sql": {"url_env": "SHOP_URL", "query": "SELECT 1"}},
            "sheet and member are for files",
        ),
        ({"encoding": "latin-99"}, "'latin-99' is no encoding"),
        ({"separator": "ab"}, "'ab' cannot stand between values"),
        ({"max_bad": 1.5}, "less than or equal to 1"),
        ({"extras": "ignore"}, "Extra inputs are not permitted"),
    ],
)
def test_what_fits_no_source_is_refused(changes: dict[str, Any], says: str) -> None:
    assert says in refused(Source, **{**ORDERS, **changes})


def test_a_recorded_arrival_takes_late_rows_and_an_assumed_one_refuses_them() -> None:
    recorded, assumed = Source(**ORDERS), Source(**ORDERS, arrival="event + 3d")
    assert recorded.assumed_lag is None
    assert recorded.takes_late
    assert recorded.time_columns == ["event_timestamp", "created_timestamp"]
    assert assumed.assumed_lag == timedelta(days=3)
    assert not assumed.takes_late
    assert assumed.time_columns == ["event_timestamp"]
    assert Source(**ORDERS, arrival="event + 3d", late="next").takes_late


def test_late_rows_are_looked_for_everywhere_but_a_week_back_in_a_database() -> None:
    query = {**ORDERS, "path": None, "sql": {"url_env": "SHOP_URL", "query": "SELECT 1"}}
    assert Source(**ORDERS).looks_back is None
    assert Source(**query).looks_back == timedelta(days=7)
    assert Source(**query, late_within="30d").looks_back == timedelta(days=30)


def test_a_static_source_has_no_times_of_its_own() -> None:
    assert Source(**ORDERS, kind="static", valid_from="2025-01-01").time_columns == []


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"type": "string", "min": 1}, "min is for columns of type int64 or float64"),
        ({"type": "date", "unit": "EUR"}, "unit is for columns of type int64 or float64"),
        ({"type": "int64", "percent": True}, "percent is for type float64"),
        ({"type": "float64", "decimal": ",", "thousands": ","}, "cannot group the digits and"),
        ({"type": "string", "dates": "%Y"}, "dates is for columns of type date or timestamp"),
        ({"type": "date", "dates": "%d.%m"}, "names no year"),
        ({"type": "timestamp", "dates": "%Y-%m-%d %H:%M %Z"}, "CET has an hour that comes twice"),
        ({"type": "float64", "unit": "E"}, "cannot be told from the exponent of 5e3"),
        ({"type": "string", "values": ["a", False]}, "an unquoted no, off or false"),
        ({"type": "string", "values": [1.10]}, "whose digits may be others than in the file"),
        ({"type": "string", "null_values": [None]}, "an unquoted null, ~ or nothing"),
        ({"type": "float64", "unit": "1"}, "should match pattern"),
    ],
)
def test_what_fits_no_column_is_refused(values: dict[str, Any], says: str) -> None:
    assert says in refused(Column, **values)


def test_items_that_yaml_has_read_as_something_else_become_texts_again() -> None:
    assert Column(type="bool", values=[True, "no"]).values == ["true", "no"]
    assert Column(type="int64", values=[7, "14"]).values == ["7", "14"]
    assert Column(type="date", dates="unix_seconds").dates == "unix_seconds"


def test_a_history_ends_after_it_begins() -> None:
    assert "last (2024-01-01) is before first (2025-01-01)" in refused(
        History, first="2025-01-01", last="2024-01-01"
    )


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ({"type": "int64", "sql": "a", "header": "A"}, "header says how a delivered value"),
        ({"type": "float64", "sql": "a", "decimal": ","}, "decimal says how a delivered value"),
        ({"type": "date", "sql": "a", "dates": "%Y"}, "dates says how a delivered value"),
        ({"type": "int64", "sql": "a", "null_values": ["x"]}, "null_values says how a delivered"),
        ({"type": "string", "sql": "a", "digest": "row"}, "in two ways; leave one out"),
        ({"type": "string", "digest": "row", "header": "A"}, "and digest makes this one"),
        ({"type": "int64", "digest": "row"}, "write type: string"),
        ({"type": "int64", "sql": ""}, "at least 1 character"),
    ],
)
def test_fields_of_a_column_that_nobody_delivers(column: dict[str, Any], says: str) -> None:
    assert says in refused(Column, **column)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"event_time": "at"}, "event_time says one"),
        ({"arrival": "event + 3d"}, "arrival says one"),
        ({"kind": "static", "valid_from": "2024-05-01"}, "kind says one"),
        ({"columns": {"event_timestamp": {"type": "timestamp"}}}, "header: event_timestamp"),
    ],
)
def test_a_snapshot_has_no_other_time(changes: dict[str, Any], says: str) -> None:
    assert says in refused(Source, **ORDERS | {"snapshot": "2024-05-01"} | changes)


def test_a_snapshot_is_events_of_one_moment() -> None:
    source = Source(**ORDERS | {"snapshot": "2024-05-01"})
    assert (source.time_columns, source.assumed_lag) == (["event_timestamp"], timedelta(0))
    assert source.computed["event_timestamp"].sql == "TIMESTAMPTZ '2024-05-01 00:00:00+00'"
    assert Source(**source.model_dump()) == source


@pytest.mark.parametrize(
    ("columns", "more", "says"),
    [
        ({"at": {"type": "string", "sql": "order_id"}}, {}, "write type: date or timestamp"),
        ({"r": {"type": "string", "digest": "row"}}, {"event_time": "r"}, "write type: date"),
        (
            {"r": {"type": "string", "digest": "row"}, "s": {"type": "string", "digest": "row"}},
            {},
            "are one digest of one row",
        ),
        (
            {"r": {"type": "string", "digest": "row"}},
            {"kind": "static", "valid_from": "2024-01-01"},
            "need no digest",
        ),
    ],
)
def test_made_columns_have_their_place(
    columns: dict[str, Any], more: dict[str, Any], says: str
) -> None:
    given = ORDERS | {"event_time": "at", "columns": ORDERS["columns"] | columns} | more
    assert says in refused(Source, **given)
