"""Which use cases are served, and what is answered for the others."""

from __future__ import annotations

import pytest

from include.serving.http import Refusal
from include.serving.serving_table import ServingTable
from include.serving.snapshot import Served
from tests.builders.application import Client


def refused(table: ServingTable, use_case: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        table.find(use_case)
    return caught.value


def test_before_the_start_nothing_is_known_to_be_unknown() -> None:
    refusal = refused(ServingTable(), "loans")
    assert (refusal.status, refusal.code) == (503, "starting")
    assert (b"retry-after", b"1") in refusal.headers


def test_an_unknown_use_case_is_told_which_are_served(client: Client) -> None:
    table = ServingTable()
    table.started = True
    assert "none yet" in str(refused(table, "loans"))
    table.served["loans"] = served = Served(client.use_case)
    assert table.find("loans") is served
    refusal = refused(table, "x" * 500)
    assert (refusal.status, refusal.code) == (404, "unknown_use_case")
    assert "served are: loans" in str(refusal)
    assert len(str(refusal)) < 200


@pytest.mark.parametrize(
    ("started", "healthy", "status"),
    [
        (False, True, "starting"),
        (False, False, "starting"),
        (True, True, "ok"),
        (True, False, "degraded"),
    ],
)
def test_the_status_follows_the_records(started: bool, healthy: bool, status: str) -> None:
    table = ServingTable()
    table.started, table.healthy = started, healthy
    assert table.status == status
