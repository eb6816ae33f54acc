"""One policy for all DAG files: what a person, the scheduler and the form rely on."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from include.config.settings import ROOT, settings
from include.config.use_case_file import files
from include.pipeline import flow
from tests.dags.conftest import DAGS, parse

STAGES = {*flow.STAGES, "load_history", *flow.UNPARTITIONED}
ID = re.compile(r"^[a-z][a-z0-9_]*__[a-z]+_[a-z]+$")
HEAVY = {
    "pandas",
    "numpy",
    "pyarrow",
    "duckdb",
    "deltalake",
    "feast",
    "mlflow",
    "great_expectations",
    "evidently",
    "bentoml",
    "lightgbm",
    "sklearn",
    "uvicorn",
    "include.pipeline.execution",
    "include.pipeline.runner",
    "include.records.records",
    "include.lake.tables",
}
SMALL = """
name: {name}
cadence: {cadence}
history: {history}
entity: {{name: shop, key: shop_id}}
sources:
  visits:
    path: "*.csv"
    arrival: event + 0s
    key: [shop_id]
    columns: {{shop_id: {{type: int64}}, paid: {{type: int64}}, size: {{type: float64}}}}
label: {{source: visits, column: paid, label_time: event + 1d, delay: 1d}}
features:
  shop: {{grain: event, source: visits, columns: {{size: float64}}}}
"""
MEASURE = """
import json, runpy, sys, time
start = time.process_time()
import airflow.sdk
alone, before = time.process_time() - start, set(sys.modules)
for path in sys.argv[1:]:
    runpy.run_path(path)
print(json.dumps([alone, time.process_time() - start, sorted(set(sys.modules) - before)]))
"""


@pytest.fixture(scope="session")
def dags(bag: Any) -> dict[str, Any]:
    assert bag.import_errors == {}
    return dict(bag.dags)


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that parses the DAGs for a folder with the use cases given as text."""
    monkeypatch.setenv("EVERGREEN_USECASES", str(tmp_path))

    def define(**texts: str) -> Any:
        for name, text in texts.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        return parse()

    yield define
    monkeypatch.undo()
    settings.cache_clear()


def test_every_use_case_has_every_dag(dags: dict[str, Any]) -> None:
    shipped = [path.stem for path in files([ROOT / "include" / "usecases"])]
    assert shipped
    assert set(dags) == {f"{use_case}__{stage}" for use_case in shipped for stage in STAGES}
    assert all(ID.match(name) for name in dags)


def test_every_dag_survives_the_way_to_the_database(dags: dict[str, Any]) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    for dag in dags.values():
        encoded = json.loads(json.dumps(DagSerialization.to_dict(dag)))
        assert set(DagSerialization.from_dict(encoded).task_ids) == set(dag.task_ids)


def test_every_dag_has_its_run_book_owner_and_tags(dags: dict[str, Any]) -> None:
    for name, dag in dags.items():
        use_case, stage = name.split("__")
        assert {"evergreen", use_case, stage} <= set(dag.tags)
        assert "**When.**" in dag.doc_md
        assert "**Inputs and outputs.**" in dag.doc_md
        assert "**When it" in dag.doc_md
        assert re.fullmatch(r"[A-Z].*\.", dag.description), "the first line is one sentence"
        assert all(task.owner not in ("airflow", "") for task in dag.tasks)


def test_a_paused_consumer_would_lose_events(dags: dict[str, Any]) -> None:
    for name, dag in dags.items():
        assert dag.is_paused_upon_creation is name.endswith("__ingest_data")


def test_no_dag_runs_the_past_by_itself(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        assert dag.catchup is False
        assert dag.start_date.utcoffset().total_seconds() == 0
        assert "max_active_runs" not in dag.default_args


def test_the_date_stands_on_top_of_every_form(dags: dict[str, Any]) -> None:
    for name, dag in dags.items():
        names = list(dag.params)
        if name.endswith("__load_history"):
            assert names == ["first", "last"]
            continue
        if name.endswith("__control_release"):
            assert names == ["action", "reason", "version", "until"]
            continue
        if name.endswith(flow.UNPARTITIONED):
            assert names == []
            continue
        assert names[0] == "partition"
        assert "force" in names
        schema = dag.params.get_param("partition").schema
        assert schema["format"] == "date"
        assert dag.params["partition"] is None
        assert dag.params["force"] is False


def test_data_errors_fail_at_once_and_passing_ones_are_tried_again(dags: dict[str, Any]) -> None:
    from airflow.sdk import RetryAction

    from include import errors

    task = dags["repayment__train_model"].get_task("train")
    final = (
        errors.ConfigError,
        errors.SourceError,
        errors.RestatementRefused,
        errors.MissingPartition,
        errors.ArtefactError,
    )
    for kind in final:
        assert task.retry_policy.evaluate(kind("x"), 1, 3).action is RetryAction.FAIL
    for error in (
        errors.Busy("x"),
        errors.Unavailable("x"),
        errors.Conflict("x"),
        ConnectionResetError(),
    ):
        assert task.retry_policy.evaluate(error, 1, 3).action is RetryAction.RETRY
    assert task.retry_policy.evaluate(KeyError("a bug"), 1, 3).action is RetryAction.DEFAULT
    assert task.retries > 0


def test_the_chain_is_wired_by_assets_and_the_refusal_reaches_the_release(
    dags: dict[str, Any],
) -> None:
    emitted = {
        asset.name: dag_id
        for dag_id, dag in dags.items()
        for task in dag.tasks
        for asset in task.outlets
    }
    followers: dict[str, set[str]] = {}
    for dag_id, dag in dags.items():
        condition = getattr(dag.timetable, "asset_condition", None)
        if condition is not None:
            followers.setdefault(emitted[condition.name], set()).add(dag_id.split("__")[1])
    assert followers["repayment__evaluate_model"] == {"package_model", "check_drift"}
    assert followers["repayment__package_model"] == {"deploy_model"}
    assert dags["repayment__package_model"].get_task("announce").trigger_rule == "none_failed"
    assert not [task for task in dags["repayment__load_history"].tasks if task.outlets]


def test_a_release_has_a_task_for_each_step_of_its_use_case(other: Any) -> None:
    steps = "{steps: [{share: 0}, {share: 2.5}, {share: 50}], beat: 30s}"
    text = SMALL.format(name="shops", cadence="day", history="{first: 2024-01-01}")
    direct = text.replace("name: shops", "name: direct")
    bag = other(shops=f"{text}release: {steps}\n", direct=f"{direct}release: {{steps: []}}\n")
    dag = bag.dags["shops__deploy_model"]
    order = [task.task_id for task in dag.topological_sort()]
    assert order == [
        *("request", "wait_for_node", "begin", "shadow", "share_2_5", "share_50"),
        *("promote", "watch", "announce"),
    ]
    told = [{"step": 0, "last": False}, {"step": 1, "last": False}, {"step": 2, "last": True}]
    assert [dag.get_task(name).arguments for name in order[3:6]] == told
    assert dag.get_task("watch").arguments == {"step": None, "last": False}
    assert dag.get_task("shadow").every == 10
    assert dag.get_task("shadow").execution_timeout is None, "it may last for days"
    assert dag.get_task("announce").is_teardown
    # Somebody may have taken the steps away while a release is in its own.
    dag = bag.dags["direct__deploy_model"]
    order = [task.task_id for task in dag.topological_sort()]
    assert order == ["request", "wait_for_node", "begin", "steps", "promote", "watch", "announce"]
    assert dag.get_task("steps").arguments == {"step": 0, "last": True}
    assert dag.get_task("promote").upstream_task_ids == {"begin", "steps"}
    assert dag.get_task("promote").trigger_rule == "none_failed_min_one_success"


def test_a_person_must_say_why_a_release_is_steered(dags: dict[str, Any]) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    form = dags["repayment__control_release"].params
    (steer,) = dags["repayment__control_release"].tasks
    assert (steer.retries, steer.retry_policy) == (0, None), "said again, it is said of another"
    assert not steer.on_failure_callback, "a form that is refused is nobody's alarm"
    with pytest.raises(ParamValidationError):
        form.get_param("reason").resolve("")
    assert form.get_param("reason").resolve("month end") == "month end"
    assert form.get_param("action").schema["enum"][:2] == ["pause", "unpause"]
    assert form["version"] is None
    assert form.get_param("version").resolve(7) == 7
    with pytest.raises(ParamValidationError):
        form.get_param("version").resolve("7b")


@pytest.mark.parametrize(
    ("cadence", "moment", "key"),
    [
        ("day", datetime(2024, 3, 1, tzinfo=UTC), "2024-02-29"),
        ("week", datetime(2024, 3, 4, tzinfo=UTC), "2024-02-26"),
        ("month", datetime(2025, 1, 1, tzinfo=UTC), "2024-12-01"),
    ],
)
def test_the_timetable_ticks_at_the_end_of_each_period(
    other: Any, cadence: str, moment: datetime, key: str
) -> None:
    from airflow.sdk.definitions.timetables.trigger import CronPartitionTimetable
    from airflow.serialization.serialized_objects import DagSerialization

    first = {"day": "2024-01-01", "week": "2024-01-01", "month": "2024-01-01"}[cadence]
    bag = other(shops=SMALL.format(name="shops", cadence=cadence, history=f"{{first: {first}}}"))
    dag = bag.dags["shops__ingest_data"]
    assert isinstance(dag.timetable, CronPartitionTimetable)
    assert dag.end_date is None
    timetable = DagSerialization.from_dict(DagSerialization.to_dict(dag)).timetable
    assert timetable._get_partition_info(moment)[1] == key
    assert [
        info.partition_key
        for info in timetable.iter_partition_dagrun_infos(earliest=_day(key), latest=_day(key))
    ] == [key]


def test_a_closed_history_is_never_scheduled_but_can_be_backfilled(other: Any) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    bag = other(
        shops=SMALL.format(
            name="shops", cadence="month", history="{first: 2005-04-01, last: 2005-10-01}"
        )
    )
    dag = DagSerialization.from_dict(DagSerialization.to_dict(bag.dags["shops__ingest_data"]))
    assert dag.next_dagrun_info(last_automated_run_info=None) is None
    infos = dag.timetable.iter_partition_dagrun_infos(
        earliest=_day("2005-04-01"), latest=_day("2005-10-01")
    )
    assert [info.partition_key for info in infos][-1] == "2005-10-01"


def test_a_broken_use_case_is_shown_and_disturbs_no_other(other: Any) -> None:
    good = SMALL.format(name="shops", cadence="day", history="{first: 2024-01-01}")
    bag = other(shops=good, broken="name: broken\nhistory: {first: 2024-01-01}\nentity: 3\n")
    assert {name.split("__")[0] for name in bag.dags} == {"shops"}
    assert len(bag.dags) == len(STAGES)
    [(path, reason)] = bag.import_errors.items()
    assert Path(path).name == "use_cases.py"
    assert "broken.yaml, line 3: entity" in reason


def test_dag_files_stay_short() -> None:
    lengths = [len(path.read_text().splitlines()) for path in DAGS.glob("*.py")]
    assert statistics.median(lengths) < 90
    assert max(lengths) < 120


def test_parsing_all_files_costs_little_more_than_airflow_itself() -> None:
    paths = sorted(str(path) for path in DAGS.glob("*.py"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    ratios = []
    for _ in range(2):
        command = [sys.executable, "-c", MEASURE, *paths]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        alone, together, imported = json.loads(done.stdout.strip().splitlines()[-1])
        assert not HEAVY & set(imported)
        ratios.append(together / alone)
    assert min(ratios) < 1.3


def _day(key: str) -> datetime:
    return datetime.fromisoformat(key).replace(tzinfo=UTC)
