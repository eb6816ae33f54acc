"""Fault 13: a write succeeded but an error came back.

Fault 31: the clock is wrong, or is set while a stage runs.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import deltalake
import pytest

from include import clock
from include.lake import commits
from include.pipeline import execution
from tests.builders.installation import DATA_STAGES, Installation, small_repayment
from tests.builders.variants import leave_to_slow

KEY = "2026-01-02"


@pytest.fixture
def made(tmp_path: Path) -> Installation:
    small_repayment(tmp_path / "usecases", 100)
    built = Installation(tmp_path)
    built.load("2026-01-01", "2026-01-01")
    return built


def test_a_lake_commit_whose_answer_is_lost_is_not_doubled_by_the_retry(
    made: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lost = deltalake.write_deltalake, []

    def write_then_fail(*words: Any, **named: Any) -> None:
        real(*words, **named)
        if not lost:
            lost.append(1)
            raise OSError("the answer was lost on the way")

    monkeypatch.setattr(commits, "write_deltalake", write_then_fail)
    with pytest.raises(Exception, match="the answer was lost"):
        made.run("ingest_data", KEY)
    made.run("ingest_data", KEY)
    monkeypatch.undo()
    small_repayment(tmp_path / "other" / "usecases", 100)
    other = Installation(tmp_path / "other")
    other.load("2026-01-01", "2026-01-01")
    other.run("ingest_data", KEY)
    assert made.digests([KEY]) == other.digests([KEY])
    assert made.records.audit.verify() is None


@pytest.mark.parametrize(
    "shift", leave_to_slow([timedelta(days=400), timedelta(hours=1), timedelta(hours=-1)])
)
def test_a_wrong_clock_changes_no_digest(
    made: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: timedelta
) -> None:
    for stage in DATA_STAGES:
        made.run(stage, KEY)
    small_repayment(tmp_path / "other" / "usecases", 100)
    other = Installation(tmp_path / "other")
    real, steps = clock.utc_now, []

    def stepping() -> datetime:
        steps.append(1)
        return real() + shift * (len(steps) % 2)  # it is set back and forth while the stages run

    monkeypatch.setattr(execution, "utc_now", stepping)
    other.load("2026-01-01", "2026-01-01")
    for stage in DATA_STAGES:
        assert other.run(stage, KEY).seconds >= 0, "durations come from a monotonic clock"
    assert steps
    assert other.digests() == made.digests()
    sequences = [entry.sequence for entry in other.records.audit.entries("repayment")]
    assert sequences == sorted(sequences)
    assert other.records.audit.verify() is None
