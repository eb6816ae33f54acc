"""Results: all or nothing, fenced by the lease, safe to repeat."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy.orm import Session

from include.errors import Busy
from include.records import audit
from include.records.records import Records
from include.records.results import Commit
from tests.records.builders import (
    entry,
    lost_answer,
    raise_to,
    result,
)


def test_a_result_is_committed_with_its_entries_and_further_writes(records: Records) -> None:
    with records.leases.claim(
        "loans", "train_model", "2026-03-01", owner="me", attempt=1, ttl=30
    ) as lease:
        records.results.commit(
            lease,
            result(outputs={"auc": float("nan"), "nested": [{"b": 1, "a": None}]}),
            entries=[entry()],
            in_transaction=lambda session: audit.append(session, entry("more")),
        )
    there = records.results.get("loans", "2026-03-01", "train_model")
    assert there == result(outputs={"auc": None, "nested": [{"b": 1, "a": None}]}, token=1)
    assert list(there.outputs["nested"][0]) == ["b", "a"]
    assert [row.action for row in records.audit.entries()] == ["judged", "more"]
    assert records.results.get("loans", "2026-03-01", "check_drift") is None


def test_the_same_result_again_is_a_no_op_and_another_one_replaces_it(records: Records) -> None:
    calls: list[int] = []
    with records.leases.claim(
        "loans", "train_model", "2026-03-01", owner="me", attempt=1, ttl=30
    ) as lease:
        for _ in range(2):
            records.results.commit(
                lease,
                result(),
                entries=[entry(), entry()],
                in_transaction=lambda session: calls.append(1),
            )
        assert (len(records.audit.entries()), calls) == (2, [1])
        records.results.commit(lease, result("sha256:2"), entries=[entry("restated")])
    there = records.results.get("loans", "2026-03-01", "train_model")
    assert there is not None
    assert there.digest == "sha256:2"
    assert len(records.audit.entries()) == 3


def test_a_commit_whose_answer_was_lost_is_recognised(records: Records) -> None:
    calls: list[int] = []
    with (
        records.leases.claim(
            "loans", "train_model", "2026-03-01", owner="me", attempt=1, ttl=30
        ) as lease,
        lost_answer() as lost,
    ):
        records.results.commit(
            lease, result(), entries=[entry()], in_transaction=lambda session: calls.append(1)
        )
    assert (lost, calls, len(records.audit.entries())) == (["lost"], [1], 1)
    with lost_answer() as lost:
        raise_to(records, "live", "judged")
    assert (lost, len(records.audit.entries())) == (["lost"], 2)
    with lost_answer() as lost:
        records.audit.append(entry("said"))
    assert (lost, len(records.audit.entries(action="said"))) == (["lost"], 1)
    with lost_answer() as lost:
        assert (
            records.leases.claim(
                "loans", "check_drift", "2026-03-01", owner="me", attempt=1, ttl=30
            ).token
            == 1
        )
    assert lost == ["lost"]
    assert records.audit.verify() is None


def test_a_failure_on_the_way_writes_nothing(records: Records) -> None:
    def fail(session: Session) -> None:
        audit.append(session, entry("half"))
        raise RuntimeError("on the way")

    with records.leases.claim(
        "loans", "train_model", "2026-03-01", owner="me", attempt=1, ttl=30
    ) as lease:
        with pytest.raises(RuntimeError, match="on the way"):
            records.results.commit(lease, result(), entries=[entry()], in_transaction=fail)
        assert (
            records.results.get("loans", "2026-03-01", "train_model"),
            records.audit.entries(),
        ) == (None, [])
        records.results.commit(lease, result(), entries=[entry()])
    assert records.results.get("loans", "2026-03-01", "train_model") is not None


def test_a_superseded_holder_writes_nothing(records: Records) -> None:
    old = records.leases.claim(
        "loans", "train_model", "2026-03-01", owner="task", attempt=1, ttl=30
    )
    new = records.leases.claim(
        "loans", "train_model", "2026-03-01", owner="task", attempt=2, ttl=30
    )
    with pytest.raises(Busy, match="is lost: task"):
        records.results.commit(old, result("old"), entries=[entry()])
    assert (records.results.get("loans", "2026-03-01", "train_model"), records.audit.entries()) == (
        None,
        [],
    )
    records.results.commit(new, result("new"))
    with pytest.raises(Busy):
        records.results.commit(old, result("old"))
    there = records.results.get("loans", "2026-03-01", "train_model")
    assert there is not None
    assert (there.digest, there.token) == ("new", 2)


def test_a_lease_covers_its_own_thing_only(records: Records) -> None:
    lease = records.leases.claim(
        "loans", "train_model", "2026-03-01", owner="me", attempt=1, ttl=30
    )
    with pytest.raises(Busy, match="does not cover loans/train_model/2026-03-02"):
        records.results.commit(lease, result(key="2026-03-02"))


def test_results_are_listed_by_stage_and_keys(records: Records) -> None:
    for stage in ("check_drift", "train_model"):
        for day in (3, 1, 2):
            key = f"2026-03-0{day}"
            records.results.commit(
                records.leases.claim("loans", stage, key, owner="me", attempt=1, ttl=30),
                result(key=key, stage=stage),
            )
    assert [
        (row.key, row.stage)
        for row in records.results.of("loans", keys=["2026-03-01", "2026-03-03", "2027-01-01"])
    ] == [
        ("2026-03-01", "check_drift"),
        ("2026-03-01", "train_model"),
        ("2026-03-03", "check_drift"),
        ("2026-03-03", "train_model"),
    ]
    assert [row.key for row in records.results.of("loans", stage="check_drift")] == [
        "2026-03-01",
        "2026-03-02",
        "2026-03-03",
    ]
    many = [f"no {number}" for number in range(40_000)] + ["2026-03-02"]
    assert [row.stage for row in records.results.of("loans", keys=many)] == [
        "check_drift",
        "train_model",
    ]
    assert records.results.of("loans", keys=[]) == []
    assert records.results.of("other") == []


def test_times_come_back_in_utc_and_naive_ones_are_refused(records: Records) -> None:
    kolkata = timezone(timedelta(hours=5, minutes=30))
    lease = records.leases.claim(
        "loans", "train_model", "2026-03-01", owner="me", attempt=1, ttl=30
    )
    records.results.commit(
        lease, result(started_at=datetime(2026, 3, 1, 11, 30, 0, 1, tzinfo=kolkata))
    )
    there = records.results.get("loans", "2026-03-01", "train_model")
    assert there is not None
    assert there.started_at.isoformat() == "2026-03-01T06:00:00.000001+00:00"
    with pytest.raises(Exception, match="no time zone"):
        records.results.commit(lease, result(started_at=datetime(2026, 3, 1)))  # noqa: DTZ001


def test_the_results_of_a_range_are_committed_together_but_for_a_lost_one(
    records: Records,
) -> None:
    """Again with the same tokens it is a no-op, another result replaces what is there."""
    keys = ["2026-03-01", "2026-03-02", "2026-03-03"]
    reads = [["loans/raw/a", f"2026-{month:02d}-01", "sha256:a"] for month in range(1, 13)] * 4

    def commits(digest: str) -> list[Commit]:
        return [
            Commit(replace(result(digest), key=key, reads=reads), [entry(f"{digest} of {key}")])
            for key in keys
        ]

    with records.leases.claim_all(
        "loans", "train_model", keys, owner="load", attempt=1, ttl=60
    ) as leases:
        assert records.results.commit_all(leases, commits("sha256:1")) == {}
        assert records.results.commit_all(leases, commits("sha256:1")) == {}
        assert len(records.audit.entries()) == 3
        records.leases.claim("loans", "train_model", keys[1], owner="load", attempt=2, ttl=60)
        lost = records.results.commit_all(leases, commits("sha256:2"))
        assert list(lost) == [keys[1]]
        assert "has claimed it since" in str(lost[keys[1]])
        assert list(leases.find_lost()) == [f"loans/train_model/{keys[1]}"]
        leases.each[keys[0]].check()
    there = records.results.of("loans", stage="train_model")
    assert [row.digest for row in there] == ["sha256:2", "sha256:1", "sha256:2"]
    assert sorted(there[0].reads) == sorted(reads)
    assert len(records.audit.entries()) == 5
    assert records.audit.verify() is None
