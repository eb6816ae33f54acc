"""What the bank's systems send: rows as text, with the faults of a real feed at stated rates.

A row arrives within three hours of its event; of every 1000 rows 40 come late (up to three days)
and 5 come twice; of every 1000 payments 10 are sent wrong first and corrected within three days of
the event. From the third week on, of 210 due rows one comes with a damaged copy under an id of its
own, of reminders about one in 280; never two of the same 70 due rows (or 280 instalments), so the
malformed rows of a day stay below one in a hundred however small the portfolio.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from include.simulation import portfolio as books
from include.simulation.behaviour import (
    COVARIATE_SHIFT,
    DAY,
    LATEST_PAYMENT,
    payment_delays,
    probability,
    strength,
    turned,
)
from include.simulation.draws import Floats, Ints, keys, normal, uniform
from include.simulation.portfolio import Portfolio

LATE, TWICE, CORRECTED = 0.04, 0.005, 0.01
ARRIVAL_LAG = 3
"""Days after its event by which every row, late or corrected, has arrived."""

# By payment method: whether reading a reminder, or answering a call, is a good sign or a bad one.
_READS = np.array([-1.0, 1.0, 1.0])
_ANSWERS = np.array([1.0, -1.0, 1.0])
_HOUR = 3_600  # seconds, like all moments here, from the portfolio's start
_TERM = 1_820  # days in which a principal is paid back
_PROMPT = 3 * _HOUR  # in which a row arrives that is not late
_CONTACT_SPAN = 13  # days after the due day in which contacts may happen
_WHOLE_FROM = 14  # day from which rows come damaged too
_FIRST_REMINDER = 5  # days after the due day
_CHUNK_ROWS = 2_000_000  # about so many rows are made at once
_LEAST_DAYS, _MOST_DAYS = 7, 31  # which a batch is of: each looks at forty days before it again
# The last word of kinds and contacts is none that a contract allows: damaged rows have it.
_KINDS = np.array(["due", "paid", "refund?"])
_CONTACTS = np.array(["reminder", "call", "promise", "visit?"])
_OUTCOMES = np.array(["unread", "read", "no_answer", "answered", "made"])
_CHANNELS = np.array(["sms", "email", "letter", "phone"])
_Columns = dict[str, NDArray[Any]]


def batches(
    stream: str, first: datetime, until: datetime, *, book: Portfolio, concept_shift: int | None
) -> Iterator[pa.Table]:
    """Yield the rows of an event stream that arrive in `[first, until)`, some days at a time."""
    build, text = {
        "instalments": (_instalments, _instalment_text),
        "contacts": (_contacts, _contact_text),
    }[stream]
    start, end = _seconds(book, first), _seconds(book, until)
    # Days at a time; each batch also looks at all instalments that may still be paid in it.
    days = _CHUNK_ROWS // (book.size // 10 + 1) - LATEST_PAYMENT
    step = min(_MOST_DAYS, max(_LEAST_DAYS, days)) * DAY
    for begin in range(start, max(end, start + 1), step):
        stop = min(begin + step, end)
        yield text(book, _deliver(book, build(book, begin, stop, concept_shift), begin, stop))


@lru_cache(maxsize=4)
def accounts(book: Portfolio) -> pa.Table:
    """Return the accounts' master data, one row an account."""
    opened = np.datetime64(book.start, "D") + book.opened
    return pa.table(
        {
            "account_id": _whole(np.arange(book.size) + books.FIRST_ACCOUNT),
            "customer_id": _whole(book.customer + books.FIRST_CUSTOMER),
            "product": _words(np.array(books.PRODUCTS), book.product),
            "method": _words(np.array(books.METHODS), book.method),
            "region": _words(np.array(books.REGIONS), book.region),
            "principal": _whole(book.principal),
            "cycle_days": _whole(book.cycle),
            "opened": pa.array(opened).cast(pa.string()),
            "age_group": _words(np.array(books.AGE_GROUPS), book.age_group),
            "gender": _words(np.array(books.GENDERS), book.gender),
        }
    )


@lru_cache(maxsize=1)
def _cycles(
    book: Portfolio, first: int, last: int, concept_shift: int | None
) -> tuple[Ints, Ints, Floats, Ints]:
    """Return account, due day, log-odds and seconds to payment of instalments.

    Of all those of which something may happen in these days. The last answer is kept: the streams
    of one interval ask for the same.
    """
    account, day = books.due(book, first - LATEST_PAYMENT - 1, last)
    odds = strength(book, account, day, concept_shift)
    return account, day, odds, payment_delays(book, account, day, odds, turned(day, concept_shift))


def _instalments(book: Portfolio, start: int, stop: int, concept_shift: int | None) -> _Columns:
    """Return every due and paid event of which a row may arrive in `[start, stop)`."""
    oldest = start - ARRIVAL_LAG * DAY
    account, day, _, delay = _cycles(book, oldest // DAY, (stop - 1) // DAY, concept_shift)
    due = day * DAY + books.DUE_HOUR * _HOUR
    dues = np.flatnonzero((due >= oldest) & (due < stop))
    payments = np.flatnonzero((due + delay >= oldest) & (due + delay < stop))
    rows = np.concatenate([dues, payments])
    kind = np.repeat(np.array([0, 1]), [dues.size, payments.size])
    account, day, due = account[rows], day[rows], due[rows]
    delay = delay[rows] * kind
    dearer = (day >= COVARIATE_SHIFT) & (book.product[account] != 3)
    cents = book.principal[account] * book.cycle[account] * np.where(dearer, 170, 100) // _TERM
    number = books.instalment_number(book, account, day)
    return {
        "id": ((account + books.FIRST_ACCOUNT) * 10_000 + number) * 10 + kind + 1,
        "account": account,
        "kind": kind,
        "event": due + delay,
        "due": due,
        "number": number,
        "amount": cents,
        "days_late": np.where(kind == 1, delay // DAY, -1),
        "correctable": kind,
        "damaged": (kind == 0) & _struck(book, account, day, block=70, of=210),
    }


def _contacts(book: Portfolio, start: int, stop: int, concept_shift: int | None) -> _Columns:
    """Return every reminder, call and promise of which a row may arrive in `[start, stop)`."""
    oldest = start - ARRIVAL_LAG * DAY
    account, day, odds, unpaid = _cycles(book, oldest // DAY, (stop - 1) // DAY, concept_shift)
    waiting = np.flatnonzero(
        (day >= oldest // DAY - _CONTACT_SPAN) & (unpaid > _FIRST_REMINDER * DAY)
    )
    account, day, odds, unpaid = account[waiting], day[waiting], odds[waiting], unpaid[waiting]
    chance = keys(book.seed, 6, account, day)
    reminded = (_FIRST_REMINDER + (day < COVARIATE_SHIFT)) * DAY + (
        uniform(chance, 0) * 8 * _HOUR
    ).astype(np.int64)
    called = 9 * DAY + (uniform(chance, 1) * 2 * DAY).astype(np.int64)
    signal = 1.2 * turned(day, concept_shift) * (odds - 2.0)
    read = uniform(chance, 2) < probability(_READS[book.method[account]] * signal)
    answered = uniform(chance, 3) < probability(_ANSWERS[book.method[account]] * signal)
    promised = called + 60 + (uniform(chance, 4) * 900).astype(np.int64)
    for_days = 1 + np.maximum(0, 14 - 14 * probability(odds * 0.5) + normal(chance, 5)).astype(
        np.int64
    )
    reminders = np.flatnonzero((unpaid > reminded) & (uniform(chance, 6) < 0.9))
    calls = np.flatnonzero((unpaid > called) & (uniform(chance, 7) < 0.8))
    promises = calls[(answered & (uniform(chance, 8) < 0.7))[calls]]
    rows = np.concatenate([reminders, calls, promises])
    kind = np.repeat(np.arange(3), [reminders.size, calls.size, promises.size])
    after = np.choose(kind, [reminded[rows], called[rows], promised[rows]])
    outcome = np.choose(kind, [read[rows] * 1, 2 + answered[rows], 4])
    channel = np.where(kind == 0, (uniform(chance[rows], 9) * 3).astype(np.int64), 3)
    account, day = account[rows], day[rows]
    event = day * DAY + books.DUE_HOUR * _HOUR + after
    number = books.instalment_number(book, account, day)
    return {
        "id": ((account + books.FIRST_ACCOUNT) * 10_000 + number) * 10 + kind + 4,
        "account": account,
        "kind": kind,
        "event": event,
        "outcome": outcome,
        "channel": channel,
        "promised": np.where(kind == 2, event // DAY + for_days[rows], -1),
        "correctable": np.zeros(rows.size, np.int64),
        "damaged": (kind == 0) & _struck(book, account, day, block=280, of=280),
    }


def _struck(book: Portfolio, account: Ints, day: Ints, *, block: int, of: int) -> NDArray[np.bool_]:
    """Choose at most one of each whole `block` of a day's instalments, each one time in `of`."""
    place, total = books.place_among_due(book, account, day)
    group, place = np.divmod(place, block)
    chosen = (uniform(keys(book.seed, 8, day, group), block) * of).astype(np.int64)
    struck: NDArray[np.bool_] = (
        (day >= _WHOLE_FROM) & ((group + 1) * block <= total) & (chosen == place)
    )
    return struck


def _deliver(book: Portfolio, rows: _Columns, start: int, stop: int) -> _Columns:
    """Return the rows that arrive in `[start, stop)`, with the faults, in order of arrival.

    Adds `created` (when a row arrives), `wrong` (1: a first version that is corrected later) and
    `damage` (0: none, else which kind).
    """
    rows = _take(rows, np.flatnonzero(rows["event"] < stop))
    chance = keys(book.seed, 7, rows["id"])
    when, late = uniform(chance, 0), uniform(chance, 1) < LATE
    lag = np.where(
        late, _PROMPT + when * when * (ARRIVAL_LAG * DAY - _PROMPT), 60 + when * (_PROMPT - 60)
    )
    rows["created"] = rows["event"] + lag.astype(np.int64)
    rows["wrong"] = (
        (uniform(chance, 2) < CORRECTED) & ~late & (rows.pop("correctable") == 1)
    ).astype(np.int64)
    rows["damage"] = np.zeros(chance.size, np.int64)
    damaged = np.flatnonzero(rows.pop("damaged"))
    damage = 1 + (uniform(chance[damaged], 4) * 4).astype(np.int64)
    corrected = np.flatnonzero(rows["wrong"])
    mended = (
        rows["created"][corrected]
        + 6 * _HOUR
        + (uniform(chance[corrected], 5) * 2 * DAY).astype(np.int64)
    )
    twice = np.flatnonzero(uniform(chance, 6) < TWICE)
    every = _take(rows, np.concatenate([np.arange(chance.size), twice, corrected, damaged]))
    fixed = slice(chance.size + twice.size, chance.size + twice.size + corrected.size)
    every["created"][fixed], every["wrong"][fixed] = mended, 0
    prompt = 60 + (uniform(chance[damaged], 3) * (_PROMPT - 60)).astype(np.int64)
    every["damage"][fixed.stop :], every["wrong"][fixed.stop :] = damage, 0
    every["created"][fixed.stop :] = rows["event"][damaged] + prompt
    every["id"][fixed.stop :] += 1_000_000_000_000_000  # an id of its own, so no correction
    every = _take(every, np.flatnonzero((every["created"] >= start) & (every["created"] < stop)))
    # By id within a second, so that a day's bytes do not depend on how it was computed.
    return _take(every, np.lexsort((every["id"], every["created"])))


def _instalment_text(book: Portfolio, rows: _Columns) -> pa.Table:
    """Return rows as a file has them; a wrong amount is a tenth, a damaged row breaks a rule."""
    wrong, damage = rows["wrong"] == 1, rows["damage"]
    amount = (
        np.where(wrong, rows["amount"] // 10, rows["amount"]) * np.where(damage == 2, -1, 1) / 100
    )
    days_late = np.where(wrong, rows["days_late"] + 11, rows["days_late"])
    return pa.table(
        {
            "event_id": _whole(rows["id"], missing=damage == 4),
            **_whose(book, rows),
            "kind": _words(_KINDS, np.where(damage == 3, 2, rows["kind"])),
            "instalment": _whole(rows["number"]),
            "due_at": _time(book, rows["due"]),
            "amount": pa.array(amount).cast(pa.string()),
            "days_late": _whole(days_late, missing=days_late < 0),
            **_times(book, rows),
        }
    )


def _contact_text(book: Portfolio, rows: _Columns) -> pa.Table:
    """Return rows as a file has them; a damaged row breaks a rule."""
    damage = rows["damage"]
    promised = pa.array(
        np.datetime64(book.start, "D") + rows["promised"], mask=rows["promised"] < 0
    ).cast(pa.string())
    channel = _words(_CHANNELS, rows["channel"])
    return pa.table(
        {
            "contact_id": _whole(rows["id"], missing=damage == 4),
            **_whose(book, rows),
            "kind": _words(_CONTACTS, np.where(damage == 3, 3, rows["kind"])),
            "channel": pc.if_else(damage == 2, "0x00", channel),
            "outcome": _words(_OUTCOMES, rows["outcome"]),
            "promised_for": promised,
            **_times(book, rows),
        }
    )


def _whose(book: Portfolio, rows: _Columns) -> dict[str, pa.Array]:
    account = rows["account"]
    return {
        "account_id": _whole(account + books.FIRST_ACCOUNT),
        "customer_id": _whole(book.customer[account] + books.FIRST_CUSTOMER),
    }


def _times(book: Portfolio, rows: _Columns) -> dict[str, pa.Array]:
    happened = _time(book, rows["event"])
    if (rows["damage"] == 1).any():
        happened = pc.if_else(rows["damage"] == 1, "31/02 25:61", happened)
    return {"event_timestamp": happened, "created_timestamp": _time(book, rows["created"])}


def _time(book: Portfolio, seconds: Ints) -> pa.Array:
    since = int(np.datetime64(book.start, "s").astype(np.int64))
    text = pa.array(seconds + since).cast(pa.timestamp("s")).cast(pa.string())
    # A cast of times with a zone costs thirty times as much.
    return pc.binary_join_element_wise(text, "Z", "")


def _whole(values: Ints, missing: np.ndarray | None = None) -> pa.Array:
    return pa.array(values, mask=missing).cast(pa.string())


def _words(words: np.ndarray, codes: Ints) -> pa.Array:
    return pa.array(words.tolist()).take(pa.array(codes))


def _take(rows: _Columns, index: Ints) -> _Columns:
    return {name: values[index] for name, values in rows.items()}


def _seconds(book: Portfolio, moment: datetime) -> int:
    """Return the first whole second at or after `moment`, from the portfolio's start."""
    start = datetime(book.start.year, book.start.month, book.start.day, tzinfo=UTC)
    return -((start - moment) // timedelta(seconds=1))
