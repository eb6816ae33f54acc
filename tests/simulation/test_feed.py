"""What the simulated systems send: payments with their instalments, faults at the stated rates."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from include.simulation import behaviour, feed
from include.simulation import streams as simulation
from tests.builders.simulated import SMALL, START, STREAMS, arrived, at, moments, own, sound


def test_blocks_of_days_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = arrived("instalments", 10, 50)
    monkeypatch.setattr(feed, "_CHUNK_ROWS", 1)
    assert len(list(simulation.batches("instalments", at(10), at(50), **SMALL))) == 6  # weeks
    assert arrived("instalments", 10, 50).equals(whole)
    monkeypatch.setattr(feed, "_LEAST_DAYS", 1)
    assert len(list(simulation.batches("instalments", at(10), at(50), **SMALL))) == 40
    assert arrived("instalments", 10, 50).equals(whole)


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
