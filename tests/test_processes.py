"""Processes are started bare, run to their end, and found by their session."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from include.processes import (
    Born,
    end_sessions,
    find_listeners,
    python_module,
    run,
    start,
    tail,
)


def test_a_process_id_that_was_given_out_again_is_not_taken_for_ours() -> None:
    stranger = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True
    )
    try:
        born = Born.of(stranger.pid)
        assert born.alive
        former = Born(stranger.pid, born.created - 500)
        assert not former.alive
        assert end_sessions([former]) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_tail_of_a_log_that_is_not_there() -> None:
    assert tail(Path("/nowhere")) == "(no log)"


def test_a_child_inherits_no_environment_and_leads_its_own_session(tmp_path: Path) -> None:
    code = "import os; print(dict(os.environ).get('SECRET'), os.environ['OURS'], os.getsid(0))"
    with (tmp_path / "log").open("wb") as log:
        started = start(
            [sys.executable, "-c", code], environment={"OURS": "x"}, folder=tmp_path, log=log
        )
        assert started.wait(60) == 0
    assert (tmp_path / "log").read_text().split() == ["None", "x", str(started.pid)]


def test_a_child_is_run_to_its_end_or_killed_when_it_hangs(tmp_path: Path) -> None:
    script = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    done = run([sys.executable, "-c", script], environment={}, folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    with pytest.raises(subprocess.TimeoutExpired):
        run(
            [sys.executable, "-c", "import time; time.sleep(60)"],
            environment={},
            folder=tmp_path,
            timeout=0.5,
        )


def test_a_child_that_is_waited_for_ends_with_its_callers_session(tmp_path: Path) -> None:
    """A node that is killed in the middle of a trial must not leave the trial running for ever."""
    code = "import os; print(os.getsid(0))"
    for own, session in ((False, {os.getsid(0)}), (True, set())):
        done = run([sys.executable, "-c", code], environment={}, folder=tmp_path, own_session=own)
        assert ({int(done.stdout)} & {os.getsid(0)}) == session


def test_a_module_is_run_by_this_very_interpreter(tmp_path: Path) -> None:
    done = run(python_module("platform", "--terse"), environment={}, folder=tmp_path, timeout=60)
    assert done.returncode == 0
    assert python_module("platform")[0] == sys.executable


def test_who_listens_on_a_port() -> None:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.create_server((host, 0), family=family) as listener:
            port = listener.getsockname()[1]
            assert find_listeners(port) == {os.getuid()}
        assert find_listeners(port) == set()
    assert find_listeners(1, [Path("/nowhere")]) == set()
