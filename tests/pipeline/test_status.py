"""What a partition is said to be, for every way that its records can stand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from include.pipeline.status import StatusRow, rows
from include.records.records import Mode, Partition, StageResult, Target

AT = datetime(2026, 1, 1, tzinfo=UTC)
KEY = "2026-01-05"
DATA = ("ingest_data", "validate_data", "materialize_features")
JUDGED = (*DATA, "train_model", "evaluate_model", "check_drift")
DEPLOYED = (*JUDGED, "package_model", "deploy_model")


def partition(key: str = KEY, *, mode: Mode = "backfill", target: Target = "judged") -> Partition:
    return Partition("shop", key, mode, target, "test", AT)


def result(
    stage: str, key: str = KEY, *, state: str = "done", reason: str = "", **outputs: Any
) -> StageResult:
    if stage == "evaluate_model" and "verdict" not in outputs:
        outputs["verdict"] = "pass"
    return StageResult(
        "shop",
        key,
        stage,
        state,
        f"sha256:{stage}{key}",
        reason,
        outputs,
        [],
        "m",
        "backfill",
        AT,
        AT,
        0.1,
        "none",
    )


def one(
    target: Target, *results: StageResult, running: dict[tuple[str, str], str] | None = None
) -> StatusRow:
    (row,) = rows(
        "shop", partitions=[partition(target=target)], results=results, running=running or {}
    )
    return row


@pytest.mark.parametrize(
    ("target", "stages"), [("data", DATA), ("judged", JUDGED), ("deployed", DEPLOYED)]
)
def test_done_is_when_the_target_is_reached(target: Target, stages: tuple[str, ...]) -> None:
    assert one(target, *(result(stage) for stage in stages)).kind == "done"


@pytest.mark.parametrize("missing", DEPLOYED)
def test_waiting_names_the_stage_that_is_missing(missing: str) -> None:
    chain = (
        "ingest_data",
        "validate_data",
        "materialize_features",
        "train_model",
        "evaluate_model",
        "package_model",
        "deploy_model",
    )
    before = (
        chain[: chain.index(missing)]
        if missing in chain
        else [stage for stage in DEPLOYED if stage != missing]
    )
    row = one("deployed", *(result(stage) for stage in before))
    assert (row.kind, row.stage, row.detail) == ("waiting", missing, f"for {missing}")


def test_what_load_history_made_is_complete_after_features() -> None:
    assert one("data", *(result(stage) for stage in DATA)).kind == "done"
    assert one("judged", *(result(stage) for stage in DATA)).kind == "waiting"


def test_a_refusal_says_why_and_ends_the_chain() -> None:
    judged = [result(stage) for stage in (*DATA, "train_model")]
    failed = result(
        "evaluate_model", verdict="fail", reasons=["AUC is 0.6100, it must be at least 0.86"]
    )
    row = one("deployed", *judged, failed, result("check_drift"))
    assert (row.kind, row.stage) == ("refused", "evaluate_model")
    assert row.detail == "fail: AUC is 0.6100, it must be at least 0.86"
    held = result("evaluate_model", verdict="hold", reasons=["too few mature rows"])
    skipped = [
        result(stage, state="skipped", reason="the verdict is hold")
        for stage in ("package_model", "deploy_model")
    ]
    row = one("deployed", *judged, held, result("check_drift"), *skipped)
    assert (row.kind, row.detail) == ("refused", "hold: too few mature rows")


def test_an_evaluation_without_a_verdict_is_never_a_pass() -> None:
    row = one(
        "deployed",
        *(result(stage) for stage in (*DATA, "train_model")),
        result("evaluate_model", verdict=None),
        result("check_drift"),
    )
    assert row.kind == "refused"


def test_drift_is_awaited_also_after_a_refusal() -> None:
    row = one(
        "judged",
        *(result(stage) for stage in (*DATA, "train_model")),
        result("evaluate_model", verdict="fail"),
    )
    assert (row.kind, row.stage) == ("waiting", "check_drift")


def test_a_blocked_day_is_refused_and_a_passing_fault_is_not() -> None:
    blocked = result(
        "validate_data", state="blocked", reason="orders: 7.2 % of rows are bad, the limit is 1.0 %"
    )
    row = one("judged", result("ingest_data"), blocked)
    assert (row.kind, row.stage) == ("refused", "validate_data")
    assert "7.2 %" in row.detail
    for error, kind in (
        ("MissingPartition", "waiting"),
        ("Unavailable", "waiting"),
        ("SourceError", "refused"),
        (None, "refused"),
    ):
        failed = result("validate_data", state="failed", reason="why", error=error)
        assert one("judged", result("ingest_data"), failed).kind == kind


def test_a_release_that_was_asked_for_waits_also_as_older_versions_recorded_it() -> None:
    before = [result(stage) for stage in DEPLOYED if stage != "deploy_model"]
    reason = "waiting for a serving node to try model 3"
    asked = result("deploy_model", state="waiting", reason=reason)
    before_states = result("deploy_model", state="failed", reason=reason, error="Unavailable")
    for recorded in (asked, before_states):
        row = one("deployed", *before, recorded)
        assert (row.kind, row.stage, row.detail) == ("waiting", "deploy_model", reason)


@pytest.mark.parametrize("stage", ["evaluate_model", "check_drift"])
def test_what_could_not_be_read_waits_and_can_be_started_again(stage: str) -> None:
    from include.orchestration.healing import plan_restarts

    results = [result(name) for name in (*DATA, "train_model", "evaluate_model", "check_drift")]
    results = [
        replace(row, state="unreadable", reason="the bundle is away") if row.stage == stage else row
        for row in results
    ]
    row = one("judged", *results)
    assert (row.kind, row.stage, row.detail) == (
        "waiting",
        stage,
        "unreadable, tried again: the bundle is away",
    )
    (again,) = plan_restarts("shop", [row], active=set())
    assert again.asset == {"evaluate_model": "candidate", "check_drift": "judged"}[stage]


def test_running_names_the_holder_of_the_lease() -> None:
    row = one(
        "judged", result("ingest_data"), running={("validate_data", KEY): "airflow:run (attempt 1)"}
    )
    assert (row.kind, row.stage) == ("running", "validate_data")
    assert "airflow:run" in row.detail


def test_missing_are_the_gaps_between_what_is_there() -> None:
    expected = ["2026-01-04", "2026-01-05", "2026-01-06"]
    known = [partition("2026-01-04", target="data"), partition("2026-01-06", target="data")]
    results = [result(stage, key) for key in ("2026-01-04", "2026-01-06") for stage in DATA]
    found = rows("shop", partitions=known, results=results, running={}, expected=expected)
    assert [(row.key, row.kind) for row in found] == [
        ("2026-01-04", "done"),
        ("2026-01-05", "missing"),
        ("2026-01-06", "done"),
    ]
    assert "evergreen load-history shop --from 2026-01-05 --to 2026-01-05" in found[1].detail


def ingested(digest: str) -> dict[str, dict[str, Any]]:
    """Return what `ingest_data` records of a source."""
    source = {"rows": 1, "digest": digest, "source_digest": "s", "files": [], "columns": []}
    return {"orders": source}


def curated_as(digest: str) -> dict[str, dict[str, Any]]:
    """Return what `validate_data` records of a source."""
    return {"orders": {"curated_digest": digest, "rows": 1}}


def test_stale_is_whatever_read_a_partition_that_was_restated() -> None:
    """Day 4 is ingested again with other rows: its own validation, and every later day that read
    it, are stale.
    """
    results = []
    for key in ("2026-01-04", "2026-01-05", "2026-01-06"):
        raw = result("ingest_data", key, sources=ingested(f"raw {key}"))
        curated = result(
            "validate_data",
            key,
            sources=curated_as(f"curated {key}"),
            labels={"digest": f"labels {key}", "rows": 1},
        )
        features = result("materialize_features", key)
        reads = [
            ["curated/orders", other, f"curated {other}"]
            for other in ("2026-01-04", "2026-01-05", "2026-01-06")
            if other <= key
        ]
        results += [
            raw,
            replace(curated, reads=[["shop/raw/orders", key, f"raw {key}"]]),
            replace(features, reads=reads),
        ]
    known = [partition(key, target="data") for key in ("2026-01-04", "2026-01-05", "2026-01-06")]
    assert {row.kind for row in rows("shop", partitions=known, results=results, running={})} == {
        "done"
    }

    again = result("ingest_data", "2026-01-05", sources=ingested("raw restated"))
    changed = [
        again if (row.stage, row.key) == ("ingest_data", "2026-01-05") else row for row in results
    ]
    kinds = {
        row.key: row.kind for row in rows("shop", partitions=known, results=changed, running={})
    }
    assert kinds == {"2026-01-04": "done", "2026-01-05": "stale", "2026-01-06": "stale"}

    curated = result(
        "validate_data",
        "2026-01-05",
        sources=curated_as("curated restated"),
        labels={"digest": "l", "rows": 1},
    )
    curated = replace(curated, reads=[["raw/orders", "2026-01-05", "raw restated"]])
    changed = [
        curated if (row.stage, row.key) == ("validate_data", "2026-01-05") else row
        for row in changed
    ]
    found = {row.key: row for row in rows("shop", partitions=known, results=changed, running={})}
    assert {key: row.kind for key, row in found.items()} == {
        "2026-01-04": "done",
        "2026-01-05": "stale",
        "2026-01-06": "stale",
    }
    assert "curated/orders 2026-01-05" in found["2026-01-06"].detail
    assert "evergreen run all --use-case shop --partition 2026-01-06" in found["2026-01-06"].detail

    raised = [partition(key, target="judged") for key in found]
    kinds = {
        row.key: row.kind for row in rows("shop", partitions=raised, results=changed, running={})
    }
    assert kinds == {"2026-01-04": "waiting", "2026-01-05": "stale", "2026-01-06": "stale"}


def test_a_release_that_met_another_champion_waits_to_be_judged_again() -> None:
    before = [result(stage) for stage in DEPLOYED if stage != "deploy_model"]
    lost = result("deploy_model", state="failed", reason="champion is 3 now", error="Conflict")
    row = one("deployed", *before, lost)
    assert (row.kind, row.stage, row.detail) == ("waiting", "evaluate_model", "champion is 3 now")
