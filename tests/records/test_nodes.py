"""What serving nodes report: the last report of each, role by role, until it expires."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from include import clock
from include.records.records import Records, RoleReport
from include.records.schema import ObservationRow


def report(
    records: Records, node: str, state: str, *, boot: str = "1", expires: float = 60
) -> None:
    role = RoleReport("champion", 7, "sha256:7", state)
    records.nodes.report("loans", node, boot, generation=3, roles=[role], expires_seconds=expires)


def test_a_node_reports_by_role_and_replaces_what_it_said(records: Records) -> None:
    report(records, "b", "loading")
    report(records, "a", "serving")
    report(records, "b", "could_not", boot="2")
    assert [(row.node, row.boot, row.state, row.living) for row in records.nodes.of("loans")] == [
        ("a", "1", "serving", True),
        ("b", "2", "could_not", True),
    ]
    assert records.nodes.of("other") == []


def test_a_report_is_believed_until_it_expires_by_the_databases_clock(records: Records) -> None:
    report(records, "gone", "serving", expires=-1)
    report(records, "here", "serving")
    assert {row.node: row.living for row in records.nodes.of("loans")} == {
        "gone": False,
        "here": True,
    }
    records.nodes.stopped("here", "1")
    assert not any(row.living for row in records.nodes.of("loans"))


def test_no_clock_but_the_databases_counts(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither that of who reports, nor that of who reads."""
    monkeypatch.setattr(clock, "utc_now", lambda: datetime(2199, 1, 1, tzinfo=UTC))
    report(records, "gone", "serving", expires=-1)
    report(records, "here", "serving")
    assert {row.node: row.living for row in records.nodes.of("loans")} == {
        "gone": False,
        "here": True,
    }


def test_what_gave_no_sign_for_a_day_is_removed(records: Records) -> None:
    report(records, "old", "serving", expires=-90_000)
    report(records, "new", "serving")
    assert records.nodes.forget_silent() == 1
    with records.transaction() as session:
        nodes = session.scalars(select(ObservationRow.node)).all()
    assert nodes == ["new"]
