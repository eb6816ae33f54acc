"""The portfolio: customers, their accounts, and when each instalment falls due."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import lru_cache

import numpy as np

from include.simulation.draws import Floats, Ints, keys, normal, uniform

PRODUCTS = ("personal", "auto", "card", "device")
METHODS = ("debit", "transfer", "salary")
REGIONS = ("north", "east", "south", "west", "centre", "coast")
AGE_GROUPS = ("18-25", "26-40", "41-60", "61+")
GENDERS = ("female", "male", "other")
FIRST_ACCOUNT = 1_000_001
FIRST_CUSTOMER = 7_000_001
DUE_HOUR = 9  # of the day, UTC

_CYCLE = np.array([14, 14, 7, 7])  # days between instalments, by product
_MEDIAN_PRINCIPAL = np.array([8000.0, 15000.0, 2500.0, 900.0])  # by product
_WILL_BY_AGE = np.array([-0.3, 0.0, 0.1, 0.15])

# By product (row) and region. Rows and columns sum to nearly 0: neither of the two tells it alone.
_PLACE = np.array(
    [
        [1.0, -1.0, 0.5, -1.0, 1.0, 0.0],
        [-1.0, 1.0, -0.5, 1.0, -1.0, 0.5],
        [1.0, 0.5, -1.0, -1.0, 0.5, 1.0],
        [-1.0, -0.5, 1.0, 1.0, 0.0, -1.0],
    ]
)


@dataclass(frozen=True, eq=False)
class Portfolio:
    """Accounts as columns, by position; whole numbers index the tuples above.

    Days count from `start`. `opened` is the (negative) day of opening, `cycle` the days between two
    instalments, and `calendar[cycle][i]` holds the accounts of that cycle of which an instalment
    falls due on the days i, i + cycle, ...; `rank` is the place of an account in its list. Hidden
    are `will`, the customer's lasting willingness to pay (mean 0, variance 1), `habit`, an idle
    habit of lateness, `drift`, where in its wave the liquidity begins, and `place`, what product
    and region do together.
    """

    seed: int
    start: date
    customer: Ints
    product: Ints
    method: Ints
    region: Ints
    age_group: Ints
    gender: Ints
    principal: Ints
    opened: Ints
    cycle: Ints
    calendar: dict[int, list[Ints]]
    rank: Ints
    will: Floats
    habit: Floats
    drift: Floats
    place: Floats

    @property
    def size(self) -> int:
        """Number of accounts."""
        return int(self.customer.size)


@lru_cache(maxsize=4)
def open_book(seed: int, customers: int, start: date) -> Portfolio:
    """Return the portfolio: one account for each customer, and a second one for every tenth."""
    customer = np.concatenate([np.arange(customers), np.arange(customers // 10) * 10])
    person = keys(seed, 1, customer)
    account = keys(seed, 2, np.arange(customer.size))
    age_group = _choice(uniform(person, 1), 0.17, 0.36, 0.32, 0.15)
    product = _choice(uniform(account, 0), 0.4, 0.22, 0.23, 0.15)
    region = _choice(uniform(person, 0), 0.22, 0.2, 0.18, 0.15, 0.15, 0.1)
    cycle = _CYCLE[product]
    weekday = _choice(uniform(account, 2), 0.2, 0.19, 0.19, 0.19, 0.17, 0.04, 0.02)
    later_week = np.where(cycle == 14, (uniform(account, 3) * 2).astype(np.int64), 0)
    principal = _MEDIAN_PRINCIPAL[product] * np.exp(0.5 * normal(account, 4))
    calendar = _calendar(cycle, (weekday - start.weekday()) % 7 + 7 * later_week)
    rank = np.zeros_like(customer)
    for members in (part for parts in calendar.values() for part in parts):
        rank[members] = np.arange(members.size)
    return Portfolio(
        seed=seed,
        start=start,
        customer=customer,
        product=product,
        method=_choice(uniform(account, 1), 0.36, 0.32, 0.32),
        region=region,
        age_group=age_group,
        gender=_choice(uniform(person, 2), 0.49, 0.49, 0.02),
        principal=np.round(principal / 10).astype(np.int64) * 10,
        opened=-(20 + 900 * uniform(account, 5) ** 1.5).astype(np.int64),
        cycle=cycle,
        calendar=calendar,
        rank=rank,
        will=normal(person, 3) + _WILL_BY_AGE[age_group],
        habit=uniform(account, 6),
        drift=uniform(person, 4),
        place=_PLACE[product, region],
    )


def due(book: Portfolio, first: int, last: int) -> tuple[Ints, Ints]:
    """Return account and day of every instalment that falls due on the days `first` to `last`."""
    days = range(max(first, 0), last + 1)
    parts = [(book.calendar[length][day % length], day) for length in book.calendar for day in days]
    none = np.zeros(0, np.int64)
    accounts = np.concatenate([part for part, _ in parts] or [none])
    return accounts, np.repeat(
        np.array([day for _, day in parts], np.int64), [part.size for part, _ in parts]
    )


def place_among_due(book: Portfolio, account: Ints, day: Ints) -> tuple[Ints, Ints]:
    """Return each account's place among those with an instalment on its day, and their number."""
    place, total = book.rank[account], np.zeros_like(account)
    for length, parts in book.calendar.items():
        size = np.array([part.size for part in parts])[day % length]
        place = place + np.where(book.cycle[account] > length, size, 0)
        total += size
    return place, total


def instalment_number(book: Portfolio, account: Ints, day: Ints) -> Ints:
    """Return which instalment of its account falls due on a day, counted from 1."""
    out: Ints = (day - book.opened[account]) // book.cycle[account] + 1
    return out


def _calendar(cycle: Ints, phase: Ints) -> dict[int, list[Ints]]:
    """Return the accounts by cycle and by the day of it on which an instalment falls due."""
    calendar = {}
    for length in np.unique(_CYCLE).tolist():
        members = np.flatnonzero(cycle == length)
        order = members[np.argsort(phase[members], kind="stable")]
        calendar[length] = np.split(order, np.searchsorted(phase[order], np.arange(1, length)))
    return calendar


def _choice(draws: Floats, *shares: float) -> Ints:
    """Return for each uniform draw the index of a share, as likely as that share."""
    return np.searchsorted(np.cumsum(shares)[:-1], draws, side="right").astype(np.int64)
