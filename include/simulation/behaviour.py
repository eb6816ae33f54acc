"""How customers behave: the true probability that an instalment is paid in time, and when it is.

In time is within 30 days of the due time. The probability depends only on hidden state (lasting
willingness, liquidity that drifts over months, product with region, age of the account, season),
never on what happened by chance. Payments and contacts reveal that state, each payment method in
its own way: a late debit is a bad sign, a transfer is late by habit too, and of those who pay on
salary day the ones with money pay late.
"""

from __future__ import annotations

import math

import numpy as np

from include.simulation.draws import Floats, Ints, keys, normal, uniform
from include.simulation.portfolio import Portfolio

DAY = 86_400  # seconds
COVARIATE_SHIFT = 60
"""Day of the portfolio from which two regions are short of money, dearer instalments fall due,
and reminders go out earlier.
"""
PAID_WITHIN = 30  # days after the due time in which a payment counts
LATEST_PAYMENT = 40  # days after the due time until which one may come at all
NEVER = 10_000 * DAY

_KNOT = 100  # days between two points of the curve of somebody's liquidity
_CALM = 0.7  # around it a concept shift turns what a delay says
_GRID = 128  # steps of a table of the logistic function in one unit of log-odds
# Rounded to 12 digits, so that the last bit of a machine's exp() makes no difference.
_LOGISTIC = np.array(
    [round(1 / (1 + math.exp(-i / _GRID)), 12) for i in range(-12 * _GRID, 12 * _GRID + 1)]
)
# Days of delay by payment method (a column each): usual, by probability, by idle habit.
_LATENESS = np.array([[11.0, 8.0, 1.0], [-12.0, -10.0, 9.0], [0.0, 3.0, 0.0]])


def strength(book: Portfolio, account: Ints, day: Ints, concept_shift: int | None) -> Floats:
    """Return the log-odds that the instalment of `account` due on `day` is paid within 30 days."""
    will, money, place = book.will[account], liquidity(book, account, day), book.place[account]
    if concept_shift is not None:
        place = np.where(day >= concept_shift, -place, place)
    months = (day - book.opened[account]) / 30.4
    lull = np.maximum(0.0, 1 - np.abs(months - 14) / 6)
    need = np.minimum(will, 0) * np.minimum(money, 0)
    return 2.85 + 1.84 * will + money + 0.6 * place - 0.4 * need - 0.8 * lull + _season(book, day)


def probability(odds: Floats) -> Floats:
    """Return the logistic function of log-odds, from a table: the same on any machine."""
    place = np.clip(np.floor(odds * _GRID + 0.5), -12 * _GRID, 12 * _GRID).astype(np.int64)
    out: Floats = _LOGISTIC[place + 12 * _GRID]
    return out


def liquidity(book: Portfolio, account: Ints, day: Ints) -> Floats:
    """Return the customer's money at hand (mean 0, variance 1), smooth in time.

    In two regions it falls on the day of the covariate shift.
    """
    position = day / _KNOT + book.drift[account]
    knot = np.floor(position).astype(np.int64)
    first, last = (int(knot.min()), int(knot.max())) if knot.size else (0, 0)
    people = int(book.customer.max()) + 1
    values = normal(
        keys(book.seed, 4, np.arange(people), np.arange(first, last + 2)[:, None]), 0
    ).ravel()
    place = (knot - first) * people + book.customer[account]
    step = position - knot
    weight = step * step * (3 - 2 * step)  # smooth at the knots: its slope is 0 there
    smooth: Floats = values[place] * (1 - weight) + values[place + people] * weight
    smooth /= np.sqrt(1 - 2 * weight * (1 - weight))  # between knots the mean varies less
    smooth -= np.where((day >= COVARIATE_SHIFT) & (book.region[account] < 2), 0.4, 0.0)
    return smooth


def turned(day: Ints, concept_shift: int | None) -> Floats:
    """Return 1, or -1 from a concept shift on.

    Signs of payment and contact then mean the opposite of what they meant.
    """
    return (
        np.where(day >= concept_shift, -1.0, 1.0)
        if concept_shift is not None
        else np.ones(day.size)
    )


def payment_delays(book: Portfolio, account: Ints, day: Ints, odds: Floats, sign: Floats) -> Ints:
    """Return the seconds from due time to payment, NEVER where none comes."""
    chance = keys(book.seed, 5, account, day)
    spread = uniform(chance, 1)
    calm = probability((odds - 1) * 0.45)
    usual, slope, idle = (column[book.method[account]] for column in _LATENESS)
    days = (
        usual
        + slope * (_CALM + sign * (calm - _CALM))
        + idle * book.habit[account]
        + 0.6 * normal(chance, 2)
    )
    in_time = np.clip(days, 0.02 + spread, PAID_WITHIN - 0.1)
    too_late = np.where(
        uniform(chance, 3) < 0.3 + 0.6 * calm,
        PAID_WITHIN + 0.05 + (LATEST_PAYMENT - PAID_WITHIN - 0.1) * spread,
        NEVER / DAY,
    )
    paid = uniform(chance, 0) < probability(odds)
    return (np.where(paid, in_time, too_late) * DAY).astype(np.int64)


def _season(book: Portfolio, day: Ints) -> Floats:
    """Return what the time of the year adds to the log-odds: most in the middle of May."""
    if day.size == 0:
        return np.zeros(0)
    first, offset = int(day.min()), book.start.timetuple().tm_yday - 135
    wave = [
        round(0.25 * math.cos(2 * math.pi * (each + offset) / 365.25), 9)
        for each in range(first, int(day.max()) + 1)
    ]
    out: Floats = np.array(wave)[day - first]
    return out
