"""Whether a process still lives, and the clock that its signs of life are timed by."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from include.config.settings import ROOT
from include.errors import Busy
from include.records.liveness import is_gone, process_space, process_start, shared_clock
from include.records.records import Records
from tests.records.builders import HOLDING, claim


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


def test_where_namespaces_cannot_be_told_apart_no_two_processes_share_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(path: str) -> str:
        raise PermissionError(path)

    monkeypatch.setattr(os, "readlink", refuse)
    here = process_space()
    assert here == process_space()
    code = (
        "import os\ndef refuse(path): raise PermissionError(path)\nos.readlink = refuse\n"
        "from include.records.liveness import process_space\nprint(process_space())"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.strip()
    assert there != here
    assert there.split()[:2] == here.split()[:2]


CLAIM = """
import sys
from include.errors import Busy
from include.records.records import Records
try:
    with Records.open(sys.argv[1]).leases.claim("loans", "train_model", "2026-03-01",
        owner="another", attempt=1, ttl=30):
        print("taken")
except Busy as error:
    print("Busy:", error)
"""


@pytest.fixture
def contained() -> list[str]:
    """What runs a command where processes are counted anew, as in a container of this host."""
    words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--"]
    try:
        subprocess.run([*words, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no process namespace can be made here ({error})")
    return words


def test_a_holder_in_a_container_is_not_dead_for_those_outside(
    records: Records, records_url: str, contained: list[str]
) -> None:
    """It is process 1 there; process 1 here is another one, which began at another time."""
    command = [*contained, sys.executable, "-c", HOLDING, records_url, "30"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("holding")
        with pytest.raises(Busy, match=r"held by first \(attempt 1, process 1 on"):
            claim(records, "another")
        (holder,) = records.leases.holders("loans")
        assert holder.lost is None
    finally:
        process.kill()
        process.communicate()


def test_a_holder_outside_is_not_dead_for_those_in_a_container(
    records: Records, records_url: str, contained: list[str]
) -> None:
    with claim(records):
        asked = subprocess.run(
            [*contained, sys.executable, "-c", CLAIM, records_url],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        assert asked.stdout.startswith("Busy:"), asked.stdout + asked.stderr


def test_a_container_that_is_gone_is_known_by_its_silence(
    records: Records, records_url: str, contained: list[str]
) -> None:
    """Nobody outside can tell that its process ended, nor takes one of its number for it."""
    command = [*contained, sys.executable, "-c", HOLDING, records_url, "6.0"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("holding")
    process.kill()
    process.communicate()
    with pytest.raises(Busy):
        claim(records, "another")
    with claim(records, "another", wait=60.0) as lease:
        assert lease.token == 2
