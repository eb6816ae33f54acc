"""Start and run child processes, and end what their sessions left behind.

Every child that is started leads a session of its own. All that it forks stays in that session
(Airflow's tasks move to other process groups, never to other sessions), so ending a child ends
whatever still has its session, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

TCP_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
LISTENS = "0A"  # the state of a listening socket in these tables
INHERITED = (
    "HOME",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LOGNAME",
    "PATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "USER",
)
"""Variables that every child inherits: where programs, libraries and certificates lie."""


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module by this very interpreter."""
    return [sys.executable, "-m", module, *arguments]


def bare_environment(outer: Mapping[str, str] | None = None, /, **own: str) -> dict[str, str]:
    """Return the environment of a child that needs no secret: what is listed, and `own`.

    A list of what is kept, since nobody can list the secrets that a shell may hold. `outer` is the
    environment that it is taken from, by default that of this process.
    """
    outer = os.environ if outer is None else outer
    kept = {name: outer[name] for name in INHERITED if name in outer}
    return {**kept, "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1", "TZ": "UTC", **own}


def start(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    log: IO[bytes] | int = subprocess.DEVNULL,
    stdin: int = subprocess.DEVNULL,
    descriptors: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, its output in `log`.

    It inherits no environment, no terminal, and of the open files those `descriptors` alone.
    """
    return subprocess.Popen(
        list(command),
        env=dict(environment),
        cwd=folder,
        stdin=stdin,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=descriptors,
    )


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    timeout: float | None = None,
    own_session: bool = False,
) -> subprocess.CompletedProcess[bytes]:
    """Run a child to its end and return its code and output; when it hangs, it is killed.

    It stays in the caller's session, so what ends the caller's (`end_sessions`) ends it too, also
    when the caller was killed and cannot time it any more. `own_session` is for a child that an
    interrupt at the terminal must not reach.

    Raises:
        subprocess.TimeoutExpired: it has not ended within `timeout` seconds.
    """
    return subprocess.run(
        list(command),
        env=dict(environment),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
        check=False,
        start_new_session=own_session,
    )


@dataclass(frozen=True, slots=True)
class Born:
    """A process that cannot be mistaken for a later one of the same id."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> Born:
        """Return the identity of a process; `created` is 0 if there is none."""
        return cls(pid, _created(pid))

    @property
    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        try:
            return (
                _created(self.pid) == self.created != 0
                and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return False


def find_listeners(port: int, table: Iterable[Path] = TCP_TABLES) -> set[int]:
    """Return the ids of the users whose processes listen on a TCP port of this machine.

    Empty where nobody does, or where the system (other than Linux) does not say it.
    """
    users: set[int] = set()
    for path in table:
        try:
            lines = path.read_text().splitlines()[1:]
        except OSError:
            continue
        for words in map(str.split, lines):
            # Local address as hexadecimal host:port, then the remote one, state, ..., user.
            if words[3] == LISTENS and int(words[1].rpartition(":")[2], 16) == port:
                users.add(int(words[7]))
    return users


def tail(path: Path, lines: int = 8) -> str:
    """Return the last lines of a log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16_384))
            text = file.read().decode(errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(f"  {line}" for line in text.strip().splitlines()[-lines:])


def end_sessions(leaders: Iterable[Born], *, leaders_too: bool = True) -> list[int]:
    """SIGKILL every process that is left in the sessions of these leaders; return their ids."""
    leaders_by_pid = {leader.pid: leader for leader in leaders if leader.created}
    spared = set() if leaders_too else set(leaders_by_pid)
    ended: list[int] = []
    for _ in range(3):  # a dying parent may just have forked
        left = [
            process
            for process in psutil.process_iter()
            if process.pid not in spared and _belongs(process.pid, leaders_by_pid)
        ]
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                ended.append(process.pid)
        if not left:
            break
        psutil.wait_procs(left, timeout=2)
    return ended


def _belongs(pid: int, leaders: Mapping[int, Born]) -> bool:
    """Tell whether a process is of one of these sessions.

    A session whose id the system gave out again is another one: its leader, or the process itself,
    is of another time.
    """
    try:
        leader = leaders.get(os.getsid(pid))
        if (
            leader is None
            or pid == os.getpid()
            or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        ):
            return False
        return _created(leader.pid) in (0.0, leader.created) and _created(pid) >= leader.created
    except (psutil.NoSuchProcess, ProcessLookupError, PermissionError):
        return False


def _created(pid: int) -> float:
    """Return when a process was created, or 0 if there is none.

    On Linux in ticks since boot, so that a set clock changes nothing; else in seconds since 1970.
    """
    try:
        if sys.platform == "linux":
            # Field 22 of the line; counted from the last ")", since names may hold blanks.
            return float(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        return psutil.Process(pid).create_time()
    except (OSError, IndexError, psutil.NoSuchProcess):
        return 0.0
