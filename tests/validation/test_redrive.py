"""Quarantined rows that a person gives to a later partition: taken once, seen by no earlier day,
the same in every order.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from include.errors import Busy, ConfigError, Conflict
from include.lake.sql import connect
from include.point_in_time.partitions import period
from include.point_in_time.views import AsOfViews
from include.validation import redrive as redriving
from tests.builders.intake import HEAD
from tests.validation.till import AT, DAYS, LOOSE, ROWS, Till, copy


@pytest.mark.slow
def test_a_mended_row_enters_the_next_partition_and_its_own_keeps_its_digest(till: Till) -> None:
    before = {key: till.digests([key]) for key in DAYS[:2]}
    assert till.mend().into == DAYS[2]
    report = till.validate(DAYS[2])
    assert (report.outputs["verdict"], report.outputs["sources"]["orders"]["rows"]) == ("pass", 2)
    rows = {row["order_id"]: row for row in till.curated(DAYS[2])}
    assert (rows[2]["amount"], rows[2]["event_timestamp"]) == (
        20.0,
        datetime(2026, 1, 1, 11, tzinfo=UTC),
    )
    assert rows[2]["created_timestamp"] == datetime(2026, 1, 3, tzinfo=UTC)
    fact = till.result("ingest_data", DAYS[2]).outputs["sources"]["orders"]
    assert (fact["rows"], fact["redriven"], fact["files"]) == (2, 1, ["orders.csv"])
    assert {row["source_file"] for row in till.raw(DAYS[2])} == {
        "orders.csv",
        "redriven://2026-01-01/orders.csv",
    }
    for key in DAYS[:2]:
        till.validate(key)
        assert till.digests([key]) == before[key]


def test_no_earlier_as_of_sees_a_redriven_row(till: Till) -> None:
    """I1: it was known when the partition that took it began, whenever it happened."""
    till.mend()
    till.validate(DAYS[2])
    views = AsOfViews(connect(alone=True), till.lake, till.use_case, keys=DAYS[:3])
    seen = {}
    for key in DAYS[:3]:
        views.at(period(till.use_case, key), till.use_case.label.lookback)
        seen[key] = 2 in views.query("SELECT order_id FROM orders").column("order_id").to_pylist()
    assert seen == {DAYS[0]: False, DAYS[1]: False, DAYS[2]: True}


def test_a_rerun_takes_the_same_rows_and_the_source_digest_tells_them(till: Till) -> None:
    plain = till.result("ingest_data", DAYS[1]).outputs["sources"]["orders"]["source_digest"]
    till.mend()
    first = till.ingest(DAYS[2])
    versions = till.versions()
    again = till.ingest(DAYS[2])
    assert (again.digest, again.outputs) == (first.digest, first.outputs)
    assert first.outputs["sources"]["orders"]["source_digest"] != plain
    assert till.run("ingest_data", DAYS[2], force=True).reason == "equal to the record"
    assert till.versions() == versions
    assert "redriven" not in till.ingest(DAYS[3]).outputs["sources"]["orders"]


@pytest.mark.slow
def test_a_range_day_by_day_and_backwards_give_equal_digests(
    till_home: Path, tmp_path: Path
) -> None:
    found = []
    for how in ("range", "daily", "backwards"):
        till = copy(till_home, tmp_path / how)
        till.mend()
        rest = DAYS[2:]
        if how == "range":
            till.load(rest[0], rest[-1])
        for stage in (
            ("ingest_data", "validate_data", "materialize_features") if how != "range" else ()
        ):
            for key in rest if how == "daily" else rest[::-1]:
                till.run(stage, key)
        found.append(till.digests())
        assert [
            till.result("ingest_data", key).outputs["sources"]["orders"].get("redriven", 0)
            for key in rest
        ] == [1, 0, 0]
    assert found[0] == found[1] == found[2]


def test_a_row_is_redriven_once_and_only_if_it_would_pass(till: Till) -> None:
    with pytest.raises(
        ConfigError,
        match=r"2 of 2 rows of orders would fail again.*row 2: amount: not_float64.*--set",
    ):
        till.plan()
    with pytest.raises(ConfigError, match=r"1 of 1 rows.*amount: above_max"):
        till.plan(rule="amount: above_max", changes={"amount": "101"})
    till.mend()
    with pytest.raises(ConfigError, match="all 1 chosen rows are redriven already"):
        till.mend()
    late = till.plan(rule="amount: above_max", changes={"amount": "30"})
    assert (late.before, late.corrected, late.into) == (0, 1, DAYS[2])
    with pytest.raises(
        ConfigError,
        match=r"no quarantined row is chosen.*'amount: above_max', 'amount: not_float64'",
    ):
        till.plan(rule="amount: below_min")
    with pytest.raises(ConfigError, match="no column 'amuont' to set"):
        till.plan(changes={"amuont": "1"})
    with pytest.raises(ConfigError, match="no source 'order'"):
        till.plan(source="order")


def test_two_at_once_record_a_row_once(till: Till) -> None:
    plans = [
        till.plan(rule="amount: not_float64", changes={"amount": amount}) for amount in ("20", "21")
    ]
    redriving.record_redrive(
        till.settings, till.records, till.use_case, plans[0], reason="a", actor="ann", at=AT
    )
    with pytest.raises(Conflict, match="redriven already"):
        redriving.record_redrive(
            till.settings, till.records, till.use_case, plans[1], reason="b", actor="bob", at=AT
        )
    assert len(till.records.audit.entries("shop", action="quarantine.redriven")) == 1
    till.validate(DAYS[2])
    assert {row["order_id"]: row["amount"] for row in till.curated(DAYS[2])} == {5: 50.0, 2: 20.0}


def test_a_partition_that_is_being_or_was_ingested_meanwhile_takes_nothing(till: Till) -> None:
    plan = till.plan(rule="amount: not_float64", changes={"amount": "20"})

    def act() -> Any:
        return redriving.record_redrive(
            till.settings, till.records, till.use_case, plan, reason="x", actor="ann", at=AT
        )

    with (
        till.records.leases.claim("shop", "ingest_data", DAYS[2], owner="other", attempt=1, ttl=30),
        pytest.raises(Busy),
    ):
        act()
    till.ingest(DAYS[2])
    with pytest.raises(
        Conflict, match=rf"{DAYS[2]} was ingested meanwhile; redrive again, into {DAYS[3]}"
    ):
        act()
    assert till.records.audit.entries("shop", action="quarantine.redriven") == []
    assert till.mend().into == DAYS[3]


def test_who_why_and_which_are_on_the_audit_record(till: Till) -> None:
    till.mend()
    (entry,) = till.records.audit.entries("shop", action="quarantine.redriven")
    assert (entry.actor, entry.subject, entry.details["reason"]) == (
        "ann",
        DAYS[2],
        "the till wrote words",
    )
    assert (entry.details["which"], entry.details["corrected"]) == (
        [["orders", DAYS[0], "orders.csv", 2]],
        1,
    )
    assert till.records.audit.verify() is None
    with pytest.raises(ConfigError, match="needs a reason"):
        till.redrive(reason="  ", rule="amount: above_max", changes={"amount": "30"})


def test_a_contract_that_was_too_strict_needs_no_correction(till: Till) -> None:
    """And a naive row among aware ones neither fails nor makes others fail."""
    till.define(more=LOOSE)
    plan = till.redrive(rule="amount: above_max")
    assert (plan.corrected, plan.into) == (0, DAYS[2])
    till.redrive(
        rule="amount: not_float64",
        changes={"amount": "1", "event_timestamp": "2026-01-01 11:00:00"},
    )
    till.validate(DAYS[2])
    assert (sorted(row["order_id"] for row in till.curated(DAYS[2])), till.rules(DAYS[2])) == (
        [2, 3, 5],
        {},
    )


def test_redriven_rows_do_not_hide_that_nothing_was_delivered(till: Till) -> None:
    till.mend()
    till.put(
        HEAD + "".join(line for line in ROWS.splitlines(keepends=True) if not line.startswith("5,"))
    )
    assert till.ingest(DAYS[2]).state == "blocked"
    assert till.raw(DAYS[2]) == []
    till.put(HEAD + ROWS)
    assert till.ingest(DAYS[2]).outputs["sources"]["orders"]["redriven"] == 1


@pytest.mark.slow
def test_an_assumed_arrival_takes_them_too_and_no_closed_partition_changes(tmp_path: Path) -> None:
    till = Till(
        tmp_path, more=f"{LOOSE}\n    arrival: event + 1h\n    late: next\n    extra: ignore"
    )
    first = [till.result("ingest_data", key).digest for key in DAYS[:2]]
    till.define(more=f"{LOOSE}\n    arrival: event + 1h\n    late: next\n    extra: ignore")
    till.redrive(rule="amount: above_max")
    taken = [till.ingest(key).digest for key in DAYS[2:4]]
    assert till.result("ingest_data", DAYS[2]).outputs["sources"]["orders"]["late"] == 0
    assert [till.ingest(key).digest for key in DAYS[:4]] == first + taken
    till.run("validate_data", DAYS[2])
    assert {row["order_id"] for row in till.curated(DAYS[2])} == {3, 5}


def test_a_history_that_is_closed_has_no_later_partition(till: Till) -> None:
    path = till.folder / "shop.yaml"
    path.write_text(
        path.read_text().replace("first: 2026-01-01", "first: 2026-01-01, last: 2026-01-02")
    )
    with pytest.raises(ConfigError, match=r"ends with 2026-01-02.*--restate REASON"):
        till.mend()
