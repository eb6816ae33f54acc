"""What partitions are meant for: it only rises, also when many raise it at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from include.errors import ConfigError
from include.records.records import Records
from tests.records.builders import (
    AT,
    raise_to,
)


def test_mode_and_target_only_rise(records: Records) -> None:
    assert raise_to(records, "backfill", "data", "load") == ("backfill", "data")
    assert raise_to(records, "backfill", "judged") == ("backfill", "judged")
    assert raise_to(records, "live", "data", "ann") == ("live", "judged")
    assert raise_to(records, "backfill", "data", "bob") == ("live", "judged")
    assert raise_to(records, "live", "deployed") == ("live", "deployed")
    row = records.partitions.get("loans", "2026-03-01")
    assert row is not None
    assert (row.actor, row.at) == ("me", AT)
    changes = [
        (made.details["before"], made.details["after"])
        for made in records.audit.entries(action="partition.raised")
    ]
    assert changes == [
        (None, ["backfill", "data"]),
        (["backfill", "data"], ["backfill", "judged"]),
        (["backfill", "judged"], ["live", "judged"]),
        (["live", "judged"], ["live", "deployed"]),
    ]
    assert records.partitions.get("loans", "2026-03-02") is None
    assert [row.key for row in records.partitions.of("loans")] == ["2026-03-01"]


def test_an_unknown_mode_is_refused(records: Records) -> None:
    with pytest.raises(ConfigError, match="nightly"):
        raise_to(records, "nightly", "data")


def test_raising_at_once_ends_at_the_highest(records: Records) -> None:
    asked = [
        ("backfill", "judged"),
        ("live", "data"),
        ("backfill", "deployed"),
        ("live", "judged"),
    ] * 5
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda pair: raise_to(records, *pair), asked))
    assert raise_to(records, "backfill", "data") == ("live", "deployed")
    assert len(records.audit.entries(action="partition.raised")) <= 4
    assert records.audit.verify() is None
