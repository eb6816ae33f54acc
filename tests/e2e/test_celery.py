"""Tasks on Celery workers: a night, and what becomes of a task whose worker is killed or stopped,
or whose broker is away. conftest.py runs this file last: it has an installation of its own.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from include.clock import utc_now
from include.orchestration.airflow_runs import TaskState
from include.orchestration.queues import DEFAULT, HEAVY_DAGS
from tests.builders.redis_server import own_server
from tests.conftest import postgres_database
from tests.e2e.cluster import Cluster
from tests.e2e.conftest import write_use_cases
from tests.e2e.installations import EVERY_DAG
from tests.e2e.test_chain import first_keys, newest_key

pytestmark = pytest.mark.slow

# Seconds from the death of a worker to the next try of its task: the heartbeat's time-out, how
# often it is looked for, the pause before a retry, and what a busy machine needs for all of it.
TRIED_AGAIN_WITHIN = 60 + 10 + 20 + 30
ROUNDS = "3000"  # a training takes seconds, in which its worker can be killed
# Days of the history; the one of `killed` is before. Each test loads what stands before its own.
STOPPED, AWAY, FROZEN = 14, 15, 17


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    pytest.importorskip("airflow.providers.celery", reason="requirements-compose.txt is missing")
    folder = tmp_path_factory.mktemp("celery")
    write_use_cases(folder / "usecases")
    path = folder / "usecases" / "fresh.yaml"
    path.write_text(path.read_text().replace("rounds: 30", f"rounds: {ROUNDS}"))
    with (
        postgres_database() as records,
        postgres_database() as airflow,
        own_server(folder, "--maxmemory-policy", "noeviction") as broker,
    ):
        cluster = Cluster(folder, folder / "usecases", (records, airflow), broker)
        try:
            cluster.wait(lambda: "Ctrl-C stops everything" in cluster.said, "answer", 600)
            cluster.api.pause("fresh__ingest_data", False)
            yield cluster
        finally:
            cluster.end()


def days_before(cluster: Cluster, day: int, wanted: int = 1) -> list[str]:
    """Load the history before the last days wanted, and return these days' keys."""
    keys = first_keys(cluster, "fresh", day)
    before = keys[:-wanted]
    if not {row.key for row in cluster.records.partitions.of("fresh")} >= set(before):
        cluster.command("load-history", "fresh", "--from", before[0], "--to", before[-1])
    return keys[-wanted:]


def task_of(cluster: Cluster, dag: str, key: str, task_id: str) -> TaskState:
    (run,) = cluster.api.runs(f"fresh__{dag}", key=key)
    return next(task for task in cluster.api.tasks(run) if task.task_id == task_id)


def test_a_night_runs_on_workers_each_task_on_the_queue_of_its_weight(cluster: Cluster) -> None:
    newest = newest_key(cluster, "visits")
    chain = cluster.chain("visits", newest)
    assert set(EVERY_DAG) <= set(chain)
    assert {run.state for run in chain.values()} == {"success"}
    assert cluster.records.routes.get("visits").champion == 1
    assert cluster.records.audit.verify() is None
    placed = cluster.ask_airflow(
        "SELECT DISTINCT dag_id, task_id, queue, pool, try_number FROM task_instance "
        "WHERE dag_id LIKE 'visits__%' AND try_number > 0"
    )
    for dag, task, queue, pool, tries in placed:
        heavy = dag.removeprefix("visits__") in HEAVY_DAGS and not task.startswith("wait_for")
        wanted = ("heavy", "heavy") if heavy else ("default", "default_pool")
        assert (queue, pool, tries) == (*wanted, 1), (dag, task)
    [task] = [one for one in cluster.api.tasks(chain["train_model"]) if one.task_id == "train"]
    assert any("train_model" in line for line in cluster.api.log(chain["train_model"], task))


def test_a_worker_knows_neither_airflows_database_nor_its_keys(cluster: Cluster) -> None:
    worker = cluster.add_worker("looked-at")
    words = [cluster.settings.airflow_database_url.get_secret_value()] + [
        cluster.settings.secret(name).get_secret_value()
        for name in ("airflow_jwt", "airflow_session", "airflow_fernet")
    ]
    processes = cluster.processes_of(worker)
    assert len(processes) > cluster.settings.worker_tasks
    for process in processes:
        variables = Path(f"/proc/{process.pid}/environ").read_bytes().decode()
        assert not [word for word in words if word in variables]
    worker.signal(signal.SIGTERM)
    assert worker.process is not None
    assert worker.process.wait(timeout=180) == 0


def test_a_worker_that_is_stopped_ends_what_it_has_begun(cluster: Cluster) -> None:
    [key], began = days_before(cluster, STOPPED), utc_now()
    worker = cluster.start_on(cluster.add_worker("stopped"), "train_model", key).worker
    worker.signal(signal.SIGTERM)
    assert worker.process is not None
    assert worker.process.wait(timeout=180) == 0
    train = task_of(cluster, "train_model", key, "train")
    assert (train.state, train.try_number) == ("success", 1)
    cluster.send_heavy_to("celery")
    cluster.settle("fresh", [key], dags=EVERY_DAG, after=began, seconds=300)


def test_a_broker_that_comes_back_with_nothing_costs_no_try(cluster: Cluster) -> None:
    [key], began = days_before(cluster, AWAY), utc_now()
    cluster.send_heavy_to("celery")
    cluster.api.trigger("fresh__ingest_data", key=key)
    cluster.running("train_model", key)
    # First only the connections: what a worker has in hand is then delivered a second time.
    cluster.broker.client.client_kill_filter(_type="normal", skipme=True)
    time.sleep(5)
    cluster.broker.kill()
    time.sleep(20)
    cluster.broker.start()
    # Celery takes the queues of its command line again, but none that it was told to leave and to
    # take again meanwhile (`cancel_consumer`, `add_consumer`), as these tests have told it.
    cluster.send_heavy_to("celery")
    cluster.settle("fresh", [key], dags=EVERY_DAG, after=began, seconds=400)
    tries = cluster.ask_airflow(
        "SELECT DISTINCT task_id, try_number FROM task_instance JOIN dag_run USING (dag_id, run_id)"
        f" WHERE partition_key = '{key}' AND try_number > 0"
    )
    assert {number for _, number in tries} == {1}, tries
    assert "scheduler ended" not in cluster.said


@pytest.mark.drill  # minutes of waiting for time-outs, on a machine that is otherwise idle
def test_tasks_of_a_killed_and_a_frozen_worker_are_tried_again_and_the_old_writer_is_fenced(
    cluster: Cluster,
) -> None:
    """Two machines are gone, of which one comes back with its task in the middle of its work."""
    of_killed, of_frozen = days_before(cluster, FROZEN, 2)
    began = utc_now()
    cluster.send_to("celery", DEFAULT)
    killed = cluster.start_on(cluster.add_worker("killed"), "train_model", of_killed)
    cluster.signal_worker(killed.worker, signal.SIGKILL)
    frozen = cluster.start_on(cluster.add_worker("frozen"), "train_model", of_frozen)
    cluster.signal_worker(frozen.worker, signal.SIGSTOP)
    cluster.send_heavy_to("celery")
    cluster.settle("fresh", [of_killed, of_frozen], dags=EVERY_DAG, after=began, seconds=500)
    for lost in (killed, frozen):
        train = task_of(cluster, "train_model", lost.key, "train")
        assert (train.state, train.try_number) == ("success", 2)
        assert train.started is not None
        waited = (train.started - lost.at).total_seconds()
        print(f"{lost.worker.name}: tried again after {waited:.0f} s")
        assert waited < TRIED_AGAIN_WITHIN
    models = cluster.records.models.of("fresh")
    result = cluster.records.results.get("fresh", of_frozen, "train_model")
    assert {model.partition for model in models} == {of_killed, of_frozen}
    cluster.signal_worker(frozen.worker, signal.SIGCONT)
    cluster.wait(lambda: not alive(frozen.task), "end of the old writer", 150)
    assert cluster.records.models.of("fresh") == models
    assert cluster.records.results.get("fresh", of_frozen, "train_model") == result
    assert task_of(cluster, "train_model", of_frozen, "train").state == "success"
    assert cluster.records.audit.verify() is None
    cluster.signal_worker(frozen.worker, signal.SIGKILL)


def alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
