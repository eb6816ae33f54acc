"""Each row of a read has an arrival: its own, a neighbour's, or the fallback."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from include.config.use_case import UseCase
from include.config.use_case_file import parse
from include.errors import ConfigError, SourceError
from include.ingestion.arrival_times import arrival_times, to_micros
from include.ingestion.sources import Delivery
from tests.builders.intake import COLUMNS, GOOD, HEAD, YAML, Intake

FALLBACK = datetime(2026, 1, 1, tzinfo=UTC)


def use_case(more: str = "") -> UseCase:
    return parse(YAML.format(path="orders.csv", more=more, columns=COLUMNS))


def delivery(*created: str | None, files: str = "", ordered: bool = True) -> Delivery:
    """Return a delivery of rows created at these hours of 1 January 2026; `files` by letter."""
    times = [f"2026-01-01T{hour}:00Z" if hour else hour for hour in created]
    columns = {
        "created_timestamp": pa.array(times, pa.string()),
        "event_timestamp": pa.array(times, pa.string()),
        "source_file": pa.array(list(files) or ["a"] * len(created), pa.string()),
        "source_row": pa.array(range(1, len(created) + 1), pa.int64()),
    }
    return Delivery(pa.table(columns), ordered=ordered)


def hours(given: Delivery, more: str = "") -> tuple[list[float], list[bool]]:
    """Return each row's arrival in hours after the fallback, and whether it was guessed."""
    times, guessed = arrival_times("orders", use_case(more), given, FALLBACK)
    assert times.dtype == np.int64
    return [(time - to_micros(FALLBACK)) / 3_600_000_000 for time in times], list(guessed)


def test_a_row_without_a_readable_arrival_goes_with_a_neighbour_of_its_file() -> None:
    given = delivery(None, "03:00", None, "junk", "05:00", None, files="aaaaab")
    assert hours(given) == ([3, 3, 3, 3, 5, 0], [True, False, True, True, False, True])


@pytest.mark.parametrize("more", ["", "null_values: [a, b, c, d, e]", "timezone: Europe/Berlin"])
def test_each_row_of_many_has_its_own_arrival(more: str) -> None:
    moments = to_micros(FALLBACK) + np.arange(300_000) * 1_000_000
    texts = pa.array(moments).cast(pa.timestamp("us")).cast(pa.timestamp("s")).cast(pa.string())
    columns = dict.fromkeys(
        ("created_timestamp", "event_timestamp"),
        pc.binary_join_element_wise(texts, pa.scalar("+00:00"), ""),
    )
    files = pa.array(["a"] * len(texts))
    given = Delivery(
        pa.table({**columns, "source_file": files, "source_row": np.arange(1, len(texts) + 1)})
    )
    times, guessed = arrival_times("orders", use_case(more), given, FALLBACK)
    assert np.array_equal(times, moments)
    assert not guessed.any()


def test_rows_in_no_order_have_no_neighbours() -> None:
    assert hours(delivery("03:00", None, "", ordered=False)) == ([3, 0, 0], [False, True, True])


def test_an_assumed_arrival_is_the_event_and_the_lag() -> None:
    assert hours(delivery("03:00", None), "arrival: event + 90m")[0] == [4.5, 4.5]


def test_a_read_without_rows_has_no_arrivals() -> None:
    times, guessed = arrival_times("orders", use_case(), Delivery(pa.table({})), FALLBACK)
    assert (len(times), len(guessed)) == (0, 0)
    assert hours(delivery()) == ([], [])


def test_a_time_zone_that_is_none_is_named() -> None:
    naive = Delivery(
        delivery("03:00").rows.set_column(
            0, "created_timestamp", pa.array(["2026-01-01T03:00"], pa.string())
        )
    )
    wrong = use_case().model_copy(deep=True)
    wrong.sources["orders"] = wrong.sources["orders"].model_copy(
        update={"timezone": "Mars/Olympus"}
    )
    with pytest.raises(ConfigError, match=r"shop, source orders: .*Mars/Olympus"):
        arrival_times("orders", wrong, naive, FALLBACK)


def test_a_column_that_is_not_there_is_named_with_the_header_that_may_be_it() -> None:
    rows = delivery("03:00").rows.rename_columns(
        ["created_timestmp", "event_timestamp", "source_file", "source_row"]
    )
    given = Delivery(rows, {"a": ("created_timestmp", "event_timestamp")})
    with pytest.raises(SourceError, match=r"'created_timestamp' says when a row.*created_timestmp"):
        arrival_times("orders", use_case(), given, FALLBACK)


def test_a_missing_arrival_column_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    made = Intake(tmp_path)
    made.put(HEAD.replace("created_timestamp", "created_timestmp") + GOOD)
    with pytest.raises(
        SourceError, match=r"'created_timestamp' says when a row arrives.*created_timestmp"
    ) as error:
        made.ingest()
    assert "orders.csv" in str(error.value)
    assert made.tables() == []
