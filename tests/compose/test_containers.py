"""What a container engine must show: a night on Celery, releases on two nodes, kills, restarts.

The tests of this file run in their order, on the same containers: each leaves them as it found
them, healthy and with a champion.
"""

from __future__ import annotations

import json
import re
import threading
import time

import pytest

from include.config.settings import ROOT
from tests.builders.containers import Load
from tests.compose.conftest import USE_CASE, Stack

NODES = ("node-1", "node-2")
ONE_SHOT = {"prepare", "init"}
BODIES = [json.dumps({"entity": entity}).encode() for entity in range(1, 41)]
ROWS = [json.dumps({"features": {"pages": at, "minutes": 1.5}}).encode() for at in range(20)]


def load_of(stack: Stack, bodies: list[bytes] = BODIES) -> Load:
    return Load(stack.address("balancer", 8600), stack.secret("caller_token"), USE_CASE, bodies)


def is_whole(stack: Stack) -> bool:
    return all(
        state == "exited" if name in ONE_SHOT else state == "running (healthy)"
        for name, state in stack.states().items()
    )


def test_everything_comes_up_healthy_and_a_second_start_changes_nothing(stack: Stack) -> None:
    assert is_whole(stack), stack.states()
    before = {name: stack.ids(name) for name in ("worker", *NODES, "postgres", "api-server")}
    assert len(before["worker"]) == 2
    assert stack.script("secrets") == ""  # none is written again
    stack.script("up")
    assert {name: stack.ids(name) for name in before} == before


def test_a_night_runs_on_celery_workers_and_both_nodes_answer(stack: Stack) -> None:
    printed = stack.script("job", USE_CASE=USE_CASE)
    assert re.search(r"train_model +success", printed), printed
    assert "model_version" in printed
    assert stack.until(lambda: set(stack.versions().values()) == {1}, "model 1 on both", 60)
    workers = [container[:12] for container in stack.ids("worker")]
    hosts = stack.hosts()
    assert hosts
    assert hosts <= set(workers), (hosts, workers)


def test_the_log_of_a_task_is_read_where_it_did_not_run(stack: Stack) -> None:
    found = stack.inside("api-server", "find", "/srv/task-logs", "-name", "*.log")
    (training,) = (
        line
        for line in found.split()
        if f"{USE_CASE}__train_model" in line and "task_id=train/" in line
    )
    assert "train_model" in stack.inside("api-server", "cat", training)


def test_a_newer_model_is_released_to_both_nodes_and_rolled_back(stack: Stack) -> None:
    stack.write(back=1)
    printed = stack.script("job", USE_CASE=USE_CASE)
    assert re.search(r"deploy_model +(success|in watch)", printed), printed
    assert stack.until(lambda: set(stack.versions().values()) == {2}, "model 2 on both", 90)
    with load_of(stack, BODIES + ROWS).running() as load:
        words = ("rollback", USE_CASE, "--version", "2", "--reason", "a try", "--yes")
        stack.command(*words)
        assert stack.until(lambda: set(stack.versions().values()) == {1}, "model 1 on both", 30)
    assert load.lost == {}, load.came
    assert load.came["200"] > 0
    entries = stack.query(
        "postgres", "select actor from audit where action = 'release.rolled_back'"
    )
    assert entries, stack.query("postgres", "select distinct action from audit")


def test_a_container_is_its_own_user_on_a_root_that_cannot_be_written(stack: Stack) -> None:
    for service in ("api-server", "scheduler", "worker", "mlflow", *NODES):
        assert stack.inside(service, "id", "-u").strip() == "10001"
        tried = stack.inside(service, "touch", "/opt/evergreen/include/x", check=False)
        assert "Read-only file system" in tried
        status = stack.inside(service, "grep", "-E", "CapEff|NoNewPrivs", "/proc/1/status")
        assert re.findall(r"\t(\S+)", status) == ["0000000000000000", "1"]


def test_a_node_reaches_the_records_and_the_features_and_nothing_else(stack: Stack) -> None:
    reach = (
        "import socket\n"
        "for host, port in {}:\n"
        "    try:\n"
        "        socket.create_connection((host, port), 3).close(); print(host, 'reached')\n"
        "    except OSError as error:\n"
        "        print(host, 'not reached')\n"
    )
    hosts = {
        "postgres": 5432,
        "redis-features": 6379,
        "airflow-postgres": 5432,
        "redis-broker": 6379,
        "api-server": 8080,
        "mlflow": 5000,
    }
    own = [
        *hosts.items(),
        *((ip, hosts[name]) for name in list(hosts)[2:] for ip in ips(stack, name)),
    ]
    told = stack.python("node-1", reach.format(own)).split("\n")
    assert told[:2] == ["postgres reached", "redis-features reached"]
    assert len(told) > 10
    assert all(line.endswith("not reached") for line in told[2:] if line), told
    workers = stack.python("worker", reach.format([("airflow-postgres", 5432)]))
    assert workers.strip() == "airflow-postgres not reached"


def ips(stack: Stack, service: str) -> list[str]:
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    return stack.run(["docker", "inspect", "-f", form, stack.ids(service)[0]]).split()


def test_a_node_reads_no_other_database_and_writes_no_row_of_the_records(stack: Stack) -> None:
    code = (
        "import psycopg, pathlib\n"
        "url = pathlib.Path('/run/secrets/evergreen_records_url').read_text().strip()\n"
        "for name, sql in (('mlflow', 'select 1'), ('evergreen', 'delete from audit'),\n"
        "                  ('evergreen', 'update models set version = 9')):\n"
        "    try:\n"
        "        with psycopg.connect(url.rsplit('/', 1)[0] + '/' + name) as con:\n"
        "            con.execute(sql)\n"
        "        print('done')\n"
        "    except psycopg.Error as error:\n"
        "        print(str(error).split('permission')[-1].splitlines()[0])\n"
    )
    told = stack.python("node-1", code).splitlines()
    assert len(told) == 3
    assert all("denied" in line for line in told), told


@pytest.mark.parametrize(
    ("path", "method", "token", "status"),
    [
        ("predict", "POST", "", 401),
        ("predict", "POST", "of-nobody-of-nobody-of-nobody-of-nobody", 401),
        ("predict", "POST", "metrics_token", 403),
        ("rollback", "POST", "caller_token", 403),
        ("rollback", "POST", "metrics_token", 403),
        ("rollback", "POST", "", 401),
        ("reload", "POST", "caller_token", 403),
        ("/metrics", "GET", "", 401),
        ("/metrics", "GET", "caller_token", 403),
        ("/metrics", "GET", "metrics_token", 200),
        ("/live", "GET", "", 200),
    ],
)
def test_a_node_admits_whoever_has_the_role(
    stack: Stack, path: str, method: str, token: str, status: int
) -> None:
    import httpx

    known = (stack.secrets / token).is_file() if token else False
    bearer = stack.secret(token) if known else token
    where = path if path.startswith("/") else f"/v1/{USE_CASE}/{path}"
    answer = httpx.request(
        method,
        f"{stack.node('node-1')}{where}",
        headers={"authorization": f"Bearer {bearer}"} if bearer else {},
        json={"entity": 1} if method == "POST" else None,
        timeout=20,
    )
    assert answer.status_code == status, answer.text


def test_the_balancer_hands_on_nothing_that_changes_state(stack: Stack) -> None:
    import httpx

    base, token = stack.address("balancer", 8600), stack.secret("node_token")
    for path in (f"/v1/{USE_CASE}/rollback", f"/v1/{USE_CASE}/reload", "/metrics"):
        headers = {"authorization": f"Bearer {token}"}
        assert httpx.post(base + path, headers=headers, timeout=20).status_code == 404


def test_airflow_asks_for_a_password_and_a_viewer_starts_nothing(stack: Stack) -> None:
    import httpx

    base = stack.address("api-server", 8080)

    def log_in(user: str, password: str) -> httpx.Response:
        body = {"username": user, "password": password}
        return httpx.post(f"{base}/auth/token", json=body, timeout=30)

    assert log_in("admin", "wrong-wrong-wrong-wrong").status_code == 401
    assert httpx.get(f"{base}/api/v2/dags", timeout=30).status_code == 401
    token = log_in("viewer", stack.secret("airflow_viewer")).json()["access_token"]
    headers = {"authorization": f"Bearer {token}"}
    assert httpx.get(f"{base}/api/v2/dags", headers=headers, timeout=30).status_code == 200
    run = httpx.post(
        f"{base}/api/v2/dags/{USE_CASE}__ingest_data/dagRuns",
        headers=headers,
        json={"logical_date": None},
        timeout=30,
    )
    assert run.status_code == 403


def test_mlflow_shows_a_run_to_its_user_alone(stack: Stack) -> None:
    import httpx

    base = stack.address("mlflow", 5000).replace("127.0.0.1", "localhost")
    path, body = "/api/2.0/mlflow/experiments/search", {"max_results": 10}
    login = ("admin", stack.secret("mlflow_admin"))
    assert httpx.post(base + path, json=body, timeout=30).status_code == 401
    assert httpx.post(base + path, json=body, auth=("admin", "no"), timeout=30).status_code == 401
    found = httpx.post(base + path, json=body, auth=login, timeout=30)
    assert any(USE_CASE in row["name"] for row in found.json()["experiments"]), found.text


def test_no_secret_is_seen_from_outside_or_in_what_is_kept(stack: Stack) -> None:
    texts = {path.name: path.read_text() for path in stack.secrets.iterdir() if path.is_file()}
    key = texts.pop("signing_key").splitlines()[1]  # of a key in PEM what only it has
    values = {"signing_key": key} | {
        name: secret
        for name, text in texts.items()
        for secret in re.findall(r"[A-Za-z0-9_-]{43}", text)
    }
    assert len(values) > 25
    containers = stack.compose("ps", "-aq").split()
    seen = {
        "docker inspect": stack.run(["docker", "inspect", *containers]),
        "docker history": stack.run(["docker", "history", "--no-trunc", "evergreen:latest"]),
        "docker compose config": stack.compose("config"),
        "logs": stack.compose("logs", "--no-color"),
        "logs of tasks": stack.inside("api-server", "grep", "-rh", "", "/srv/task-logs"),
        "Airflow's database": stack.inside(
            "airflow-postgres", "pg_dump", "-U", "airflow", "--data-only", "airflow"
        ),
        "records": stack.inside(
            "postgres", "pg_dump", "-U", "postgres", "--data-only", "evergreen"
        ),
        "MLflow's database": stack.inside(
            "postgres", "pg_dump", "-U", "postgres", "--data-only", "mlflow"
        ),
        "command lines": "".join(
            stack.run(["docker", "top", container, "-eo", "pid,args"])
            for container in stack.compose("ps", "-q").split()
        ),
    }
    found = [
        (where, name)
        for where, text in seen.items()
        for name, secret in values.items()
        if secret in text
    ]
    assert found == []


def test_a_killed_node_takes_nothing_with_it_behind_the_balancer(stack: Stack) -> None:
    (container,) = stack.ids("node-1")
    with load_of(stack, BODIES + ROWS).running() as load:
        time.sleep(3)
        stack.kill(container)
        time.sleep(5)
        stack.compose("start", "node-1")
        stack.until(lambda: is_whole(stack), "node-1", 120)
        time.sleep(3)
    assert load.lost == {}, load.came
    assert load.came["200"] > 100


def test_nodes_are_restarted_one_after_the_other_under_load(stack: Stack) -> None:
    with load_of(stack, BODIES + ROWS).running() as load:
        for name in NODES:
            time.sleep(2)
            stack.compose("restart", name)
            stack.until(lambda: is_whole(stack), name, 120)
        time.sleep(2)
    assert load.lost == {}, load.came
    assert load.came["200"] > 100


def test_a_version_that_cannot_begin_changes_nothing_that_runs(stack: Stack) -> None:
    before = {name: stack.ids(name) for name in ("worker", *NODES, "scheduler")}
    with load_of(stack, ROWS).running() as load:
        # A setting that no process takes: the first that would is the one that migrates.
        said = stack.run(["deploy/compose.sh", "update"], check=False, TASKS="many")
    assert "EVERGREEN_WORKER_TASKS" in said, said
    assert "nothing else was changed" in said
    assert {name: stack.ids(name) for name in before} == before
    assert load.failed == {}, load.came


def test_another_version_takes_over_while_nodes_answer(stack: Stack) -> None:
    nodes, databases = [stack.ids(name) for name in NODES], stack.ids("postgres")
    # Another one by its settings, which exchanges all containers that are made of the image.
    stack.variables["TMP_SIZE"] = "900m"
    with load_of(stack, BODIES + ROWS).running() as load:
        stack.script("update")
        time.sleep(2)
    assert is_whole(stack), stack.states()
    for name, before in zip(NODES, nodes, strict=True):
        assert stack.ids(name) != before
    assert stack.ids("postgres") == databases
    assert load.lost == {}, load.came
    assert load.came["200"] > 100


def test_a_worker_killed_with_a_task_in_hand_loses_nothing(stack: Stack) -> None:
    stack.command("reset", USE_CASE, "--yes")
    done: list[str] = []
    job = threading.Thread(target=lambda: done.append(stack.script("job", USE_CASE=USE_CASE)))
    job.start()
    sql = (
        "select hostname from task_instance where state = 'running' and hostname <> ''"
        f" and dag_id like '{USE_CASE}__%' limit 1"
    )
    host = stack.until(lambda: stack.query("airflow-postgres", sql), "running task", 120)
    (container,) = (name for name in stack.ids("worker") if name.startswith(host))
    stack.kill(container)
    job.join(timeout=420)
    assert done, stack.compose("logs", "--tail", "40", "worker", "scheduler")
    assert re.search(r"deploy_model +(success|in watch)", done[0]), done[0]
    stack.compose("start", "worker")
    stack.until(lambda: is_whole(stack), "second worker", 120)


def test_features_that_are_away_are_said_and_requests_with_rows_go_on(stack: Stack) -> None:
    (container,) = stack.ids("redis-features")
    assert stack.ask().status_code == 200
    stack.kill(container)
    answer = stack.until(
        lambda: (got := stack.ask()).status_code == 503 and got, "refusal without features", 30
    )
    assert int(answer.headers["retry-after"]) > 0
    with load_of(stack, ROWS).running() as load:
        time.sleep(3)
    assert load.failed == {}
    stack.compose("start", "redis-features")
    # What it held is on its volume: nothing has to be written again.
    assert stack.until(lambda: stack.ask().status_code == 200, "features again", 60)
    stack.until(lambda: is_whole(stack), "redis-features", 60)


def test_sixty_seconds_without_postgresql_fail_no_prediction_and_no_night(stack: Stack) -> None:
    stack.command("reset", USE_CASE, "--yes")
    stack.script("job", USE_CASE=USE_CASE)
    stack.write(back=2)
    stack.until(lambda: stack.ask().status_code == 200, "answer", 60)
    run = threading.Thread(
        target=stack.command, args=("run", "all", "--use-case", USE_CASE, "--partition", day(stack))
    )
    began = stack.query("airflow-postgres", "select now()")
    # With rows: a busy machine may miss the 20 ms that features have, which is not asked here.
    with load_of(stack, ROWS).running(2) as load:
        run.start()
        time.sleep(2)
        stack.compose("stop", "-t", "10", "postgres", "airflow-postgres")
        time.sleep(60)
        stack.compose("start", "postgres", "airflow-postgres")
        stack.until(lambda: is_whole(stack), "databases", 180)
    run.join(timeout=300)
    assert load.failed == {}
    failed = stack.query(
        "airflow-postgres",
        "select dag_id, task_id from task_instance"
        f" where state = 'failed' and end_date > '{began}'",
    )
    assert failed == ""
    stack.write(back=1)


def day(stack: Stack) -> str:
    text = (stack.usecases / f"{USE_CASE}.yaml").read_text()
    return str(re.search(r"last: (\S+)}", text)[1])  # type: ignore[index]


def test_the_rules_of_prometheus_hold_and_its_targets_are_up(stack: Stack) -> None:
    import httpx

    folder = ROOT / "deploy" / "observability"
    for words in (
        ("check", "rules", "/o/rules/evergreen.yml"),
        ("test", "rules", "/o/rules_test.yml"),
    ):
        stack.run(
            ["docker", "run", "--rm", "--network", "none", "-v", f"{folder}:/o:ro",
             "--entrypoint", "promtool", "prom/prometheus:v2.53.3", *words]
        )  # fmt: skip
    stack.compose("up", "-d", "--wait", "--no-deps", "prometheus")
    base = stack.address("prometheus", 9090)

    def healths() -> bool:
        answer = httpx.get(f"{base}/api/v1/targets", timeout=10).json()["data"]["activeTargets"]
        return len(answer) == 4 and {target["health"] for target in answer} == {"up"}

    stack.until(healths, "four targets that are up", 60)
    stack.compose("rm", "-sf", "prometheus")
