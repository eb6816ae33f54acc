"""What a partition takes of an event source: what arrives in it, and what comes late to others."""

from __future__ import annotations

import pytest

from include.errors import RestatementRefused, SourceError
from tests.builders.intake import HEAD, Intake
from tests.ingestion.test_ingest_data import ids, order


@pytest.mark.parametrize("partitioned", [False, True])
def test_an_assumed_arrival_follows_the_event(made: Intake, partitioned: bool) -> None:
    made.define(
        more='arrival: "event + 1d"', path="{partition}.csv" if partitioned else "orders.csv"
    )
    made.put(HEAD + "1,1,2026-01-01T23:59:59.999999Z,,1,1\n", "2026-01-02.csv")
    made.put(HEAD + "1,1,2026-01-01T23:59:59.999999Z,,1,1\n2,1,2026-01-02,,1,1\n")
    report = made.ingest("2026-01-02")
    assert report.outputs["sources"]["orders"]["arrival"] == "assumed"
    (row,) = made.raw("2026-01-02")
    assert row["arrived_at"].isoformat() == "2026-01-02T23:59:59.999999+00:00"


def test_late_rows_of_an_assumed_arrival_are_refused_by_name(made: Intake) -> None:
    made.define(more=ASSUMED)
    old, new = late_files(made)
    made.put(old)
    made.ingest("2026-01-01")
    made.put(new)
    with pytest.raises(
        SourceError,
        match=r"1 rows belong to partitions that are closed "
        r"\(of 2026-01-01\).*order_id=4.*late: next",
    ):
        made.ingest("2026-01-02")
    with pytest.raises(RestatementRefused):
        made.ingest("2026-01-01")
    made.ingest("2026-01-01", restate="they came late")
    assert made.ingest("2026-01-02").state == "done"


def test_late_rows_enter_the_next_partition_once_and_the_closed_one_keeps_its_digest(
    made: Intake,
) -> None:
    """Fault 41: a late row lands in the partition in which it came."""
    made.define(more=ASSUMED + "\n    late: next")
    old, new = late_files(made)
    made.put(old)
    first = made.ingest("2026-01-01")
    made.put(new)
    second = made.ingest("2026-01-02")
    assert second.outputs["sources"]["orders"]["late"] == 1
    assert {row["order_id"]: row["arrived_at"].isoformat() for row in made.raw("2026-01-02")} == {
        "2": "2026-01-02T01:00:00+00:00",
        "4": "2026-01-02T00:00:00+00:00",
    }
    assert ids(made.raw("2026-01-01")) == ["1"]
    assert [made.ingest(key).digest for key in ("2026-01-01", "2026-01-02")] == [
        first.digest,
        second.digest,
    ]
    assert ids(made.raw("2026-01-03")) == []
    assert made.ingest("2026-01-03").outputs["sources"]["orders"]["late"] == 0


def test_a_partitions_own_file_belongs_to_it_whole(made: Intake) -> None:
    made.define(path="{partition}.csv")
    rows = (
        order(1, "2025-12-31T00:00:00Z")
        + order(2, "2026-01-01T05:00:00Z")
        + order(4, "x")
        + order(3, "2026-01-05T00:00:00Z")
    )
    made.put(HEAD + rows, "2026-01-01.csv")
    assert made.ingest("2026-01-01").outputs["sources"]["orders"]["rows"] == 4
    day = [row["arrived_at"].isoformat()[:10] for row in made.raw("2026-01-01")]
    assert day == ["2026-01-01"] * 4


ASSUMED = "arrival: event + 0s\n    event_time: created_timestamp"


def late_files(made: Intake) -> tuple[str, str]:
    old = (
        HEAD
        + order(1, "2026-01-01T01:00:00Z")
        + order(2, "2026-01-02T01:00:00Z")
        + order(3, "2026-01-03T01:00:00Z")
    )
    return old, old + order(4, "2026-01-01T02:00:00Z")
