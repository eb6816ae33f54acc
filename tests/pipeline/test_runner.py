"""The runner: leases, memo, records, refusals, force, effects."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.clock import utc_now
from include.config.settings import Settings
from include.errors import Busy, ConfigError, EvergreenError, SourceError
from include.lake.tables import Lake
from include.pipeline import execution
from include.pipeline.stage import Outcome
from tests.pipeline.probe import KEY, Probe, go, records


def test_an_unchanged_partition_is_answered_from_the_record(home: Settings, stage: Probe) -> None:
    first, second = go(home), go(home)
    assert (first.reused, second.reused) == (False, True)
    assert first.digest == second.digest
    assert second.outputs == {"rows": 1}
    assert stage.computed == [KEY]


def test_a_changed_input_computes_again(home: Settings, stage: Probe) -> None:
    go(home)
    stage.source = "sha256:b"
    assert not go(home).reused
    assert stage.computed == [KEY, KEY]


def test_effects_are_compared_every_time_and_only_when_live(home: Settings, stage: Probe) -> None:
    go(home)
    assert stage.effected == []
    go(home, mode="live")
    go(home, mode="live")
    assert stage.effected == [KEY, KEY]
    assert stage.computed == [KEY]


def test_a_refusal_is_recorded_and_audited_and_can_be_mended(home: Settings, stage: Probe) -> None:
    stage.error = SourceError("orders.csv: line 3 is cut off; deliver it again")
    with pytest.raises(SourceError):
        go(home)
    result = records(home).results.get("shop", KEY, "validate_data")
    assert result is not None
    assert (result.state, result.reason) == (
        "failed",
        "orders.csv: line 3 is cut off; deliver it again",
    )
    assert [
        entry.subject for entry in records(home).audit.entries("shop", action="stage.refused")
    ] == [KEY]
    stage.error = None
    assert go(home).state == "done"


def test_a_wait_answers_for_nothing_and_a_refusal_replaces_it(
    home: Settings, stage: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as asked:
        waiting = Outcome("waiting", "", "waiting for a node", outputs={"version": 1})
        asked.setattr(stage, "STAGE", replace(stage.STAGE, compute=lambda context: waiting))
        for _ in range(2):
            report = go(home)
            assert (report.state, report.reused) == ("waiting", False)
        with pytest.raises(ConfigError, match="no record to compare with"):
            go(home, force=True)
    stage.error = SourceError("gone")
    with pytest.raises(SourceError):
        go(home)
    result = records(home).results.get("shop", KEY, "validate_data")
    assert result is not None
    assert (result.state, result.reason) == ("failed", "gone")
    stage.error = None
    assert go(home).state == "done"


def test_a_refusal_never_replaces_a_result(home: Settings, stage: Probe) -> None:
    done = go(home)
    stage.source, stage.error = "sha256:b", SourceError("gone")
    with pytest.raises(SourceError):
        go(home)
    result = records(home).results.get("shop", KEY, "validate_data")
    assert result is not None
    assert (result.state, result.digest) == ("done", done.digest)
    assert len(records(home).audit.entries("shop", action="stage.refused")) == 1


def test_force_compares_and_writes_nothing(home: Settings, stage: Probe) -> None:
    go(home, mode="live")
    table, effected = "shop/curated/orders", len(stage.effected)
    version = Lake(home.lake_root).version(table)
    assert go(home, force=True).reason == "equal to the record"
    stage.value = 2
    with pytest.raises(EvergreenError, match="the record stands"):
        go(home, force=True)
    assert Lake(home.lake_root).version(table) == version
    assert len(stage.effected) == effected
    assert [
        entry.details["equal"]
        for entry in records(home).audit.entries("shop", action="force.compared")
    ] == [True, False]


def test_force_without_a_record_says_what_to_do(home: Settings, stage: Probe) -> None:
    with pytest.raises(ConfigError, match="run it without force first"):
        go(home, force=True)


def test_somebody_else_at_work_is_named_and_nothing_is_computed(
    home: Settings, stage: Probe
) -> None:
    with (
        records(home).leases.claim("shop", "validate_data", KEY, owner="other", attempt=1, ttl=60),
        pytest.raises(Busy, match="other"),
    ):
        go(home)
    assert stage.computed == []
    assert records(home).results.get("shop", KEY, "validate_data") is None


def test_a_retry_takes_over_and_the_first_attempt_cannot_write(
    home: Settings, stage: Probe
) -> None:
    store = records(home)
    store.partitions.raise_to(
        "shop", KEY, mode="backfill", target="judged", actor="test", at=utc_now()
    )
    zombie = store.leases.claim("shop", "validate_data", KEY, owner="run-1", attempt=1, ttl=60)
    done = go(home, owner="run-1", attempt=2)
    # the first attempt wakes up
    stale = execution.Execution.begin("validate_data", "shop", settings=home).context(KEY, zombie)
    stage.value = 99
    with pytest.raises(Busy):
        stage.compute(stale)
    assert Lake(home.lake_root).read("shop/curated/orders")["value"].to_pylist() == [1]
    assert store.results.get("shop", KEY, "validate_data").digest == done.digest  # type: ignore[union-attr]
