"""A supervised process is watched, started again, and ends with all that it forked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from include.errors import Unavailable
from include.installation.child import MAX_RESTARTS, Child, Importance, end
from include.processes import end_sessions, tail

# A child that forks a grandchild into a process group of its own, as Airflow does with its tasks;
# both ignore SIGTERM.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setpgid(0, 0)
    open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the thread that writes the log the time that a busy machine takes."""
    monkeypatch.setattr("include.installation.child.DRAIN_SECONDS", 60.0)


def child(tmp_path: Path, code: str, *arguments: str, patience: float = 5.0) -> Child:
    command = [sys.executable, "-c", code, *arguments]
    return Child(
        "child",
        command,
        {"PATH": os.defpath},
        tmp_path / "child.log",
        lambda: True,
        patience=patience,
    )


def wait_for(path: Path) -> int:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, "the grandchild did not start"
        time.sleep(0.02)
    return int(path.read_text())


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_ending_a_child_ends_its_orphans_in_other_process_groups(tmp_path: Path) -> None:
    one, told = child(tmp_path, STUBBORN, str(tmp_path / "pid"), patience=0.1), tmp_path / "pid"
    one.start()
    grandchild = wait_for(told)
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        end([one], grace=0.5)
        assert not one.alive
        assert not alive(grandchild)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_task_that_outlives_its_killed_leader_is_found_by_the_session(tmp_path: Path) -> None:
    one, told = child(tmp_path, STUBBORN, str(tmp_path / "pid")), tmp_path / "pid"
    one.start()
    grandchild = wait_for(told)
    assert one.process is not None
    one.process.kill()
    one.process.wait()
    assert alive(grandchild)
    assert end_sessions(one.sessions) == [grandchild]


def test_a_dead_child_is_started_again_after_a_pause(tmp_path: Path) -> None:
    one = child(tmp_path, "print('up')")
    one.start()
    assert one.process is not None
    one.process.wait()
    first = one.process.pid
    told = one.revive(100.0)
    assert told is not None
    assert "ended with code 0" in told
    assert one.revive(100.5) is None
    assert one.process.pid == first
    one.revive(101.5)
    assert one.process.pid != first
    one.process.wait()


def test_a_child_that_dies_again_and_again_is_given_up_with_its_log(tmp_path: Path) -> None:
    one = child(tmp_path, "raise SystemExit('the disk is on fire')")
    now = 0.0
    one.start()
    assert one.process is not None
    for _ in range(2 * MAX_RESTARTS):
        one.process.wait()
        one.revive(now)
        now += 40.0
    one.process.wait()
    with pytest.raises(Unavailable, match="the disk is on fire"):
        one.revive(now)


@pytest.mark.parametrize("importance", ["kept", "optional"])
def test_what_dies_again_and_again_ends_nothing_else(
    tmp_path: Path, importance: Importance
) -> None:
    one = child(tmp_path, "raise SystemExit('again')")
    one.importance = importance
    one.start()
    # Far ahead of when it was started: what is given up has not been well all that time.
    now, said = time.monotonic() + 1000.0, []
    for _ in range(2 * (MAX_RESTARTS + 4)):
        assert one.process is not None
        one.process.wait()
        said.append(one.revive(now) or "")
        now += 40.0
    assert one.given_up == (importance == "optional")
    told = [line for line in said if "is not started again" in line]
    assert len(told) == (1 if importance == "optional" else 0), "it is said once"
    assert one.restarts == (MAX_RESTARTS + 1 if one.given_up else MAX_RESTARTS + 4)


def test_a_child_that_stops_answering_is_killed(tmp_path: Path) -> None:
    answers: list[bool | None] = [True]
    one = child(tmp_path, "import time; time.sleep(60)")
    one.healthy = lambda: answers[0]
    one.answers_within = 10.0
    one.start()
    try:
        now = time.monotonic()
        assert one.look(now) is None
        assert one.up
        answers[0] = None
        assert one.look(now + 100) is None, "nobody can say"
        answers[0] = False
        assert one.look(now + 108) is None
        one.signal(signal.SIGSTOP)
        assert "child has not answered for 1" in str(one.look(now + 118))
        assert one.process is not None
        assert one.process.wait(60) == -signal.SIGKILL
        assert "started again" in str(one.revive(now + 119))
    finally:
        end([one], grace=0.1)


def test_a_log_is_rotated_while_its_process_runs_and_has_its_last_words(tmp_path: Path) -> None:
    may_end = tmp_path / "may-end"
    talker = child(
        tmp_path,
        "import os, sys, time\nfor n in range(6000): os.write(1, b'line %05d\\n' % n)\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n"
        "os.write(2, b'last words'); 1 / 0",
        str(may_end),
    )
    talker.output.max_bytes, talker.output.kept = 5000, 9
    talker.start()
    first = talker.born
    older = tmp_path / "child.9.log"
    deadline = time.monotonic() + 60
    while not older.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert talker.alive, "it was rotated without a restart"
    assert talker.born == first
    assert talker.process is not None
    may_end.touch()
    talker.process.wait(timeout=60)
    assert "ended with code 1" in (talker.revive(time.monotonic()) or "")
    assert "last words" in tail(talker.log, 20)
    files = [tmp_path / f"child.{number}.log" for number in range(9, 0, -1)]
    lines = b"".join(path.read_bytes() for path in [*files, talker.log]).splitlines()
    assert [line for line in lines if line.startswith(b"line")] == [
        b"line %05d" % number for number in range(6000)
    ][-sum(line.startswith(b"line") for line in lines) :]
    assert max(path.stat().st_size for path in files) <= 5000
    assert sum(path.stat().st_size for path in files) > 40_000, "the last nine are full"


def test_what_had_worked_and_is_kept_comes_back_at_once_however_often_it_dies(
    tmp_path: Path,
) -> None:
    """Requests wait in the node's socket: pauses that grow would outlast their callers."""
    node = child(tmp_path, "import time; time.sleep(60)")
    node.importance = "kept"
    node.start()
    try:
        for _ in range(MAX_RESTARTS + 3):
            node.look(time.monotonic())
            assert node.up
            node.signal(signal.SIGKILL)
            assert node.process is not None
            node.process.wait()
            now = time.monotonic()
            node.revive(now)
            assert node.due - now < 1
            node.revive(now + 1)
            assert node.alive
        node.up = False  # it dies before it has worked: that is no time to hurry
        node.signal(signal.SIGKILL)
        node.process.wait()
        now = time.monotonic()
        node.revive(now)
        assert node.due - now == 30.0
    finally:
        end([node], grace=1)


def test_a_dead_process_is_asked_nothing_before_it_is_back(tmp_path: Path) -> None:
    """Its listening socket may be held by another, where the question would wait."""
    asked: list[float] = []
    dead = child(tmp_path, "")
    dead.healthy = lambda: bool(asked.append(time.monotonic()))
    dead.start()
    assert dead.process is not None
    dead.process.wait()
    assert dead.revive(time.monotonic()) is not None
    assert dead.look(time.monotonic()) is None
    assert asked == []
