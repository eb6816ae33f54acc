"""The columns that a source declares, by header, and how those that came differ."""

from __future__ import annotations

from typing import Any

import pytest

from include.config.use_case_sources import Source
from include.errors import ConfigError
from include.ingestion.columns import column_diff, headers
from include.pipeline.ingest_outputs import FileHeader


def source(**more: Any) -> Source:
    declared = {
        "path": "orders.csv",
        "key": ["order_id"],
        "columns": {
            "order_id": {"type": "int64"},
            "amount": {"type": "float64", "header": "Amount (EUR)"},
        },
    }
    return Source.model_validate(declared | more)


def seen(file: str, *columns: str) -> FileHeader:
    return FileHeader(columns=list(columns), files=[file], count=1)


WHOLE = ("order_id", "Amount (EUR)", "event_timestamp", "created_timestamp")


def test_all_that_is_needed_has_a_header_also_times_that_are_not_declared() -> None:
    assert headers(source()) == {
        "order_id": "order_id",
        "Amount (EUR)": "amount",
        "event_timestamp": "event_timestamp",
        "created_timestamp": "created_timestamp",
    }


def test_a_column_with_a_name_of_ours_is_refused() -> None:
    columns = {"source_file": {"type": "string"}}
    with pytest.raises(ConfigError, match=r"taken by Evergreen.*header: source_file"):
        headers(source(columns=columns, key=["source_file"]))


def test_columns_as_declared_differ_in_nothing() -> None:
    diff = column_diff(source(), [seen("a.csv", *WHOLE), seen("b.csv", *reversed(WHOLE))])
    assert (diff.missing, diff.extra, diff.renamed) == ((), (), ())
    assert diff.text(source()) == ""


def test_a_difference_names_the_file_and_asks_whether_a_column_was_renamed() -> None:
    renamed = ["amount_eur" if name == "Amount (EUR)" else name for name in WHOLE]
    diff = column_diff(source(extra="refuse"), [seen("a.csv", *WHOLE), seen("b.csv", *renamed)])
    assert (diff.missing, diff.extra) == (("Amount (EUR)",), ("amount_eur",))
    assert diff.text(source(extra="refuse")) == (
        "missing 'Amount (EUR)' (in b.csv); extra 'amount_eur' (in b.csv); "
        "is 'amount_eur' the renamed 'Amount (EUR)'? then write header: amount_eur under "
        "Amount (EUR)"
    )
    other = column_diff(source(), [seen("a.csv", *WHOLE, "weather")])
    assert (other.extra, other.renamed) == (("weather",), ())


def test_a_column_that_was_declared_after_the_rows_were_stored_is_missing_there() -> None:
    stored = ["order_id", "event_timestamp", "created_timestamp"]
    diff = column_diff(source(), [seen("a.csv", *WHOLE)], stored)
    assert diff.missing == ("Amount (EUR)",)
    assert "ingest them again" in diff.text(source())
    assert column_diff(source(), [], stored).missing == (), "no rows came: nothing is missing"
