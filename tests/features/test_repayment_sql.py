"""The shipped SQL of the repayment use case, on rows at the boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from include.lake.tables import Lake
from include.point_in_time.curated import curated_schema
from include.point_in_time.queries import resolve_sql
from include.point_in_time.views import AsOfViews
from tests.builders.portfolio_frames import repayment

DUE = datetime(2026, 3, 2, 9, tzinfo=UTC)
DAY, MICRO = timedelta(days=1), timedelta(microseconds=1)
AS_OF = datetime(2026, 4, 30, 2, tzinfo=UTC)


def event(
    kind: str, when: datetime, *, created: datetime | None = None, number: int = 1, account: int = 1
) -> dict[str, Any]:
    """A row of `instalments`; payments are of the instalment that fell due at DUE, one a number."""
    return {
        "event_id": account * 1000 + number * 10 + (kind == "paid"),
        "account_id": account,
        "customer_id": 1,
        "kind": kind,
        "instalment": number,
        "due_at": when if kind == "due" else DUE,
        "amount": 10.0 * number,
        "days_late": None if kind == "due" else (when - DUE).days,
        "event_timestamp": when,
        "created_timestamp": created or when + timedelta(hours=1),
    }


def contact(
    kind: str, when: datetime, outcome: str, promised_for: date | None = None
) -> dict[str, Any]:
    return {
        "contact_id": int(when.timestamp()),
        "account_id": 1,
        "customer_id": 1,
        "kind": kind,
        "channel": "phone",
        "outcome": outcome,
        "promised_for": promised_for,
        "event_timestamp": when,
        "created_timestamp": when,
    }


def ask(
    folder: Path,
    what: str,
    instalments: list[dict[str, Any]],
    contacts: Sequence[dict[str, Any]] = (),
    as_of: datetime = AS_OF,
) -> list[dict[str, Any]]:
    """Answer the label's or a view's SQL over rows as known before `as_of`."""
    use_case = repayment()
    if what == "label":
        sql, lookback = use_case.label.sql, use_case.label.lookback
    else:
        sql, lookback = use_case.features[what].sql, use_case.features[what].lookback
    account = {
        "account_id": 1,
        "customer_id": 1,
        "product": "auto",
        "opened": date(2025, 3, 1),
        "principal": 5.0,
    }
    account |= dict.fromkeys(
        ("event_timestamp", "created_timestamp"), datetime(2026, 1, 1, tzinfo=UTC)
    )
    rows = {"instalments": instalments, "contacts": list(contacts), "accounts": [account]}
    tables = {
        name: pa.Table.from_pylist(rows[name], curated_schema(use_case.sources[name]))
        for name in rows
    }
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    with AsOfViews(con, Lake(str(folder)), use_case, keys=(), more=tables) as views:
        views.at_moment(as_of, interval_start=as_of - DAY, since=as_of - lookback)
        return [dict(row) for row in views.query(resolve_sql(use_case, str(sql))).to_pylist()]


@pytest.mark.parametrize(("after", "label"), [(30 * DAY, 1.0), (30 * DAY + MICRO, 0.0)])
def test_a_payment_within_30_days_is_positive(
    tmp_path: Path, after: timedelta, label: float
) -> None:
    rows = ask(
        tmp_path, "label", [event("due", DUE), event("paid", DUE + after)], as_of=DUE + 34 * DAY
    )
    assert [row["label"] for row in rows] == [label]
    assert rows[0]["event_timestamp"] == DUE


def test_a_positive_is_known_when_the_payment_is(tmp_path: Path) -> None:
    rows = [event("due", DUE), event("paid", DUE + DAY, created=DUE + 3 * DAY)]
    assert ask(tmp_path, "label", rows, as_of=DUE + 3 * DAY) == []
    known = ask(tmp_path, "label", rows, as_of=DUE + 3 * DAY + MICRO)
    assert [row["label_timestamp"] for row in known] == [DUE + 3 * DAY]


def test_a_negative_is_known_when_no_payment_can_arrive_any_more(tmp_path: Path) -> None:
    assert ask(tmp_path, "label", [event("due", DUE)], as_of=DUE + 33 * DAY) == []
    known = ask(tmp_path, "label", [event("due", DUE)], as_of=DUE + 33 * DAY + MICRO)
    assert [(row["label"], row["label_timestamp"]) for row in known] == [(0.0, DUE + 33 * DAY)]
    last = [event("due", DUE), event("paid", DUE + 30 * DAY, created=DUE + 33 * DAY - MICRO)]
    assert [row["label"] for row in ask(tmp_path, "label", last, as_of=DUE + 33 * DAY + MICRO)] == [
        1.0
    ]


def test_the_delay_covers_all_that_may_arrive() -> None:
    from include.simulation.behaviour import PAID_WITHIN
    from include.simulation.feed import ARRIVAL_LAG

    assert repayment().label.delay == (PAID_WITHIN + ARRIVAL_LAG) * DAY
    assert repayment().label.lookback > repayment().label.delay + repayment().cut_off + DAY


def test_behaviour_of_an_account(tmp_path: Path) -> None:
    first, second, third = DUE, AS_OF - 15 * DAY, AS_OF - 3 * DAY
    rows = [event("due", first), event("due", second, number=2), event("due", third, number=3)]
    contacts = [
        contact("reminder", AS_OF - 9 * DAY, "read"),
        contact("reminder", AS_OF - 8 * DAY, "unread"),
        contact("call", AS_OF - 7 * DAY, "answered"),
        contact("promise", AS_OF - 6 * DAY, "made", (AS_OF - 2 * DAY).date()),
    ]
    [row] = ask(tmp_path, "behaviour", [*rows, event("paid", DUE + 31 * DAY)], contacts)
    expected = {
        "account_id": 1,
        "dues_90d": 3,
        "open_30d": 2,
        "open_age": 15,
        "missed_share_90d": 1.0,
        "missed_share_60d": 1.0,
        "days_late_avg_90d": 31.0,
        "days_late_avg_35d": None,
        "days_late_median_90d": 31.0,
        "days_late_sd_90d": None,
        "days_late_last": 31,
        "days_since_paid": 28,
        "amount_last": 30.0,
        "reminders_read_share": 0.5,
        "calls_90d": 1,
        "calls_answered_share": 1.0,
        "promises_90d": 1,
        "promised_days_last": 4,
        "days_since_contact": 6,
    }
    assert row == expected
    [punctual] = ask(tmp_path, "behaviour", [*rows, event("paid", DUE + 2 * DAY)])
    assert (punctual["missed_share_90d"], punctual["days_late_last"], punctual["calls_90d"]) == (
        0.0,
        2,
        0,
    )


def test_profile_ages_with_as_of(tmp_path: Path) -> None:
    [row] = ask(tmp_path, "profile", [], as_of=datetime(2026, 3, 1, 2, tzinfo=UTC))
    assert row["months_open"] == pytest.approx(365 / 30.4)
    assert (row["product"], row["principal"], row["gender"]) == ("auto", 5.0, None)


def test_every_declared_feature_comes_from_its_view(tmp_path: Path) -> None:
    for name, view in repayment().features.items():
        [row] = ask(tmp_path, name, [event("due", DUE)])
        assert list(row) == ["account_id", *view.columns]
