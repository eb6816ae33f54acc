"""What a waiting task is answered: real records, and an Airflow over a socket."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from include.config.settings import settings
from include.orchestration import readiness
from tests.builders.airflow_server import AirflowServer, airflow_server, run_row
from tests.builders.intake import GOOD, HEAD, Intake
from tests.builders.ports import free_port

KEY = "2026-01-01"
RUNS = "/api/v2/dags/~/dagRuns"


@pytest.fixture
def intake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Intake]:
    """A use case whose first day is wanted, and nothing of it is ingested."""
    intake = Intake(tmp_path)
    intake.put(HEAD + GOOD)
    intake.ask(KEY)
    monkeypatch.setenv("EVERGREEN_HOME", str(intake.settings.home))
    monkeypatch.setenv("EVERGREEN_USECASES", str(intake.settings.usecases))
    monkeypatch.setenv("EVERGREEN_AIRFLOW_PORT", str(free_port()))
    settings.cache_clear()
    yield intake
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def airflow(intake: Intake) -> Iterator[AirflowServer]:
    with airflow_server(settings()) as server:
        server.answers["GET", RUNS] = (200, {"dag_runs": []})
        yield server


def check() -> dict[str, Any] | None:
    return readiness.check_inputs("shop", KEY, "validate_data")


def test_the_period_is_over_when_its_as_of_has_passed(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_of = datetime(2026, 1, 2, tzinfo=UTC)
    for now, answer in ((as_of.replace(day=1), None), (as_of, {"as_of": as_of.isoformat()})):
        monkeypatch.setattr(readiness, "utc_now", lambda now=now: now)
        assert readiness.check_period_over("shop", KEY) == answer


def test_inputs_on_record_are_there(intake: Intake) -> None:
    intake.ingest(KEY)
    assert check() == {"inputs": "there"}


def test_a_partition_that_nobody_asked_for_is_left_to_the_stage(intake: Intake) -> None:
    assert readiness.check_inputs("shop", "2026-01-02", "validate_data") == {"inputs": "there"}


def test_what_nobody_brings_fails_with_its_keys(intake: Intake, airflow: AirflowServer) -> None:
    answer = check()
    assert answer is not None
    assert (answer["error"], answer["keys"]) == ("MissingPartition", [KEY])
    assert "evergreen load-history shop" in answer["message"]


@pytest.mark.parametrize(
    "run",
    [
        run_row("shop__ingest_data", KEY),
        run_row("shop__load_history", None, "queued", first="2026-02-01", last="2026-02-02"),
        run_row("shop__load_history", None, "queued"),
    ],
)
def test_what_is_on_its_way_is_waited_for(
    intake: Intake, airflow: AirflowServer, run: dict[str, Any]
) -> None:
    airflow.answers["GET", RUNS] = (200, {"dag_runs": [run]})
    assert check() is None


def test_another_use_cases_runs_bring_nothing(intake: Intake, airflow: AirflowServer) -> None:
    rows = [run_row("shopping__ingest_data", KEY), run_row("shop__ingest_data", "2026-01-05")]
    airflow.answers["GET", RUNS] = (200, {"dag_runs": rows})
    answer = check()
    assert answer is not None
    assert answer["error"] == "MissingPartition"


def test_where_airflow_does_not_answer_it_is_asked_again(intake: Intake) -> None:
    assert check() is None
