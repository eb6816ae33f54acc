"""Who gets a lease, on SQLite and PostgreSQL, with real processes that are killed."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text, update

from include.errors import Busy
from include.records.records import Records
from include.records.schema import LeaseRow
from tests.records.builders import (
    claim,
    hold_in_process,
    result,
)


def test_one_holds_and_the_other_is_told_who(records: Records) -> None:
    with claim(records, "nightly") as lease:
        lease.check()
        assert (lease.token, lease.app) == (1, "loans/train_model/2026-03-01")
        with pytest.raises(
            Busy,
            match=rf"held by nightly \(attempt 1, process {os.getpid()} on .*last sign \d+ s ago",
        ):
            claim(records, "other")
        (seen,) = records.leases.holders("loans")
        assert (seen.owner, seen.stage, seen.pid, seen.lost) == (
            "nightly",
            "train_model",
            os.getpid(),
            None,
        )
        assert (
            records.leases.claim(
                "loans", "train_model", "2026-03-02", owner="other", attempt=1, ttl=30
            ).token
            == 1
        )
    assert [held.key for held in records.leases.holders("loans")] == ["2026-03-02"]
    assert claim(records, "other").token == 2


def test_waiting_gets_the_lease_when_it_is_released(records: Records) -> None:
    with hold_in_process(records.database._url.render_as_string(hide_password=False)) as process:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        assert claim(records, "second", wait=60).token == 2
    # It was first, and whole.
    assert records.results.get("loans", "2026-03-01", "train_model").digest == "stale"


def test_a_killed_holder_is_replaced_at_once(records_url: str) -> None:
    records = Records.open(records_url)
    records.migrate()
    with hold_in_process(records_url, ttl=3600) as process:
        with pytest.raises(Busy, match="first"):
            claim(records, "second")
        # not waited for: it stays a zombie, which counts as dead.
        os.kill(process.pid, signal.SIGKILL)
        lease = claim(records, "second", wait=60)
        assert lease.token == 2
        records.results.commit(lease, result("good"))
    assert records.results.get("loans", "2026-03-01", "train_model") is not None


def test_without_signs_a_lease_ends_after_its_ttl(records: Records) -> None:
    old = claim(records, "silent", ttl=0.2)
    assert claim(records, "other", wait=60).token == 2
    with pytest.raises(Busy, match="other"):
        old.check()
    with pytest.raises(Busy, match="other"):
        records.results.commit(old, result("stale"))
    assert records.results.get("loans", "2026-03-01", "train_model") is None


def test_the_next_attempt_of_the_same_owner_takes_over(records: Records) -> None:
    first = claim(records, "task", attempt=1)
    with pytest.raises(Busy):
        claim(records, "task", attempt=1)
    with pytest.raises(Busy):
        claim(records, "another task", attempt=9)
    second = claim(records, "task", attempt=2)
    assert second.token == 2
    with pytest.raises(Busy):
        first.check()
    first.release()
    second.check()


def test_a_pid_that_was_given_to_another_process_does_not_keep_a_lease(records: Records) -> None:
    claim(records, "long gone", ttl=3600)
    with records.transaction() as session:
        session.execute(text("UPDATE leases SET started = '1'"))
    assert claim(records, "me").token == 2


def test_a_process_of_another_machine_is_judged_by_its_signs_alone(records: Records) -> None:
    claim(records, "elsewhere", ttl=3.0)
    with records.transaction() as session:
        session.execute(text("UPDATE leases SET host = 'other-machine boot ns', pid = 999999999"))
    with pytest.raises(Busy, match="on other-machine"):
        claim(records, "me")
    assert claim(records, "me", wait=60).token == 2


def test_setting_the_wall_clock_changes_no_ownership(records: Records) -> None:
    claim(records, "holder", ttl=30)
    for shift in (-3600, 3600):
        with records.transaction() as session:
            session.execute(
                update(LeaseRow).values(beat_at=datetime.now(UTC) + timedelta(seconds=shift))
            )
        with pytest.raises(Busy, match="holder"):
            claim(records, "me")


def test_after_a_reboot_the_wall_clock_decides(records_url: str) -> None:
    records = Records.open(records_url)
    records.migrate()
    claim(records, "before", ttl=60)
    for silent in (5, 61):
        with records.transaction() as session:
            session.execute(
                update(LeaseRow).values(
                    host="this-machine earlier",
                    clock="earlier",
                    beat=999999999,
                    beat_at=datetime.now(UTC) - timedelta(seconds=silent),
                )
            )
        if silent == 5:
            with pytest.raises(Busy):
                claim(records, "me")
    assert claim(records, "me").token == 2


def test_many_claim_and_one_gets_it(records: Records) -> None:

    def attempt(number: int) -> bool:
        try:
            claim(records, f"racer {number}")
        except Busy:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(16))) == 1


def test_leases_that_are_free_are_taken_without_those_that_are_held(records: Records) -> None:
    with records.leases.claim(
        "loans", "materialize_features", "2026-03-01", owner="other", attempt=1, ttl=30
    ):
        with pytest.raises(Busy, match="other"):
            records.leases.claim_all(
                "loans",
                "materialize_features",
                ["2026-03-01", "2026-03-02"],
                owner="load",
                attempt=1,
                ttl=30,
            )
        with records.leases.claim_all(
            "loans",
            "materialize_features",
            ["2026-03-01", "2026-03-02"],
            owner="load",
            attempt=1,
            ttl=30,
            only_free=True,
        ) as leases:
            assert list(leases.each) == ["2026-03-02"]
