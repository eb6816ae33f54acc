"""The runner: leases, memo, records, refusals, force, effects.

Driven by small stages of the test's own.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.clock import utc_now
from include.config.settings import Settings
from include.errors import Busy, ConfigError, EvergreenError, MissingPartition, SourceError
from include.lake.digests import digest
from include.lake.tables import Lake
from include.pipeline import runner
from include.pipeline.stage import Input, Outcome, Stage, StageContext
from include.records.records import Records
from tests.builders.shop import YAML

KEY = "2026-03-01"


class Probe(types.ModuleType):
    """The module of a stage that writes `value` into the lake and counts what was asked of it."""

    def __init__(self) -> None:
        super().__init__("include.validation.validate_data")
        self.STAGE = Stage(
            "validate_data",
            ("label.delay",),
            ("duckdb",),
            self.inputs,
            self.compute,
            self.compute_range,
            self.effects,
        )
        self.value, self.source = 1, "sha256:a"
        self.computed: list[str] = []
        self.effected: list[str] = []
        self.error: Exception | None = None

    def inputs(self, context: StageContext) -> list[Input]:
        return [Input("shop/raw/orders", context.key, self.source)]

    def compute(self, context: StageContext) -> Outcome:
        self.computed.append(context.key)
        if self.error is not None:
            raise self.error
        rows = pa.table({"value": [self.value]})
        context.lake.replace(
            context.table("curated/orders"), context.key, rows, fence=context.fence
        )
        return Outcome("done", digest(rows, sort_by=["value"]), outputs={"rows": 1})

    def compute_range(self, contexts: list[StageContext]) -> Iterator[tuple[StageContext, Outcome]]:
        for context in contexts:
            yield context, self.compute(context)

    def effects(self, context: StageContext, outcome: Outcome) -> dict[str, Any]:
        self.effected.append(context.key)
        return {"seen": outcome.digest}


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Probe:
    probe = Probe()
    monkeypatch.setitem(sys.modules, "include.validation.validate_data", probe)
    return probe


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    (tmp_path / "usecases").mkdir()
    (tmp_path / "usecases" / "shop.yaml").write_text(YAML)
    made = Settings(home=tmp_path, usecases=str(tmp_path / "usecases"))
    Records.open(made.records_address).migrate()
    return made


def records(home: Settings) -> Records:
    return Records.open(home.records_address)


def go(home: Settings, key: str = KEY, mode: str = "backfill", **options: Any) -> runner.Report:
    records(home).partitions.raise_to(
        "shop", key, mode=mode, target="judged", actor="test", at=utc_now()
    )  # type: ignore[arg-type]
    return runner.run("validate_data", "shop", key, settings=home, **options)


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
    stale = runner._context(  # the first attempt wakes up
        home, runner.find("shop", home.usecase_dirs), KEY, store, zombie, "test", utc_now(), {}
    )
    stage.value = 99
    with pytest.raises(Busy):
        stage.compute(stale)
    assert Lake(home.lake_root).read("shop/curated/orders")["value"].to_pylist() == [1]
    assert store.results.get("shop", KEY, "validate_data").digest == done.digest  # type: ignore[union-attr]


def test_a_partition_that_nobody_asked_for_is_refused(home: Settings, stage: Probe) -> None:
    with pytest.raises(ConfigError, match="not recorded"):
        runner.run("validate_data", "shop", KEY, settings=home)


def test_a_range_records_each_partition_and_skips_what_is_there(
    home: Settings, stage: Probe
) -> None:
    keys = ["2026-03-01", "2026-03-02", "2026-03-03"]
    for key in keys:
        records(home).partitions.raise_to(
            "shop", key, mode="backfill", target="data", actor="test", at=utc_now()
        )
    go(home, key="2026-03-02")
    reports = list(runner.run_range("validate_data", "shop", keys, settings=home))
    assert [
        (report.key, report.reused) for report in sorted(reports, key=lambda report: report.key)
    ] == [
        ("2026-03-01", False),
        ("2026-03-02", True),
        ("2026-03-03", False),
    ]
    assert len(records(home).results.of("shop", stage="validate_data")) == 3
    assert records(home).leases.holders("shop") == []


def test_a_day_whose_lease_is_lost_ends_alone(home: Settings, stage: Probe) -> None:
    """Another run takes the second day over while the range is at work: that day is theirs, the
    range goes on.
    """
    keys, taken = ["2026-03-01", "2026-03-02", "2026-03-03"], []
    for key in keys:
        records(home).partitions.raise_to(
            "shop", key, mode="backfill", target="data", actor="test", at=utc_now()
        )

    def computed(context: StageContext) -> Outcome:
        outcome = Probe.compute(stage, context)
        if context.key == keys[1]:
            taken.append(
                records(home).leases.claim(
                    "shop", "validate_data", context.key, owner="load", attempt=2, ttl=60
                )
            )
        return outcome

    stage.compute = computed  # type: ignore[method-assign]
    reports = list(runner.run_range("validate_data", "shop", keys, settings=home, owner="load"))
    assert [(report.key, report.state) for report in reports] == [
        (keys[0], "done"),
        (keys[1], "failed"),
        (keys[2], "done"),
    ]
    assert "the lease of load is lost" in reports[1].reason
    assert [row.key for row in records(home).results.of("shop")] == [keys[0], keys[2]]
    taken[0].check()


def test_what_is_missing_is_named_with_the_command_that_fills_it(
    home: Settings, stage: Probe
) -> None:
    def inputs(context: StageContext) -> list[Input]:
        context.need("ingest_data", ["2026-02-27", "2026-02-28"])
        return []

    stage.STAGE = replace(stage.STAGE, inputs=inputs)
    with pytest.raises(
        MissingPartition, match=r"evergreen load-history shop --from 2026-02-27 --to 2026-02-28"
    ) as caught:
        go(home)
    assert caught.value.keys == ("2026-02-27", "2026-02-28")
