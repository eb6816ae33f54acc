"""The records of a use case as a whole."""

from __future__ import annotations

from include.records.records import Records
from tests.records.builders import (
    AT,
    entry,
    raise_to,
    result,
)


def test_forgetting_a_use_case_previews_and_keeps_the_log(records: Records) -> None:
    lease = records.leases.claim(
        "loans", "train_model", "2026-03-01", owner="me", attempt=1, ttl=30
    )
    raise_to(records, "live", "judged")
    records.results.commit(lease, result())
    records.feature_sets.add("loans", "v1", {"sql": "x"})
    records.partitions.raise_to(
        "other", "2026-03-01", mode="live", target="data", actor="me", at=AT
    )
    counts = records.forget("loans")
    assert {name: count for name, count in counts.items() if count} == {
        "partitions": 1,
        "results": 1,
        "feature_sets": 1,
    }
    assert records.partitions.get("loans", "2026-03-01") is not None
    assert records.forget("loans", entry=entry("reset")) == counts
    assert (
        records.partitions.of("loans"),
        records.results.of("loans"),
        records.feature_sets.of("loans"),
    ) == ([], [], [])
    assert records.audit.entries(action="reset")[0].details["rows"] == counts
    assert len(records.partitions.of("other")) == 1
    assert (
        records.leases.claim(
            "loans", "train_model", "2026-03-01", owner="me", attempt=2, ttl=30
        ).token
        == 2
    )
    assert records.audit.verify() is None
