"""The DAG that collects what no record needs: its tasks are run, in order, as Airflow has them."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest

from include.clock import utc_now
from include.config.use_case_file import find
from include.orchestration.dag_defaults import nightly
from tests.builders.logged import write_segment
from tests.dags.test_import_predictions import Place, place

__all__ = ["place"]  # a fixture


def test_it_collects_and_says_what_it_came_to(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from include.orchestration import garbage, predictions

    write_segment(place.settings.home, 3, use_case="shops", at=utc_now() - timedelta(days=500))
    run = SimpleNamespace(run_type="scheduled", triggering_user_name=None)
    for module in (garbage, predictions):
        monkeypatch.setattr(module, "get_current_context", lambda: {"dag_run": run})
        monkeypatch.setattr(module, "lower_priority", lambda: None)
    predictions.import_log("shops")
    orphan = place.settings.home / "models" / "shops" / "2024-01-01" / "0123456789abcdef"
    orphan.mkdir(parents=True)
    dag = place.dags["shops__collect_garbage"]
    done = {task.task_id: task.python_callable() for task in dag.topological_sort()}
    assert done == {
        "collect": {
            "versions": [],
            "removed": {"predictions": {"count": 1, "bytes": 0}},
            "put_off": [],
        },
        "trim_airflow": {},
    }
    assert orphan.exists(), "it is young"
    actions = {entry.action: entry.actor for entry in place.records.audit.entries("shops")}
    assert actions == {
        "garbage.collected": "airflow:scheduled",
        "predictions.expired": "airflow:scheduled",
    }


def test_it_runs_once_a_night_and_use_cases_not_all_at_once(place: Place) -> None:
    dag = place.dags["shops__collect_garbage"]
    minute, *rest = dag.schedule.split()
    assert 0 <= int(minute) < 60
    assert rest == ["4", "*", "*", "*"]
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    case = find("shops", place.settings.usecase_dirs)
    others = {nightly(case.model_copy(update={"name": f"shop{number}"})) for number in range(20)}
    assert len(others) > 10
