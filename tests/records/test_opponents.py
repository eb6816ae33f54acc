"""Whom candidates are judged against."""

from __future__ import annotations

import dataclasses

from include.records.records import Opponent, Records
from tests.records.builders import (
    AT,
)


def test_the_first_opponent_stays_until_it_is_judged_again(records: Records) -> None:
    first = Opponent("loans", "sha256:4", "live", 3, 7, "2026-03-04", AT)
    assert records.opponents.get("loans", "sha256:4", mode="live") is None
    assert records.opponents.record(first) == first
    later = dataclasses.replace(first, version=None, generation=8)
    assert (
        records.opponents.record(later)
        == first
        == records.opponents.get("loans", "sha256:4", mode="live")
    )
    assert records.opponents.get("loans", "sha256:4", mode="backfill") is None
    assert (
        records.opponents.record(later, again=True)
        == later
        == records.opponents.get("loans", "sha256:4", mode="live")
    )
