"""The simulated portfolio: addressable by interval, at the stated rates, with a truth of the
stated difficulty.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from include.config.durations import midnight
from include.errors import ConfigError
from include.models.metrics import auc
from include.simulation import behaviour, feed
from include.simulation import streams as simulation
from include.simulation.portfolio import FIRST_ACCOUNT, due, open_book

START = date(2026, 1, 1)
SMALL: dict[str, Any] = {"seed": 5, "customers": 400, "start": START}
STREAMS = ("instalments", "contacts")


def at(day: int, hours: int = 0) -> datetime:
    return midnight(START) + timedelta(days=day, hours=hours)


def arrived(stream: str, first: int, until: int, **changes: Any) -> pa.Table:
    return simulation.arrivals(stream, at(first), at(until), **{**SMALL, **changes})


def own(rows: pa.Table) -> pa.Array:
    """Tell which rows are no damaged copies (whose ids have 16 digits, or are missing)."""
    return pc.less(pc.cast(pc.fill_null(rows.column(0), "9" * 18), pa.int64()), 10**15)


def sound(rows: pa.Table) -> pa.Table:
    """The rows without damaged copies and without second copies."""
    return rows.filter(own(rows)).group_by(rows.column_names, use_threads=False).aggregate([])


def moments(column: pa.ChunkedArray) -> np.ndarray:
    return np.array([text.rstrip("Z") for text in column.to_pylist()], dtype="datetime64[s]")


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


def test_blocks_of_days_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = arrived("instalments", 10, 50)
    monkeypatch.setattr(feed, "_CHUNK_ROWS", 1)
    assert len(list(simulation.batches("instalments", at(10), at(50), **SMALL))) == 40
    assert arrived("instalments", 10, 50).equals(whole)


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


def test_faults_come_at_the_stated_rates() -> None:
    rows = pa.concat_tables(
        arrived("instalments", 0, 180, customers=2_000, seed=seed) for seed in (5, 6)
    )
    total, events = len(rows), sound(rows)
    damaged = total - len(rows.filter(own(rows)))
    assert 0.001 < damaged / total < 0.005
    assert (total - damaged - len(events)) / total == pytest.approx(feed.TWICE, rel=0.25)
    lag = moments(events["created_timestamp"]) - moments(events["event_timestamp"])
    assert lag.min() >= np.timedelta64(60, "s")
    assert lag.max() < np.timedelta64(feed.ARRIVAL_LAG, "D")
    assert (lag > np.timedelta64(3, "h")).mean() == pytest.approx(
        feed.LATE + 0.5 * feed.CORRECTED, rel=0.15
    )
    bad = rows.filter(pc.is_in(rows["event_timestamp"], pa.array(["31/02 25:61"])))
    assert len(bad) > 0
    assert rows["event_id"].null_count > 0
    assert len(rows.filter(pc.equal(rows["kind"], "refund?"))) > 0
    assert pc.min(pc.cast(rows["amount"], pa.float64())).as_py() < 0


@pytest.mark.parametrize("customers", [300, 500, 2_000, 6_000])
def test_a_day_never_has_one_malformed_row_in_a_hundred(customers: int) -> None:
    for stream in STREAMS:
        rows = arrived(stream, 0, 120, customers=customers)
        day = (
            (moments(rows["created_timestamp"]) - np.timedelta64(2, "h"))
            .astype("datetime64[D]")
            .astype(int)
        )
        every = np.bincount(day - day.min())
        bad = np.bincount(day - day.min(), weights=~own(rows).to_numpy())
        assert (bad <= 0.01 * every).all()
        assert bad.sum() > 0 or customers < {"instalments": 500, "contacts": 2_000}[stream]


def test_a_correction_has_the_same_key_and_other_values_and_comes_later() -> None:
    events = sound(arrived("instalments", 20, 120, customers=2_000)).to_pandas()
    events = events.sort_values(["event_id", "created_timestamp"])
    twice = events[events.duplicated("event_id", keep=False)]
    first, second = twice.iloc[::2].reset_index(), twice.iloc[1::2].reset_index()
    paid = (events.kind == "paid").sum()
    assert len(first) / paid == pytest.approx(feed.CORRECTED, rel=0.25)
    assert (first.event_id == second.event_id).all()
    assert (first.event_timestamp == second.event_timestamp).all()
    assert (first.created_timestamp < second.created_timestamp).all()
    assert (first.amount != second.amount).all()
    assert (first.days_late.astype(int) == second.days_late.astype(int) + 11).all()


def test_payments_belong_to_their_instalments() -> None:
    events = (
        sound(arrived("instalments", 0, 130))
        .to_pandas()
        .sort_values("created_timestamp")
        .drop_duplicates("event_id", keep="last")
    )
    dues, paid = (
        events[events.kind == kind].set_index(["account_id", "instalment"])
        for kind in ("due", "paid")
    )
    assert dues.index.is_unique
    assert paid.index.is_unique
    assert paid.index.isin(dues.index).mean() > 0.99, (
        "only those are missing whose due row is still on its way"
    )
    # Their corrections have arrived.
    settled = paid[paid.event_timestamp < str(START + timedelta(days=126))]
    both = dues.join(settled, rsuffix="_paid", how="inner")
    assert (both.due_at == both.due_at_paid).all()
    assert (both.amount == both.amount_paid).all()
    late = (
        moments(pa.chunked_array([both.event_timestamp_paid]))
        - moments(pa.chunked_array([both.due_at]))
    ) / np.timedelta64(1, "D")
    assert late.min() > 0
    assert late.max() < behaviour.LATEST_PAYMENT
    assert (np.floor(late) == both.days_late_paid.astype(float)).all()


def test_weeks_and_years_have_their_seasons() -> None:
    book = open_book(5, 2_000, START)
    _, days = due(book, 0, 27)
    weekday = np.bincount((days + START.weekday()) % 7, minlength=7) / len(days)
    assert weekday[:5].min() > 0.14
    assert weekday[5:].max() < 0.07
    account, _ = due(book, 0, 13)
    seasons = [float(behaviour._season(book, np.array([day]))[0]) for day in (135 - 1, 135 + 182)]
    assert seasons[0] > 0.2
    assert seasons[1] < -0.2
    assert np.unique(account).size == book.size


def test_the_covariate_shift_shows_in_the_amounts_of_day_60_and_not_before() -> None:
    accounts = simulation.arrivals("accounts", at(0), at(1), **SMALL)
    assert len(accounts) == SMALL["customers"] * 11 // 10
    rows = sound(arrived("instalments", 0, 90, customers=2_000)).to_pandas()
    rows = rows[rows.kind == "due"].assign(
        day=lambda t: (
            (moments(pa.chunked_array([t.due_at])) - np.datetime64(START))
            .astype("timedelta64[D]")
            .astype(int)
        )
    )
    amounts = (
        rows.assign(amount=rows.amount.astype(float))
        .groupby(rows.day >= behaviour.COVARIATE_SHIFT)
        .amount
    )
    edges = np.quantile(amounts.get_group(False), np.arange(0.1, 1, 0.1))
    before, after = (
        np.bincount(np.searchsorted(edges, amounts.get_group(side)), minlength=10)
        / len(amounts.get_group(side))
        for side in (False, True)
    )
    assert ((after - before) * np.log(after / before)).sum() > 0.2
    calm = rows[rows.day < 60].assign(amount=lambda t: t.amount.astype(float))
    assert (calm.groupby("account_id").amount.nunique() == 1).all()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_truth_separates_and_holds(seed: int) -> None:
    book = open_book(seed, 3_000, START)
    account, day = due(book, 120, 225)
    odds = behaviour.strength(book, account, day, None)
    paid = (
        behaviour.payment_delays(book, account, day, odds, behaviour.turned(day, None))
        <= behaviour.PAID_WITHIN * behaviour.DAY
    )
    truth = simulation.true_probability(
        account + FIRST_ACCOUNT,
        np.datetime64(START, "s") + day * np.timedelta64(1, "D") + np.timedelta64(9, "h"),
        seed=seed,
        customers=3_000,
        start=START,
    )
    assert 0.75 <= paid.mean() <= 0.85
    assert 0.89 <= auc(paid.astype(float), truth) <= 0.91
    for low in np.arange(0.0, 1.0, 0.1):
        bin_ = (truth >= low) & (truth < low + 0.1)
        assert paid[bin_].mean() == pytest.approx(truth[bin_].mean(), abs=0.05)


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
