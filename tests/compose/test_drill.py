"""What is tried by hand (`make compose-drill`): pairs of faults, a backfill, a restore, a move.

It takes half an hour and more. What it prints goes into docs/how-to/deploy.md with its date.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from include.config.settings import ROOT
from tests.builders.containers import LATE
from tests.builders.ports import free_ports
from tests.compose.conftest import USE_CASE, Stack
from tests.compose.test_containers import is_whole, load_of

pytestmark = [pytest.mark.drill, pytest.mark.timeout(3000)]
# What is killed together. PostgreSQL is both of its servers at once.
KILLED = ("node-1", "worker", "redis-features", "redis-broker", "postgres", "scheduler")
PAIRS = [*itertools.combinations(KILLED, 2), ("node-1", "node-2")]
# A prediction by entity needs one node and the features: without them it is refused, not lost.
REFUSES = {"redis-features"}


@pytest.fixture(scope="module")
def served(stack: Stack) -> Stack:
    """The containers with a champion."""
    stack.write(back=1)
    stack.script("job", USE_CASE=USE_CASE)
    stack.until(lambda: stack.ask().status_code == 200, "answer", 120)
    return stack


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_two_that_are_killed_together_come_back_by_themselves(
    served: Stack, pair: tuple[str, str]
) -> None:
    stack = served
    killed = [container for name in pair for container in stack.ids(name)[:1]]
    began = time.monotonic()
    with load_of(stack).running(2) as load:
        time.sleep(2)
        for container in killed:
            stack.kill(container)
        time.sleep(5)
        # As an engine does that starts again: `docker kill` counts as a person's wish to stop.
        for container in killed:
            stack.run(["docker", "start", container])
        stack.until(lambda: is_whole(stack), "healthy containers", 300)
        stack.until(lambda: stack.ask().status_code == 200, "answer", 60)
    took = time.monotonic() - began
    say(f"| {' + '.join(pair)} | {took:.0f} s | {load.came['200']} | {load.failed or 'none'} |")
    if set(pair) == {"node-1", "node-2"}:
        assert load.came["200"] > 0
    elif not REFUSES & set(pair):
        assert load.lost == {}
    else:
        assert set(load.failed) <= {LATE, "503"}
    assert "whole" in stack.command("audit", "verify")


def test_three_days_are_backfilled_on_two_workers(served: Stack) -> None:
    stack = served
    newest = stack.today - timedelta(days=1)
    before = stack.versions()
    began = time.monotonic()
    stack.script("job", USE_CASE=USE_CASE, DAYS="3")
    say(f"| three days backfilled on two workers | {time.monotonic() - began:.0f} s | | |")
    assert {container[:12] for container in stack.ids("worker")} <= stack.hosts()
    assert stack.versions() == before  # a backfill releases nothing
    status = stack.command("status", USE_CASE)
    for back in range(1, 4):
        assert (newest - timedelta(days=back)).isoformat() in status


@pytest.fixture
def other(stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    """A second project, with the same use case and no data, which is not up yet."""
    other = Stack(tmp_path / "other", WORKERS="2", PARALLELISM="4")
    subprocess.run(["cp", "-r", f"{stack.usecases}/.", str(other.usecases)], check=True)
    other.write(back=1)
    try:
        other.script("secrets")
        yield other
    finally:
        other.down()


def test_a_backup_is_restored_into_a_new_project_which_answers_the_same(
    served: Stack, other: Stack
) -> None:
    served.owner("backup", "/srv/backups")
    before = served.ask().json()
    began = time.monotonic()
    mounts = (f"{served.backups}:/srv/others:ro",)
    other.owner("restore", "/srv/others", "--yes", mounts=mounts)
    other.script("up")
    answer = other.until(
        lambda: (got := other.ask()).status_code == 200 and got.json(), "answer", 120
    )
    say(f"| restore into a new project, to its answer | {time.monotonic() - began:.0f} s | | |")
    assert answer["score"] == before["score"]
    assert answer["model_version"] == before["model_version"]


def test_a_laptops_home_moves_into_containers(stack: Stack, other: Stack, tmp_path: Path) -> None:
    home = tmp_path / "var"
    environment = {
        **os.environ,
        "EVERGREEN_HOME": str(home),
        "EVERGREEN_USECASES": str(other.usecases),
    }
    ports = map(str, free_ports(3))
    for name in ("AIRFLOW_PORT", "MLFLOW_PORT", "NODE_PORT"):
        environment[f"EVERGREEN_{name}"] = next(ports)
    printed = subprocess.run(
        [sys.executable, "-m", "include", "up", "--use-case", USE_CASE, "--once"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert printed.returncode == 0, printed.stdout + printed.stderr
    subprocess.run(["chown", "-R", "10001:10001", str(home)], check=True)
    began = time.monotonic()
    other.owner("move", "--from", "/laptop", "--yes", mounts=(f"{home}:/laptop",))
    other.script("up")
    answer = other.until(
        lambda: (got := other.ask()).status_code == 200 and got.json(), "answer", 120
    )
    say(f"| a laptop's home moved, to its answer | {time.monotonic() - began:.0f} s | | |")
    assert answer["model_version"] == 1


def test_the_end_to_end_tests_pass_against_containers(other: Stack) -> None:
    # They count what ran and what was answered, so they have containers of their own.
    other.script("up")
    environment = {**os.environ, **other.variables, "EVERGREEN_E2E": "compose"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/e2e/test_chain.py", "-q", "-n", "0"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    say(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout
