"""Which missing partitions are coming, and which nobody brings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from include.orchestration.pending import SeenRun, StageRecord, is_coming, keys_not_coming
from include.pipeline.flow import CHAIN, STAGES, upstream

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
KEY = "2026-06-01"
TRANSIT = timedelta(minutes=10)


def seen(dag: str, state: str, *, key: str = KEY, ago: timedelta | None = None) -> SeenRun:
    return SeenRun(dag, state, NOW - ago if ago is not None else None, key, key)


def done(*stages: str, ago: timedelta = timedelta(hours=1)) -> dict[str, StageRecord]:
    return {name: StageRecord(name, "done", NOW - ago) for name in stages}


def coming(
    stage: str,
    runs: list[SeenRun],
    recorded: dict[str, StageRecord],
    target: str | None = "judged",
    key: str = KEY,
) -> bool:
    return is_coming(
        key, stage=stage, runs=runs, recorded=recorded, target=target, transit=TRANSIT, now=NOW
    )


def test_nothing_known_is_not_coming() -> None:
    assert not coming("materialize_features", [], {}, target=None)


@pytest.mark.parametrize("state", ["queued", "running"])
@pytest.mark.parametrize("dag", ["ingest_data", "validate_data", "load_history"])
def test_an_active_run_before_the_stage_brings_it(state: str, dag: str) -> None:
    assert coming("materialize_features", [seen(dag, state)], {})


@pytest.mark.parametrize("dag", ["materialize_features", "train_model"])
def test_a_run_of_the_stage_itself_or_below_brings_nothing(dag: str) -> None:
    """Two runs of one DAG that waited for each other would wait until their deadline."""
    assert not coming("materialize_features", [seen(dag, "running")], {})


def test_a_run_of_another_key_brings_nothing() -> None:
    assert not coming(
        "materialize_features", [seen("validate_data", "running", key="2026-06-02")], {}
    )


def test_a_range_that_is_being_loaded_covers_its_keys_only() -> None:
    loading = SeenRun("load_history", "running", None, "2026-05-01", "2026-06-01")
    assert coming("materialize_features", [loading], {}, key="2026-05-17")
    assert not coming("materialize_features", [loading], {}, key="2026-06-02")


@pytest.mark.parametrize(
    ("ago", "expected"), [(timedelta(minutes=9, seconds=59), True), (TRANSIT, False)]
)
def test_between_two_dags_it_is_coming_for_the_time_of_transit(
    ago: timedelta, expected: bool
) -> None:
    assert coming("materialize_features", [], done("ingest_data", ago=ago)) is expected


def test_a_rerun_answered_from_an_old_record_is_in_transit_too() -> None:
    """The record is an hour old, but the run that repeated it ended a second ago and its event
    is on its way.
    """
    runs = [seen("ingest_data", "success", ago=timedelta(seconds=1))]
    assert coming("materialize_features", runs, done("ingest_data"))
    assert not coming(
        "materialize_features",
        [seen("ingest_data", "failed", ago=timedelta(seconds=1))],
        done("ingest_data"),
    )


@pytest.mark.parametrize("state", ["failed", "blocked"])
def test_a_refusal_is_terminal_unless_it_is_being_run_again(state: str) -> None:
    recorded = done("ingest_data", ago=timedelta(seconds=1)) | {
        "validate_data": StageRecord("validate_data", state, NOW)
    }
    assert not coming("materialize_features", [], recorded)
    assert coming("materialize_features", [seen("validate_data", "running")], recorded)


def test_the_target_must_ask_for_the_next_stage() -> None:
    fresh = done("ingest_data", "validate_data", "materialize_features", ago=timedelta(seconds=1))
    assert not coming("evaluate_model", [], fresh, target="data")
    assert coming("evaluate_model", [], fresh, target="judged")


def test_what_was_only_loaded_moves_on_only_while_somebody_loads_it() -> None:
    """A load takes in and validates more days than it materializes; no event will ever bring
    those further.
    """
    fresh = done("ingest_data", "validate_data", ago=timedelta(seconds=1))
    assert not coming("train_model", [], fresh, target="data")
    assert not coming(
        "train_model",
        [seen("load_history", "success", ago=timedelta(seconds=1))],
        fresh,
        target="data",
    )
    assert not coming(
        "train_model", [seen("train_model", "running", key="2026-06-02")], fresh, target="data"
    )
    assert coming("train_model", [seen("load_history", "running")], fresh, target="data")
    assert coming(
        "train_model", [seen("ingest_data", "running", key="2026-06-02")], fresh, target="data"
    ), "a later key fills the gap"
    assert coming("train_model", [], fresh, target="judged")


def test_all_stages_before_done_leaves_nothing_to_come() -> None:
    """What is missing although its stages are done (a feature set of another definition) is for
    a person.
    """
    assert not coming(
        "materialize_features", [], done("ingest_data", "validate_data", ago=timedelta(seconds=1))
    )


def test_no_stage_waits_for_itself() -> None:
    for stage in STAGES:
        assert stage not in upstream(stage)
        assert set(upstream(stage)) < set(CHAIN)


def test_hopeless_names_what_is_missing_and_not_coming_in_order() -> None:
    assert keys_not_coming(["2026-06-01", "2026-06-02", "2026-06-03"], {"2026-06-02"}) == [
        "2026-06-01",
        "2026-06-03",
    ]
