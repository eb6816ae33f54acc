"""The whole chain through Airflow's scheduler, by real processes; the tests share one
installation and run in order. Those that take `embedded` are about `evergreen up` on this machine.
"""

from __future__ import annotations

import contextlib
import json
import re
from datetime import datetime, timedelta

import psutil
import pytest

from include.clock import utc_now
from include.installation.services import AIRFLOW
from include.orchestration.airflow_runs import Run, TaskState
from include.point_in_time import partitions
from tests.e2e.conftest import DAYS, session_of
from tests.e2e.installations import EVERY_DAG, Embedded, Installation


def test_up_runs_the_newest_day_through_the_scheduler_and_answers(
    installation: Installation,
) -> None:
    newest = newest_key(installation, "visits")
    chain = installation.chain("visits", newest)
    assert set(EVERY_DAG) <= set(chain)
    assert {run.state for run in chain.values()} == {"success"}
    assert chain["ingest_data"].run_type == "scheduled"
    assert {run.run_type for name, run in chain.items() if name != "ingest_data"} == {
        "asset_triggered"
    }
    states = {task.task_id: task.state for task in installation.api.tasks(chain["package_model"])}
    assert states == {"package": "success", "announce": "skipped"}
    row = installation.records.partitions.get("visits", newest)
    assert row is not None
    assert (row.mode, row.target) == ("live", "deployed")
    assert installation.records.routes.get("visits").champion == 1
    assert installation.records.audit.verify() is None


def test_up_prints_how_each_dag_ended_and_the_answer(embedded: Embedded) -> None:
    for dag in EVERY_DAG:
        ended = "(success|in watch)" if dag == "deploy_model" else "success"
        assert re.search(rf"{dag} +{ended} +\d", embedded.said)
    assert re.search(r"model_version +1\b", embedded.said)


def test_history_was_loaded_in_one_pass_as_backfill_without_an_event(
    installation: Installation,
) -> None:
    newest = newest_key(installation, "visits")
    rows = [row for row in installation.records.partitions.of("visits") if row.key != newest]
    assert len(rows) == DAYS - 1
    assert {(row.mode, row.target) for row in rows} == {("backfill", "data")}
    for name in ("raw", "curated", "features"):
        assert {
            event["partition_key"] for event in installation.api.events(uri("visits", name))
        } == {newest}


def test_nothing_listens_on_another_address_than_loopback(embedded: Embedded) -> None:
    state = json.loads((embedded.settings.home / "run" / "supervisor.json").read_text())
    sessions = {session["pid"] for session in state["sessions"]} | {embedded.process.pid}
    listening = [
        tuple(connection.laddr)
        for connection in psutil.net_connections("inet")
        if connection.pid
        and connection.status in ("LISTEN", "NONE")
        and session_of(connection.pid) in sessions
    ]
    here = embedded.settings
    assert {here.airflow_port, here.mlflow_port, here.node_port} <= {port for _, port in listening}
    assert {address for address, _ in listening} <= {"127.0.0.1", "::1"}


def test_only_ingest_data_of_a_use_case_that_was_not_named_is_paused(
    installation: Installation,
) -> None:
    ours = installation.api.dag_ids("visits") | installation.api.dag_ids("fresh")
    assert {dag for dag in ours if installation.api.paused(dag)} == {"fresh__ingest_data"}


def test_a_form_run_without_a_key_takes_the_newest_and_nothing_doubles(
    installation: Installation,
) -> None:
    newest, before = newest_key(installation, "visits"), installation.live_state("visits")
    models, began = len(installation.records.models.of("visits")), utc_now()
    run = installation.api.trigger("visits__ingest_data")
    installation.settle("visits", [newest], dags=EVERY_DAG[1:], after=began)
    assert installation.api.run(run.dag_id, run.run_id).state == "success"
    for name in ("raw", "curated", "features", "candidate", "judged"):
        again, first = installation.api.events(uri("visits", name), key=newest)
        assert again["extra"]["digest"] == first["extra"]["digest"], name
        reused = (first["extra"]["reused"], again["extra"]["reused"])
        assert reused == (False, True), name
    assert len(installation.records.models.of("visits")) == models
    assert installation.live_state("visits") == before


@pytest.mark.slow
def test_a_ten_day_backfill_backwards_and_at_once_on_an_empty_use_case_ends_green(
    installation: Installation,
) -> None:
    """Every day needs the days before it, which run beside it or later: the waits must bring all
    of them to an end.
    """
    keys = first_keys(installation, "fresh", 10)
    before, began = installation.live_state("fresh"), utc_now()
    installation.api.pause("fresh__ingest_data", False)
    number = installation.api.backfill(
        "fresh__ingest_data", keys[0], keys[-1], max_active_runs=10, backwards=True
    )
    installation.settle("fresh", keys, dags=EVERY_DAG, after=began, seconds=420)
    assert installation.api.backfill_done(number)
    rows = {row.key: row for row in installation.records.partitions.of("fresh")}
    assert {(rows[key].mode, rows[key].target) for key in keys} == {("backfill", "judged")}
    assert installation.live_state("fresh") == before
    assert {
        row.key for row in installation.records.results.of("fresh", stage="evaluate_model")
    } >= set(keys)
    kinds = {run.run_type for run in installation.api.runs("fresh__ingest_data")}
    assert kinds == {"backfill"}, "a closed history has no schedule"


def test_what_the_node_answered_is_imported_by_a_dag_of_its_own(installation: Installation) -> None:
    installation.wait(lambda: installation.is_logged("visits"), "closed segments", 90)

    def imported() -> bool:
        run = installation.api.trigger("visits__import_predictions")
        installation.wait(
            lambda: not installation.api.run(run.dag_id, run.run_id).active, "end of the import"
        )
        assert installation.api.run(run.dag_id, run.run_id).state == "success"
        return bool(installation.rows("visits/predictions"))

    installation.wait(imported, "imported answers", 180, every=15)
    rows = installation.rows("visits/predictions")
    assert {(row["version"], row["arm"], row["outcome"]) for row in rows} == {
        (1, "champion", "answered")
    }


def test_no_segment_stays_once_its_rows_are_imported(embedded: Embedded) -> None:
    assert list((embedded.settings.home / "predictions" / "visits").iterdir()) == []


def test_garbage_is_collected_by_a_dag_of_its_own(installation: Installation) -> None:
    began = utc_now()
    run = installation.api.trigger("visits__collect_garbage")
    installation.wait(
        lambda: not installation.api.run(run.dag_id, run.run_id).active, "end of the collection"
    )
    states = {task.task_id: task.state for task in installation.api.tasks(run)}
    assert states == {"collect": "success", "trim_airflow": "success"}
    told = installation.records.audit.entries("visits", action="garbage.collected")[-1]
    assert told.at >= began
    assert (told.details["versions"], told.details["kinds"]) == ([], {}), "all of it is young"


@pytest.mark.slow  # of what the backfill before has left
def test_a_backfilled_candidate_is_not_released_and_the_runs_say_why(
    installation: Installation,
) -> None:
    key = first_keys(installation, "fresh", 10)[-1]
    chain = installation.chain("fresh", key)
    states = {task.task_id: task.state for task in installation.api.tasks(chain["deploy_model"])}
    assert {"request", "begin", "promote", "watch", "announce"} <= set(states)
    assert set(states.values()) == {"skipped"}
    assert "backfill" in _log(installation, chain["deploy_model"], "request")
    states = {task.task_id: task.state for task in installation.api.tasks(chain["package_model"])}
    assert states == {"package": "skipped", "announce": "success"}


@pytest.mark.slow
def test_a_date_in_the_form_of_a_later_stage_travels_down_from_there(
    installation: Installation,
) -> None:
    key, began = first_keys(installation, "fresh", 9)[-1], utc_now()
    run = installation.api.trigger("fresh__train_model", conf={"partition": key})
    assert run.key is None
    below = ("evaluate_model", "package_model", "deploy_model", "check_drift")
    installation.settle("fresh", [key], dags=below, after=began)


def test_a_wait_for_what_nobody_brings_fails_at_once_and_names_the_command(
    installation: Installation,
) -> None:
    first, last = (
        first_keys(installation, "fresh", 14)[0],
        first_keys(installation, "fresh", 14)[-1],
    )
    installation.records.partitions.raise_to(
        "fresh", last, mode="backfill", target="data", actor="test", at=utc_now()
    )
    run = installation.api.trigger("fresh__materialize_features", key=last)
    installation.wait(
        lambda: not installation.api.run(run.dag_id, run.run_id).active, "end of the run", 90
    )
    states = {task.task_id: task.state for task in installation.api.tasks(run)}
    assert states == {"wait_for_inputs": "failed", "materialize": "upstream_failed"}
    failed = installation.records.audit.entries("fresh", action="task.failed")[-1].details
    assert failed["error"] == "MissingPartition"
    assert failed["try"] == 1
    assert "evergreen load-history fresh --from" in failed["reason"]
    assert first not in failed["reason"], "the first day is there"


def test_a_backfill_that_failed_alerts_nobody(embedded: Embedded) -> None:
    last = first_keys(embedded, "fresh", 14)[-1]
    assert embedded.records.audit.entries("fresh", action="task.failed")[-1].subject == last
    alerts = embedded.settings.home / "logs" / "alerts.jsonl"
    assert not alerts.exists() or last not in alerts.read_text()


@pytest.mark.slow
def test_killing_each_airflow_process_in_the_middle_of_a_run_ends_it_all_the_same(
    embedded: Embedded,
) -> None:
    """Fault 9: one after the other while a run of the chain is under way, then all at once
    during the next.
    """
    *past, each, together = first_keys(embedded, "fresh", 12)
    # What their trainings look back on.
    embedded.command("load-history", "fresh", "--from", past[0], "--to", past[-1])
    embedded.api.pause("fresh__ingest_data", False)
    began = utc_now()
    embedded.api.trigger("fresh__ingest_data", key=each)
    for number, name in enumerate(
        ("dag-processor", "triggerer", "api-server", "scheduler"), start=1
    ):
        embedded.wait(
            lambda number=number: len(embedded.chain("fresh", each, after=began)) >= number,
            "DAG",
            120,
        )  # type: ignore[misc]
        kill(embedded, name)
        embedded.wait(
            lambda: bool(embedded.api.health()), f"API server after {name} was killed", 90
        )
    expect_end(embedded, each, began)

    began = utc_now()
    embedded.api.trigger("fresh__ingest_data", key=together)
    embedded.wait(lambda: len(embedded.chain("fresh", together, after=began)) >= 1, "first DAG", 90)
    kill(embedded, *AIRFLOW)
    embedded.wait(lambda: embedded.api.health().get("scheduler") == "healthy", "scheduler", 90)
    expect_end(embedded, together, began)


@pytest.mark.slow
def test_a_backfill_by_command_loads_first_what_its_training_looks_back_on(
    installation: Installation,
) -> None:
    key, gap = first_keys(installation, "fresh", 17)[-1], first_keys(installation, "fresh", 16)[-4:]
    recorded = {
        row.key for row in installation.records.results.of("fresh", stage="materialize_features")
    }
    assert not recorded & {*gap, key}
    began, told = (
        utc_now(),
        installation.command("backfill", "fresh", "--from", key, "--to", key, "--yes"),
    )
    assert f"to {gap[-1]}, which is loaded first" in told
    installation.settle("fresh", [key], dags=EVERY_DAG, after=began)
    rows = {row.key: (row.mode, row.target) for row in installation.records.partitions.of("fresh")}
    assert {rows[one] for one in gap} == {("backfill", "data")}
    assert rows[key] == ("backfill", "judged")


def kill(embedded: Embedded, *names: str) -> None:
    """Send SIGKILL to processes of Airflow, and see that the supervisor starts each again."""
    processes = {name: running(embedded, name) for name in names}
    for process in processes.values():
        assert process is not None
        process.kill()
    for name, process in processes.items():
        embedded.wait(
            lambda name=name, old=process: running(embedded, name) not in (None, old),
            f"restart of {name}",
            60,
        )  # type: ignore[misc]
        assert f"{name} ended with code -9" in embedded.said


def running(embedded: Embedded, name: str) -> psutil.Process | None:
    """Return the process of one of Airflow's commands."""
    state = json.loads((embedded.settings.home / "run" / "supervisor.json").read_text())
    for session in state["sessions"]:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(session["pid"])
            # The API server gives itself another name when it is up.
            command = " ".join(process.cmdline())
            if (
                re.search(rf"airflow {re.sub('-', '[-_]', name)}\b", command)
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                return process
    return None


def expect_end(installation: Installation, key: str, began: datetime) -> None:
    """Wait until the whole chain has ended for a key, all of it well."""

    def ended() -> bool:
        return set(EVERY_DAG) <= set(installation.chain("fresh", key, after=began))

    installation.wait(lambda: bool(installation.api.health()) and ended(), f"end of {key}", 300)
    assert {run.state for run in installation.chain("fresh", key, after=began).values()} == {
        "success"
    }
    results = installation.records.results.of("fresh", keys=[key])
    assert {row.stage: row.state for row in results}["evaluate_model"] == "done"


def uri(use_case: str, name: str) -> str:
    return f"evergreen://{use_case}/{name}"


def newest_key(installation: Installation, name: str) -> str:
    key = partitions.newest_complete(installation.use_case(name), utc_now())
    assert key is not None
    return key


def first_keys(installation: Installation, name: str, number: int) -> list[str]:
    first = installation.use_case(name).history.first
    return [(first + timedelta(days=offset)).isoformat() for offset in range(number)]


def _log(installation: Installation, run: Run, task_id: str) -> str:
    [task] = [task for task in installation.api.tasks(run) if task.task_id == task_id]
    assert isinstance(task, TaskState)
    return "\n".join(installation.api.log(run, task))
