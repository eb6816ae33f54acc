"""Batches are written beside the computing of the next, in their order, rows before records."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from include.clock import utc_now
from include.config.settings import Settings
from include.errors import SourceError
from include.lake import commits
from include.lake.batches import Batch
from include.lake.digests import digest
from include.lake.tables import Lake
from include.pipeline import ranges, settling
from include.pipeline.stage import Outcome, StageContext
from include.records.results import Results
from tests.pipeline.killed import KEYS
from tests.pipeline.probe import Probe, records

TABLE = "shop/curated/orders"


@pytest.fixture(autouse=True)
def a_partition_a_batch(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "BATCH", 1)
    for key in KEYS:
        records(home).partitions.raise_to(
            "shop", key, mode="backfill", target="data", actor="test", at=utc_now()
        )


def run(home: Settings) -> list[tuple[str, str]]:
    return [
        (report.key, report.state)
        for report in ranges.run_range("validate_data", "shop", KEYS, settings=home)
    ]


def test_a_batch_is_written_while_the_next_one_is_computed(
    home: Settings, stage: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for the other to have begun: one after the other they would wait for ever."""
    writing, computing = threading.Event(), threading.Event()
    write = Batch.write

    def write_beside(batch: Batch) -> None:
        writing.set()
        assert computing.wait(60), "nothing is computed while the first batch is written"
        write(batch)

    def compute(context: StageContext) -> Outcome:
        if context.key == KEYS[1]:
            assert writing.wait(60), "the first batch is not written while the next is computed"
            computing.set()
        return Probe.compute(stage, context)

    monkeypatch.setattr(Batch, "write", write_beside)
    stage.compute = compute  # type: ignore[method-assign]
    assert run(home) == [(key, "done") for key in KEYS]


def test_rows_come_before_their_record_and_batches_in_their_order(
    home: Settings, stage: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def telling(owner: Any, name: str, what: str) -> None:
        real = getattr(owner, name)

        def tell(*words: Any, **named: Any) -> Any:
            answer = real(*words, **named)
            told.append(what)
            return answer

        monkeypatch.setattr(owner, name, tell)

    telling(Batch, "write", "rows")
    telling(Results, "commit_all", "records")
    run(home)
    assert told == ["rows", "records"] * 3


@pytest.mark.parametrize("point", ["tables", "records"])
def test_a_range_killed_between_two_writes_leaves_what_is_recorded_and_is_run_again(
    home: Settings, stage: Probe, point: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.killed", str(home.home), point], check=False
    )
    assert ended.returncode == -signal.SIGKILL
    recorded = records(home).results.of("shop")
    assert [row.key for row in recorded] == KEYS[:1]
    lake = Lake(home.lake_root)
    assert lake.keys(TABLE) == (KEYS[:1] if point == "tables" else KEYS[:2])
    assert run(home) == [(key, "done") for key in KEYS]
    for row in records(home).results.of("shop"):
        assert row.digest == digest(lake.read(TABLE, keys=[row.key]), sort_by=["value"])
    assert stage.computed == KEYS[1:], "what was on record is not computed again"
    assert records(home).leases.holders("shop") == []


def test_after_a_batch_that_cannot_be_written_none_is_written_or_recorded(
    home: Settings, stage: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = commits.write_deltalake, []

    def fail_second(*words: Any, **named: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise OSError("no space left")
        real(*words, **named)

    monkeypatch.setattr(commits, "write_deltalake", fail_second)
    with pytest.raises(SourceError, match="no space left"):
        run(home)
    assert [row.key for row in records(home).results.of("shop")] == KEYS[:1]
    assert Lake(home.lake_root).keys(TABLE) == KEYS[:1]
    assert len(calls) == 2, "the third batch is not tried"
    assert records(home).leases.holders("shop") == []


def test_what_a_stage_reads_of_its_own_table_is_written_first(home: Settings, stage: Probe) -> None:
    seen: dict[str, list[str]] = {}

    def compute(context: StageContext) -> Outcome:
        rows = context.lake.read(TABLE) if context.lake.keys(TABLE) else None
        seen[context.key] = [] if rows is None else sorted(rows["partition"].to_pylist())
        return Probe.compute(stage, context)

    stage.compute = compute  # type: ignore[method-assign]
    run(home)
    assert seen == {KEYS[0]: [], KEYS[1]: KEYS[:1], KEYS[2]: KEYS[:2]}


def test_a_lease_lost_while_a_batch_is_written_ends_its_day_alone(
    home: Settings, stage: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run takes the first day over between its rows and its record."""
    commit_all, taken = Results.commit_all, []

    def commit(results: Results, *words: Any) -> Any:
        if not taken:
            taken.append(
                records(home).leases.claim(
                    "shop", "validate_data", KEYS[0], owner="load", attempt=2, ttl=60
                )
            )
        return commit_all(results, *words)

    monkeypatch.setattr(Results, "commit_all", commit)
    ended = [
        (report.key, report.state)
        for report in ranges.run_range("validate_data", "shop", KEYS, settings=home, owner="load")
    ]
    assert ended == [(KEYS[0], "failed"), (KEYS[1], "done"), (KEYS[2], "done")]
    assert [row.key for row in records(home).results.of("shop")] == KEYS[1:]
    taken[0].check()
