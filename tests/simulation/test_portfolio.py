"""The simulated portfolio: customers, accounts, and a calendar of instalments."""

from __future__ import annotations

import numpy as np
import pytest

from include.simulation import portfolio
from include.simulation.portfolio import due, instalment_number, open_book, place_among_due
from tests.builders.simulated import START


def test_every_tenth_customer_has_a_second_account() -> None:
    book = open_book(5, 400, START)
    assert book.size == 440
    accounts, counts = np.unique(book.customer, return_counts=True)
    assert accounts.size == 400
    assert (counts == np.where(accounts % 10 == 0, 2, 1)).all()
    for column, names in (
        (book.product, portfolio.PRODUCTS),
        (book.method, portfolio.METHODS),
        (book.region, portfolio.REGIONS),
        (book.age_group, portfolio.AGE_GROUPS),
        (book.gender, portfolio.GENDERS),
    ):
        assert set(np.unique(column)) == set(range(len(names)))


def test_an_account_pays_once_in_each_of_its_cycles() -> None:
    book = open_book(5, 400, START)
    account, day = due(book, 0, 27)
    counts = np.bincount(account, minlength=book.size)
    assert (counts == 28 // book.cycle).all()
    number = instalment_number(book, account, day)
    assert number.min() >= 1
    for one in (0, 100, 439):
        assert np.diff(number[account == one]).tolist() == [1] * (counts[one] - 1)
    assert [len(part) for part in due(book, -20, -1)] == [0, 0], "nothing before the first day"


@pytest.mark.parametrize("customers", [1, 9, 400])
def test_places_of_a_day_count_its_instalments(customers: int) -> None:
    book = open_book(5, customers, START)
    for first in range(14):
        account, day = due(book, first, first)
        place, total = place_among_due(book, account, day)
        assert sorted(place) == list(range(account.size))
        assert (total == account.size).all()
