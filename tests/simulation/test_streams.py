"""The simulated streams: addressable by interval, and written as the files of days."""

from __future__ import annotations

from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from include.errors import ConfigError
from include.simulation import streams as simulation
from tests.builders.simulated import SMALL, START, STREAMS, arrived, at, moments


@pytest.mark.parametrize("stream", STREAMS)
def test_a_day_depends_on_neither_order_nor_range(stream: str) -> None:
    whole = arrived(stream, 50, 90)
    backwards = {day: arrived(stream, day, day + 1) for day in reversed(range(50, 90))}
    assert pa.concat_tables([backwards[day] for day in range(50, 90)]).equals(
        whole.combine_chunks()
    )
    assert len(whole) > 1_000


@pytest.mark.parametrize("stream", STREAMS)
def test_a_cut_off_day_holds_what_arrives_in_it_to_the_second(stream: str) -> None:
    created = moments(arrived(stream, 60, 80)["created_timestamp"])
    assert (np.diff(created) >= np.timedelta64(0)).all()
    cut = simulation.arrivals(stream, at(70, 2), at(71, 2), **SMALL)
    first, until = np.datetime64("2026-03-12T02:00:00"), np.datetime64("2026-03-13T02:00:00")
    assert len(cut) == ((created >= first) & (created < until)).sum()
    edge = created[len(created) // 2].item().replace(tzinfo=UTC)
    micro = timedelta(microseconds=1)
    at_edge = int((created == created[len(created) // 2]).sum())
    assert len(simulation.arrivals(stream, edge, edge + micro, **SMALL)) == at_edge
    assert len(simulation.arrivals(stream, edge + micro, edge + timedelta(seconds=1), **SMALL)) == 0


def test_seed_customers_and_shift_matter_and_nothing_before_the_shift_changes() -> None:
    rows = arrived("instalments", 70, 75)
    assert rows.equals(arrived("instalments", 70, 75))
    assert not rows.equals(arrived("instalments", 70, 75, seed=6))
    assert not rows.equals(arrived("instalments", 70, 75, concept_shift=65))
    assert rows.equals(arrived("instalments", 70, 75, concept_shift=75))


def test_before_the_portfolio_and_in_an_empty_interval_nothing_arrives() -> None:
    assert len(arrived("instalments", -30, 0)) == 0
    assert len(arrived("contacts", 20, 20)) == 0
    assert arrived("contacts", 20, 20).schema == arrived("contacts", 20, 21).schema


def test_an_unknown_stream_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="no stream 'payments'; use one of instalments, contacts, accounts"
    ):
        arrived("payments", 1, 2)


def test_twenty_thousand_customers_make_a_million_events_in_180_days() -> None:
    rows = sum(len(arrived(stream, 0, 180, customers=2_000)) for stream in STREAMS)
    assert 95_000 < rows < 110_000


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_written_days_are_the_partitions_rows(tmp_path: Path, file_format: Any) -> None:
    from pyarrow import csv, parquet

    cut_off = timedelta(hours=2)
    last = START + timedelta(days=21)
    for _ in range(2):
        written = simulation.write_days(
            tmp_path,
            START + timedelta(days=20),
            last,
            **SMALL,
            cut_off=cut_off,
            file_format=file_format,
        )
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(written)
    path = tmp_path / "instalments" / f"{last}.{file_format}"
    expected = simulation.arrivals("instalments", at(21, 2), at(22, 2), **SMALL)
    options = csv.ConvertOptions(
        column_types=dict.fromkeys(expected.column_names, pa.string()), strings_can_be_null=True
    )
    found = (
        parquet.read_table(path)
        if file_format == "parquet"
        else csv.read_csv(path, convert_options=options)
    )
    assert found.combine_chunks().equals(expected.combine_chunks())
