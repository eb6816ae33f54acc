"""Ranges: many partitions in one pass, each recorded alone, and older ones renewed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.clock import utc_now
from include.config.settings import Settings
from include.errors import ConfigError, SourceError
from include.lake import commits
from include.lake.tables import Lake
from include.pipeline import ranges
from include.pipeline.stage import Input, Outcome, StageContext
from tests.pipeline.probe import KEY, Probe, go, records


def test_a_range_records_each_partition_and_skips_what_is_there(
    home: Settings, stage: Probe
) -> None:
    keys = ["2026-03-01", "2026-03-02", "2026-03-03"]
    for key in keys:
        records(home).partitions.raise_to(
            "shop", key, mode="backfill", target="data", actor="test", at=utc_now()
        )
    go(home, key="2026-03-02")
    reports = list(ranges.run_range("validate_data", "shop", keys, settings=home))
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
    reports = list(ranges.run_range("validate_data", "shop", keys, settings=home, owner="load"))
    assert [(report.key, report.state) for report in reports] == [
        (keys[0], "done"),
        (keys[1], "failed"),
        (keys[2], "done"),
    ]
    assert "the lease of load is lost" in reports[1].reason
    assert [row.key for row in records(home).results.of("shop")] == [keys[0], keys[2]]
    taken[0].check()


def test_a_range_commits_a_table_once_and_what_came_before_an_error_stands(
    home: Settings, stage: Probe
) -> None:
    keys = [f"2026-03-0{day}" for day in range(1, 6)]
    for key in keys:
        raise_to(home, key)

    def computed(context: StageContext) -> Outcome:
        if context.key == keys[3]:
            raise ConfigError("the fourth day cannot be computed")
        return Probe.compute(stage, context)

    stage.compute = computed  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="the fourth day"):
        list(ranges.run_range("validate_data", "shop", keys, settings=home))
    assert [row.key for row in records(home).results.of("shop")] == keys[:3]
    lake = Lake(home.lake_root)
    assert lake.keys("shop/curated/orders") == keys[:3]
    assert lake.version("shop/curated/orders") == 0, "one commit for three days"


def test_a_range_whose_rows_cannot_be_written_records_nothing(
    home: Settings, stage: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_to(home, KEY)

    def fail(*words: object, **named: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(commits, "write_deltalake", fail)
    with pytest.raises(SourceError, match="no space left"):
        list(ranges.run_range("validate_data", "shop", [KEY], settings=home))
    assert records(home).results.of("shop") == []
    assert records(home).leases.holders("shop") == []


def test_a_range_without_one_input_goes_on_with_the_others(home: Settings, stage: Probe) -> None:
    for key in ("2026-03-01", "2026-03-02"):
        raise_to(home, key)

    def inputs(context: StageContext) -> list[Input]:
        if context.key == "2026-03-01":
            context.need("ingest_data", ["2026-02-28"])
        return []

    stage.STAGE = replace(stage.STAGE, inputs=inputs)
    keys = ["2026-03-01", "2026-03-02"]
    missing, done = ranges.run_range("validate_data", "shop", keys, settings=home)
    assert (missing.state, done.state) == ("failed", "done")
    assert "evergreen load-history shop --from 2026-02-28" in missing.reason
    assert [row.state for row in records(home).results.of("shop")] == ["failed", "done"]


def test_only_data_stages_take_ranges(home: Settings) -> None:
    with pytest.raises(ConfigError, match="train_model takes one partition at a time"):
        list(ranges.run_range("train_model", "shop", [KEY], settings=home))


def test_partitions_of_other_rules_are_renewed_first_and_a_change_is_audited(
    home: Settings, stage: Probe
) -> None:
    """Two earlier days are outdated: one comes out equal, the other differs and is replaced."""
    first, second = "2026-02-27", "2026-02-28"
    for key in (first, second):
        go(home, key=key)
    before = {row.key: row for row in records(home).results.of("shop")}
    stage.computed.clear()

    def outdated(contexts: list[StageContext]) -> list[str]:
        return [first, second] if contexts[0].key == KEY else []

    def compute(context: StageContext) -> Outcome:
        stage.value = 2 if context.key == second else 1
        return Probe.compute(stage, context)

    stage.compute, stage.source = compute, "sha256:b"  # type: ignore[method-assign]
    stage.STAGE = replace(stage.STAGE, outdated=outdated, compute=compute)
    raise_to(home, KEY)
    assert ranges.find_outdated("validate_data", "shop", KEY, settings=home) == [first, second]
    assert stage.computed == [], "asking computes nothing"
    go(home)
    assert stage.computed == [first, second, KEY]
    after = {row.key: row for row in records(home).results.of("shop")}
    assert after[first].digest == before[first].digest
    assert after[first].memo_key != before[first].memo_key
    assert after[second].digest != before[second].digest
    (entry,) = records(home).audit.entries("shop", action="partition.recomputed")
    assert entry.subject == second
    assert entry.details == {
        "stage": "validate_data",
        "reason": "rules changed",
        "was": before[second].digest,
        "is": after[second].digest,
    }


def test_an_outdated_partition_that_somebody_is_at_work_on_is_left_to_them(
    home: Settings, stage: Probe
) -> None:
    earlier = "2026-02-28"
    go(home, key=earlier)
    stage.computed.clear()
    stage.STAGE = replace(
        stage.STAGE, outdated=lambda contexts: [earlier] if contexts[0].key == KEY else []
    )
    with records(home).leases.claim(
        "shop", "validate_data", earlier, owner="other", attempt=1, ttl=60
    ):
        go(home)
    assert stage.computed == [KEY]


def raise_to(home: Settings, key: str) -> None:
    """Record what a partition is meant for."""
    records(home).partitions.raise_to(
        "shop", key, mode="backfill", target="data", actor="test", at=utc_now()
    )
