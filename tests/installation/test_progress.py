"""What a start shows of Airflow's runs: each once, as it ends, and why one has failed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from include.config.settings import Settings
from include.installation import progress
from include.installation.progress import Followed, NotDeployed
from include.orchestration.airflow_runs import Run, TaskState
from include.pipeline.flow import STAGES
from include.records.records import AuditEntry, Records

AT = datetime(2026, 1, 2, tzinfo=UTC)
KEY = "2026-01-01"


def run_of(stage: str, state: str = "success", seconds: float = 2.0, key: str = KEY) -> Run:
    ended = AT + timedelta(seconds=seconds) if state in ("success", "failed") else None
    return Run(f"shop__{stage}", f"run-{stage}-{key}", state, "manual", key, {}, AT, ended)


class Airflow:
    """What Airflow's API answers: one list of runs after the other, the last one for ever."""

    def __init__(self, *answers: list[Run], tasks: list[TaskState] | None = None) -> None:
        self.answers, self.states = [*answers], tasks or []

    def runs(self, *_: object, **filters: Any) -> list[Run]:
        if filters.get("states"):
            return [run for run in self.answers[0] if run.state in filters["states"]]
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def run(self, dag_id: str, run_id: str) -> Run:
        return self.runs()[0]

    def tasks(self, run: Run) -> list[TaskState]:
        return self.states


@pytest.fixture
def records(settings: Settings) -> Records:
    records = Records.open(settings.records_address)
    records.migrate()
    return records


def followed(settings: Settings, records: Records, airflow: Airflow) -> Followed:
    return Followed(settings, "shop", records, airflow, lambda seconds: None)  # type: ignore[arg-type]


def test_every_stage_is_shown_once_in_the_order_of_its_end(
    settings: Settings, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    first = [run_of(STAGES[0]), run_of(STAGES[1], "running")]
    second = [run_of(stage, seconds=place + 1) for place, stage in enumerate(STAGES)]
    followed(settings, records, Airflow(first, second)).follow_chain([KEY], AT)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*STAGES]
    assert lines[0].split() == [STAGES[0], "success", "2.0", "s"]


def test_of_several_keys_each_is_named(
    settings: Settings, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [KEY, "2026-01-02"]
    runs = [run_of(stage, key=key) for stage in STAGES for key in keys]
    followed(settings, records, Airflow(runs)).follow_chain(keys, AT)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(STAGES)
    assert sum("success  2026-01-02" in line for line in lines) == len(STAGES)


def test_a_release_in_its_steps_is_shown_and_not_waited_for(
    settings: Settings, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [run_of(stage) for stage in STAGES if stage != "deploy_model"]
    releasing = run_of("deploy_model", "running")
    tasks = [TaskState("begin", "success", 1.0, AT, 1), TaskState("shadow", "deferred", 1.0, AT, 1)]
    airflow = Airflow([*runs, releasing], tasks=tasks)
    followed(settings, records, airflow).follow_chain([KEY], AT)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split()[:3] == ["deploy_model", "in", "shadow"]
    assert len(lines) == len(STAGES)


def test_a_failed_run_ends_it_with_the_reason_on_record(
    settings: Settings, records: Records
) -> None:
    failed = run_of("train_model", "failed")
    task = TaskState("train", "failed", 1.0, AT, 1)
    airflow = Airflow([failed], tasks=[task])
    with pytest.raises(NotDeployed, match="shop__train_model 2026-01-01, task train failed: see"):
        followed(settings, records, airflow).follow_chain([KEY], AT)
    details = {"run": failed.run_id, "task": "train", "reason": "no feature is left"}
    records.audit.append(AuditEntry("task.failed", "shop", KEY, "test", details, AT))
    with pytest.raises(NotDeployed, match="task train failed: no feature is left"):
        followed(settings, records, airflow).follow_chain([KEY], AT)


def test_what_does_not_move_any_more_is_named_with_the_command(
    settings: Settings, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "STALLED_AFTER", -1.0)
    with pytest.raises(NotDeployed, match=r"check_drift 2026-01-01.*evergreen heal shop"):
        followed(settings, records, Airflow([])).follow_chain([KEY], AT)


def test_tasks_of_one_run_are_shown_as_they_end(
    settings: Settings, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of("load_history", "running")
    tasks = [TaskState("ingest", "success", 1.5, AT, 1), TaskState("validate", None, 0, AT, 1)]
    done = replace(run, state="success", ended=AT)
    followed(settings, records, Airflow([run], [done], tasks=tasks)).follow_run(run)
    assert capsys.readouterr().out.split() == ["ingest", "success", "1.5", "s"]


def test_an_answer_is_shown_field_by_field(capsys: pytest.CaptureFixture[str]) -> None:
    progress.print_answer({"score": 0.5, "decision": "accept"})
    assert capsys.readouterr().out == "\n  score     0.5\n  decision  accept\n"


def test_addresses_and_how_to_stop_are_shown(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    progress.print_addresses(settings)
    shown = capsys.readouterr().out
    assert settings.airflow_url in shown
    assert "Ctrl-C stops everything" in shown
