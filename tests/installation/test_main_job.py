"""The main job of one use case, as far as it asks records and Airflow; e2e runs all of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from include.config.settings import Settings
from include.config.use_case_file import parse
from include.errors import Unavailable
from include.installation.main_job import MainJob
from include.installation.progress import NotDeployed
from include.orchestration.airflow_runs import Run
from include.pipeline.flow import STAGES
from include.records.records import AuditEntry, Records, StageResult
from tests.builders.command_line import YAML, add_model

AT = datetime(2025, 3, 9, tzinfo=UTC)
NEWEST = "2025-03-08"


class Supervisor:
    """Waits without sleeping: an answer that does not come at once never comes."""

    def wait_for(self, answer: Callable[[], Any], *, seconds: float) -> Any:
        return answer() or None

    def pause(self, seconds: float) -> None:
        pass


class Airflow:
    """What Airflow's API answers, and what it was asked to do."""

    def __init__(self, *runs: Run, dags: set[str] | None = None) -> None:
        self.listed, self.dags, self.done = [*runs], dags or set(), list[Any]()

    def runs(self, *_: object, **__: object) -> list[Run]:
        return self.listed

    def dag_ids(self, use_case: str) -> set[str]:
        return self.dags

    def import_errors(self) -> list[str]:
        return ["shop.py: no module named x"]

    def pause(self, dag_id: str, paused: bool) -> None:
        self.done.append((dag_id, paused))


@pytest.fixture
def records(settings: Settings) -> Records:
    records = Records.open(settings.records_address)
    records.migrate()
    return records


def job_of(settings: Settings, airflow: Airflow, text: str = YAML, days: int = 0) -> MainJob:
    return MainJob(settings, parse(text), Supervisor(), airflow, days)  # type: ignore[arg-type]


def released(records: Records, state: str = "done", mode: str = "live") -> None:
    """Record the newest partition to its end."""
    records.partitions.raise_to(
        "visits",
        NEWEST,
        mode=mode,  # type: ignore[arg-type]
        target="deployed",
        actor="test",
        at=AT,
    )
    result = StageResult(
        "visits", NEWEST, "deploy_model", state, "", "", {}, [], "m", mode, AT, AT, 0.1, "none"
    )
    with records.leases.claim(
        "visits", "deploy_model", NEWEST, owner="test", attempt=1, ttl=30
    ) as lease:
        records.results.commit(lease, result)


def test_a_use_case_without_a_complete_partition_has_nothing_to_do(
    settings: Settings, records: Records
) -> None:
    text = YAML.replace("{first: 2025-03-01, last: 2025-03-08}", "{first: 2999-01-01}")
    with pytest.raises(NotDeployed, match="visits has no complete partition yet"):
        job_of(settings, Airflow(), text)


def test_days_before_the_newest_are_backfilled(settings: Settings, records: Records) -> None:
    assert job_of(settings, Airflow()).backfilled == []
    assert job_of(settings, Airflow(), days=2).backfilled == ["2025-03-06", "2025-03-07"]
    assert len(job_of(settings, Airflow(), days=99).backfilled) == 7


@pytest.mark.parametrize(
    ("state", "mode", "is_released"),
    [("done", "live", True), ("skipped", "live", True), ("failed", "live", False)],
)
def test_a_live_release_that_did_not_fail_is_on_record(
    settings: Settings, records: Records, state: str, mode: str, is_released: bool
) -> None:
    job = job_of(settings, Airflow())
    assert job._release_result() is None
    released(records, state, mode)
    assert (job._release_result() is not None) == is_released
    assert not job.is_on_record(), "the history is not loaded"


def test_what_the_newest_came_to_is_said_in_words(settings: Settings, records: Records) -> None:
    job = job_of(settings, Airflow())
    assert job._describe() == "it was not released"
    released(records)
    assert job._describe() == "done; there is no champion"
    add_model(records, 1, NEWEST)
    entry = AuditEntry("release.done", "visits", "1", "test", {}, AT)
    records.routes.change("visits", set={"champion": 1}, entry=entry)
    assert job._describe() == "done; model 1 is champion"


def test_without_a_champion_nothing_can_answer(settings: Settings, records: Records) -> None:
    with pytest.raises(NotDeployed, match="has no champion, so nothing can answer"):
        job_of(settings, Airflow()).predict()


def test_dags_that_airflow_does_not_list_are_named_with_the_import_errors(
    settings: Settings, records: Records
) -> None:
    dags = {f"visits__{name}" for name in (*STAGES, "load_history")}
    job_of(settings, Airflow(dags=dags)).wait_for_dags()
    with pytest.raises(Unavailable, match="not list visits__load_history: shop"):
        job_of(settings, Airflow(dags=dags - {"visits__load_history"})).wait_for_dags()


@pytest.mark.parametrize(
    ("key", "state", "is_scheduled"),
    [("newest", "running", True), ("newest", "success", False), ("2025-03-01", "running", False)],
)
def test_the_run_that_the_scheduler_makes_is_not_triggered_again(
    settings: Settings, records: Records, key: str, state: str, is_scheduled: bool
) -> None:
    text = YAML.replace(", last: 2025-03-08", "")
    job = job_of(settings, Airflow(), text)
    run = Run(
        "visits__ingest_data",
        "r",
        state,
        "scheduled",
        job.newest if key == "newest" else key,
        {},
        AT,
        None,
    )
    scheduled = job_of(settings, Airflow(run), text)
    assert scheduled._is_scheduled() == is_scheduled
    assert not job_of(settings, Airflow(run))._is_scheduled(), "a closed history is not scheduled"


def test_the_nightly_run_is_left_to_the_scheduler(settings: Settings, records: Records) -> None:
    airflow = Airflow()
    job_of(settings, airflow).unpause()
    assert airflow.done == [("visits__ingest_data", False)]
