"""Whether a process still lives, and the clock that its signs of life are timed by."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from include.records.liveness import is_gone, process_space, process_start, shared_clock
from include.records.records import Records


def test_a_living_process_is_known_by_its_id_and_its_start() -> None:
    start = process_start(os.getpid())
    assert start
    assert not is_gone(os.getpid(), start)
    assert is_gone(os.getpid(), f"{start}0"), "a later process with the same id is another one"
    assert not is_gone(os.getpid(), ""), "an unknown start is in doubt, so it lives"


def test_a_process_that_ended_is_gone_also_while_it_is_a_zombie() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    start = process_start(child.pid)
    assert start
    assert not is_gone(child.pid, start)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    assert process_start(child.pid) == ""
    assert is_gone(child.pid, start)
    child.communicate()
    assert process_start(child.pid) in ("", None)
    assert is_gone(child.pid, start)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may signal everybody")
def test_another_users_process_lives() -> None:
    assert not is_gone(1, "")


def test_a_process_space_is_one_word_of_the_machine_and_stays() -> None:
    assert process_space() == process_space()
    assert process_space().split()[0] == os.uname().nodename


def test_the_clock_goes_on_within_a_transaction(records: Records) -> None:
    with records.transaction() as session:
        (name, first), (other, second) = shared_clock(session), shared_clock(session)
    assert name == other
    assert 0 <= second - first < 60
    assert (name == "server") == (records.database.dialect == "postgresql")
