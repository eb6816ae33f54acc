"""How simulated customers behave: seasons, shifts, and a truth of the stated difficulty."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from include.models.metrics import auc
from include.simulation import behaviour
from include.simulation import streams as simulation
from include.simulation.portfolio import FIRST_ACCOUNT, due, open_book
from tests.builders.simulated import SMALL, START, arrived, at, moments, sound


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
