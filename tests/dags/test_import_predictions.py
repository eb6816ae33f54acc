"""The DAG that imports the prediction log: its tasks are run, in order, as Airflow has them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.clock import utc_now
from include.config.settings import settings
from include.errors import Unavailable
from include.lake.tables import Lake
from include.predictions.log import folder
from include.records.records import Records
from tests.builders.logged import write_segment
from tests.builders.releases import add_model, entry, request
from tests.dags.conftest import parse
from tests.dags.test_policy import SMALL


class Place:
    """An installation with one use case, whose DAGs are parsed."""

    def __init__(self, bag: Any) -> None:
        self.dags, self.settings = bag.dags, settings()
        self.records = Records.open(self.settings.records_address)
        self.records.migrate()

    def run(self, name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """Execute all tasks of a DAG, each after those before it; return what they came to."""
        from airflow.sdk.exceptions import DownstreamTasksSkipped

        from include.orchestration import predictions, tasks

        dag = self.dags[f"shops__{name}"]
        run = SimpleNamespace(
            dag_id=dag.dag_id,
            run_id="r",
            partition_key=None,
            run_type="scheduled",
            triggering_user_name=None,
        )
        instance = SimpleNamespace(try_number=1, xcom_push=lambda **_: None)
        context = {"dag_run": run, "ti": instance, "params": {}}
        for module in (predictions, tasks):
            monkeypatch.setattr(module, "get_current_context", lambda: context)
        monkeypatch.setattr(predictions, "lower_priority", lambda: None)
        done: dict[str, Any] = {}
        for task in dag.topological_sort():
            try:
                done[task.task_id] = task.python_callable()
            except DownstreamTasksSkipped as skipped:
                return done | {task.task_id: "nothing new", "skipped": skipped.tasks}
        return done

    @property
    def rows(self) -> list[str]:
        lake = Lake(self.settings.lake_root)
        return sorted(lake.read("shops/predictions").column("request_id").to_pylist())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    (tmp_path / "shops.yaml").write_text(
        SMALL.format(name="shops", cadence="day", history="{first: 2024-01-01}")
    )
    monkeypatch.setenv("EVERGREEN_USECASES", str(tmp_path))
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "var"))
    settings.cache_clear()
    yield Place(parse())
    monkeypatch.undo()
    settings.cache_clear()


def test_it_imports_what_was_answered_and_tidies(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, now = place.settings.home, utc_now()
    write_segment(home, 1, 2, use_case="shops", at=now)
    write_segment(home, 3, use_case="shops", at=now - timedelta(days=500))
    with next(folder(home, "shops").iterdir()).open("ab") as file:
        file.write(b"no line\n")
    done = place.run("import_predictions", monkeypatch)
    assert list(done) == ["load", "tidy"]
    assert (done["load"]["lines"], done["load"]["set_aside"]) == (3, 1)
    assert (done["tidy"]["days"], done["tidy"]["rows"]) == (1, 1)
    assert place.rows == ["r1", "r2"]
    actions = [entry.action for entry in place.records.audit.entries("shops")]
    assert actions == ["predictions.set_aside", "predictions.expired"]
    monkeypatch.setattr("include.clock.utc_now", lambda: now.replace(hour=4))
    nothing = place.run("import_predictions", monkeypatch)
    assert nothing == {"load": "nothing new", "skipped": ["tidy"]}
    monkeypatch.setattr("include.clock.utc_now", lambda: now.replace(hour=3))
    again = place.run("import_predictions", monkeypatch)
    assert (again["load"]["lines"], again["tidy"]["days"]) == (0, 0)


def test_what_waited_for_the_end_of_a_freeze_is_started_within_the_hour(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from include.orchestration.airflow_api import AirflowApi

    emitted: list[str] = []

    def emit(api: AirflowApi, uri: str, key: str, extra: object = None) -> None:
        emitted.append(key)
        if len(emitted) == 1:
            raise Unavailable("Airflow does not answer")

    monkeypatch.setattr(AirflowApi, "emit", emit)
    releases, later = place.records.releases, utc_now() + timedelta(days=1)
    add_model(place.records, 1, "2026-01-01", "shops")
    place.records.routes.change("shops", set={"champion": 1}, entry=entry(use_case="shops"))
    releases.freeze("shops", later, entry(use_case="shops"))
    request(place.records, 2, "2026-01-02", use_case="shops", waits=True)
    place.run("import_predictions", monkeypatch)
    assert emitted == [], "it is frozen"
    releases.freeze("shops", utc_now() - timedelta(seconds=1), entry(use_case="shops"))
    write_segment(place.settings.home, 1, use_case="shops", at=utc_now())
    done = place.run("import_predictions", monkeypatch)
    assert (emitted, done["load"]["lines"]) == (["2026-01-02"], 1), "it keeps nothing else back"
    for _ in range(2):
        place.run("import_predictions", monkeypatch)
    assert emitted == ["2026-01-02"] * 2


def test_it_runs_every_hour_and_use_cases_not_all_at_once(place: Place) -> None:
    from include.config.use_case_file import find
    from include.orchestration.dag_defaults import hourly

    dag = place.dags["shops__import_predictions"]
    (minute, *rest) = dag.schedule.split()
    assert 0 < int(minute) < 60
    assert rest == ["*"] * 4
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    case = find("shops", place.settings.usecase_dirs)
    others = {hourly(case.model_copy(update={"name": f"shop{number}"})) for number in range(20)}
    assert len(others) > 10


def test_drift_imports_first_and_does_not_fail_because_of_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from include.orchestration import predictions, triggers

    task = place.dags["shops__check_drift"].get_task("check")
    write_segment(place.settings.home, 1, use_case="shops", at=utc_now())
    judged: list[list[str]] = []

    def judge(*_: object) -> dict[str, Any]:
        judged.append(place.rows)
        return {}

    monkeypatch.setattr(triggers.JudgeOperator, "_try", judge)
    run = SimpleNamespace(run_type="asset_triggered", triggering_user_name=None)
    monkeypatch.setattr(predictions, "get_current_context", lambda: {"dag_run": run})
    monkeypatch.setattr(predictions, "lower_priority", lambda: None)
    task.execute({})
    write_segment(place.settings.home, 2, use_case="shops", at=utc_now())
    with place.records.leases.claim(
        "shops", "predictions", "import", owner="other", attempt=1, ttl=30
    ):
        task.execute({})
    monkeypatch.setattr(predictions, "import_log", lambda *_, **__: 1 / 0)
    task.execute({})
    assert judged == [["r1"]] * 3
