"""Tell whether a process that holds a lease still lives, and time its signs of life."""

from __future__ import annotations

import os
import socket
import sys
import time
import uuid
from functools import cache
from pathlib import Path

import psutil
from sqlalchemy import func, select
from sqlalchemy.orm import Session


def shared_clock(session: Session) -> tuple[str, float]:
    """Return the name and the seconds of a clock that all users of this database read alike.

    It is never set back: the server's clock on PostgreSQL, the machine's monotonic one on SQLite,
    whose users are processes of one machine. Seconds of clocks with different names do not compare.
    """
    if session.get_bind().dialect.name == "postgresql":
        # Not now(), which stands still from the beginning of the transaction.
        clock = select(func.extract("epoch", func.clock_timestamp()))
        return "server", float(session.scalar(clock) or 0.0)
    return _boot_id(), time.monotonic()


def silence(session: Session, clock: str, beat: float) -> float | None:
    """Return for how many seconds a holder gave no sign; None where its clock is not ours.

    While the server was down nobody could give one: that time does not count.
    """
    if session.get_bind().dialect.name == "postgresql":
        up = func.extract("epoch", func.clock_timestamp() - func.pg_postmaster_start_time())
        uptime = float(session.scalar(select(up)) or 0.0)
    else:
        uptime = float("inf")
    name, now = shared_clock(session)
    return min(now - beat, uptime) if name == clock else None


def process_space() -> str:
    """Return a name within which process ids mean the same: machine, boot and pid namespace."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")  # a container counts its processes anew
    except OSError:
        namespace = _unknown_namespace()
    return f"{socket.gethostname()} {_boot_id()} {namespace}".strip()


def process_start(pid: int) -> str | None:
    """Return when a process of this machine began; "" if it has ended, None if it cannot be told.

    In ticks since the boot where the system tells, so that a set clock changes nothing.
    """
    stat = Path(f"/proc/{pid}/stat")
    try:
        if Path("/proc/self/stat").exists():
            # After the last ")": the command's name in front of it may hold blanks and brackets.
            fields = stat.read_text().rpartition(")")[2].split()
            return "" if fields[0] in "ZX" else fields[19]  # state (zombie, dead); start time
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.1f}"
    except psutil.NoSuchProcess:
        return ""
    except (OSError, psutil.Error):
        return None


def is_gone(pid: int, started: str) -> bool:
    """Tell whether the process of this machine with this id and start has ended.

    A later process that was given the same id does not count as it. In doubt it lives.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's: it is there
        pass
    start = process_start(pid)
    return start == "" or (start is not None and started not in ("", start))


@cache
def _unknown_namespace() -> str:
    """Return what no other process says, unless the system has no such thing.

    Two containers of one machine may have one name: where neither can tell them apart, a process id
    tells nothing of a holder, and its silence alone counts.
    """
    return f"unknown-{uuid.uuid4().hex[:12]}" if sys.platform == "linux" else ""


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"
