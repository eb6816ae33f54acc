"""Leases that are held: signs of life, release, and being fenced off."""

from __future__ import annotations

import os
import signal
import time

import pytest

from include.errors import Busy
from include.records.records import Records
from tests.records.builders import (
    THING,
    claim,
    hold_in_process,
    result,
    wait_for_signs,
)


def test_signs_of_life_keep_a_lease_beyond_its_ttl(records: Records) -> None:
    with claim(records, "slow", ttl=4.0) as lease:
        time.sleep(5.0)
        wait_for_signs(records, THING[2])
        with pytest.raises(Busy, match="slow"):
            claim(records, "other")
        lease.check()


def test_a_heartbeat_notices_that_the_lease_is_lost(records: Records) -> None:
    with claim(records, "task", attempt=1, ttl=0.4) as first:
        claim(records, "task", attempt=2)
        assert first._lost.wait(60)


def test_a_fork_does_not_release_its_parents_lease(records: Records) -> None:
    lease = claim(records, "parent")
    child = os.fork()
    if child == 0:
        lease.release()
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(Busy, match="parent"):
        claim(records, "other")
    lease.release()
    assert claim(records, "other").token == 2


def test_the_leases_of_a_range_give_signs_of_life_and_a_lost_one_is_lost_alone(
    records: Records,
) -> None:
    """A load that runs longer than a lease lasts keeps its days; the one that a later attempt
    takes is not taken back.
    """
    keys = ["2026-03-01", "2026-03-02", "2026-03-03"]
    with records.leases.claim_all(
        "loans", "materialize_features", keys, owner="load", attempt=1, ttl=4.0
    ) as leases:
        time.sleep(5.0)
        wait_for_signs(records, *keys)
        taken = records.leases.claim(
            "loans", "materialize_features", keys[1], owner="load", attempt=2, ttl=30
        )
        wait_for_signs(records, keys[0], keys[2])
        leases.each[keys[0]].check()
        leases.each[keys[2]].check()
        with pytest.raises(Busy, match="lost"):
            leases.each[keys[1]].check()
    assert [holder.key for holder in records.leases.holders("loans")] == [keys[1]]
    taken.check()


def test_a_stopped_holder_loses_its_lease_and_is_fenced_off(records_url: str) -> None:
    records = Records.open(records_url)
    records.migrate()
    with hold_in_process(records_url, ttl=4.0) as process:
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(Busy):
            claim(records, "second")
        lease = claim(records, "second", ttl=120, wait=60)
        records.results.commit(lease, result("good"))
        os.kill(process.pid, signal.SIGCONT)
        out, _ = process.communicate("go\n", timeout=60)
    lines = out.splitlines()
    assert len(lines) == 2
    assert all(
        line.startswith("Busy:") and "second" in line and "Nothing was written" in line
        for line in lines
    )
    recorded = records.results.get("loans", "2026-03-01", "train_model")
    assert recorded is not None
    assert (recorded.digest, recorded.token) == ("good", 2)
    lease.check()  # the old holder's release took nothing away
