"""The supervisor of one installation: Airflow's four processes, MLflow's UI and the serving node.

It starts them, waits until each does its work, restarts what dies, and ends all of them and nothing
else. One supervisor a home folder: a lock says who runs, `run/supervisor.json` what it started, so
that the next start finds what a killed one left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO

from include.config.settings import Settings
from include.config.settings import settings as current_settings
from include.errors import Busy, EvergreenError, Unavailable
from include.installation.environment import child_environment
from include.installation.preflight import check_ports, is_migrated, stamp_version
from include.installation.services import SERVICES, children
from include.processes import Born, Child, end, end_sessions, tail

log = logging.getLogger(__name__)

START_TIMEOUT = 240.0
STOP_TIMEOUT = 60.0
Say = Callable[[str], None]


class Stopped(EvergreenError):
    """Ctrl-C or SIGTERM: end what was started."""

    exit_code = 130


class Supervisor:
    """A context in which the installation's processes run.

    Raises:
        Busy: another supervisor holds this home folder.
        Unavailable: a port is taken, or a process does not come up.
    """

    def __init__(
        self, settings: Settings, *, say: Say = log.info, services: Sequence[str] = SERVICES
    ) -> None:
        self.settings = settings
        self._say = say
        self._children = children(settings, services)
        self._lock: IO[str] | None = None
        self._ending = threading.Event()
        self._stopping = threading.Event()
        self._interrupted_by = ""
        self._up: set[str] = set()
        self._failure: EvergreenError | None = None
        self._watch = threading.Thread(target=self._watching, name="watch", daemon=True)
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> Supervisor:
        self._lock = _acquire(self.settings)
        try:
            clean_up(self.settings, say=self._say)
            check_ports(self.settings)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._handlers[number] = signal.signal(number, self._interrupted)
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ending.set()
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave anything behind
        try:
            if self._watch.is_alive():
                self._watch.join(timeout=5)
            end(self._children)
        finally:
            _state_file(self.settings).unlink(missing_ok=True)
            self._release()
            for number, handler in self._handlers.items():
                signal.signal(number, handler)  # type: ignore[arg-type]

    def start(self) -> None:
        """Start every process; returns at once."""
        for child in self._children:
            child.start()
        self._remember()
        self._watch.start()

    def wait_healthy(self, names: Sequence[str] = (), timeout: float = START_TIMEOUT) -> None:
        """Wait until every process (or those of the given names) does its work, saying so as each
        comes up.

        Raises:
            Unavailable: one does not come up; the message ends with its log.
        """
        began = time.monotonic()
        while waiting := [
            one
            for one in self._children
            if one.name not in self._up and (not names or one.name in names)
        ]:
            if time.monotonic() - began > timeout:
                slow = waiting[0]
                raise Unavailable(
                    f"{slow.name} did not come up in {timeout:.0f} s; its log {slow.log} ends "
                    f"with:\n{tail(slow.log)}"
                )
            self.pause(0.25)

    def check(self) -> None:
        """Raise Stopped after Ctrl-C, or what the watch found if it gave up on a process."""
        if self._interrupted_by:
            raise Stopped(f"stopped by {self._interrupted_by}")
        if self._failure is not None:
            raise self._failure

    def hold(self) -> None:
        """Stay up until Ctrl-C or SIGTERM."""
        with contextlib.suppress(Stopped):
            while True:
                self.pause(1.0)

    def pause(self, seconds: float) -> None:
        """Sleep, and end early by raising where `check` raises."""
        self._stopping.wait(seconds)
        self.check()

    def _watching(self) -> None:
        while not self._ending.wait(0.5):
            try:
                for child in self._children:
                    self._look_after(child)
            except EvergreenError as error:
                self._failure = error
                self._stopping.set()
                return

    def _look_after(self, child: Child) -> None:
        before = child.born
        if told := child.revive(time.monotonic()):
            self._say(told)
        if child.born is not before:
            self._remember()
        if child.name not in self._up and child.alive and child.healthy():
            self._up.add(child.name)
            self._say(f"  {child.name:<22} {'up':<20} {time.monotonic() - child.started:6.1f} s")

    def _remember(self) -> None:
        sessions = [asdict(session) for child in self._children for session in child.sessions]
        body = {"boot": _boot(), "supervisor": asdict(Born.of(os.getpid())), "sessions": sessions}
        path = _state_file(self.settings)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(body))
        temporary.replace(path)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        # Raised at the next `pause`, so never in the middle of a start.
        self._interrupted_by = signal.Signals(number).name
        self._stopping.set()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def migrate(settings: Settings, *, say: Say = log.info) -> None:
    """Bring the databases to this version; at once where that was done before."""
    from include.records.records import Records

    Records.open(settings.records_address).migrate()
    if is_migrated(settings.home):
        return
    say("  setting up Airflow's database")
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    (settings.home / "airflow").mkdir(parents=True, exist_ok=True)
    environment = child_environment(settings)
    done = subprocess.run(
        command,
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    if done.returncode:
        lines = "\n".join(
            f"  {line}" for line in (done.stdout + done.stderr).strip().splitlines()[-8:]
        )
        raise Unavailable(
            f"Airflow's database in {settings.home / 'airflow'} could not be set up:\n{lines}"
        )
    stamp_version(settings.home)


def clean_up(settings: Settings, *, say: Say = log.info) -> list[int]:
    """End what a killed supervisor of this installation left behind; the caller holds the lock."""
    path = _state_file(settings)
    try:
        body = json.loads(path.read_text())
        leaders = (
            [Born(**session) for session in body["sessions"]] if body["boot"] == _boot() else []
        )
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        leaders = []
    ended = end_sessions(leaders)
    if ended:
        say(f"  ended {len(ended)} processes that an earlier run had left behind")
    path.unlink(missing_ok=True)
    return ended


def running(settings: Settings) -> Born | None:
    """Return the supervisor that holds this home folder, if one runs."""
    try:
        _acquire(settings).close()
    except Busy:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return Born(**json.loads(_state_file(settings).read_text())["supervisor"])
        return Born(int(_lock_file(settings).read_text() or 0), 0.0)
    return None


def stop(settings: Settings | None = None, *, timeout: float = STOP_TIMEOUT) -> str:
    """Stop the installation of this home folder, from another shell; return what was done.

    Raises:
        Busy: it does not end in time.
    """
    settings = settings or current_settings()
    if not settings.home.exists():
        return f"nothing runs: {settings.home} does not exist"
    holder = running(settings)
    if holder is None:
        lock = _acquire(settings)
        try:
            ended = clean_up(settings)
        finally:
            lock.close()
        return f"nothing runs in {settings.home}" + (
            f"; ended {len(ended)} processes left behind" if ended else ""
        )
    with contextlib.suppress(ProcessLookupError):
        os.kill(holder.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if running(settings) is None:
            return f"stopped process {holder.pid} and all that it had started"
        time.sleep(0.2)
    raise Busy(
        f"process {holder.pid} has not ended after {timeout:.0f} s; look at it, then `kill -9 "
        f"{holder.pid} && make stop`"
    )


def _acquire(settings: Settings) -> IO[str]:
    path = _lock_file(settings)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise Busy(
            f"{settings.home} is in use by process {holder}: this installation runs already. Stop "
            "it with `make stop`, or set EVERGREEN_HOME and the ports for a second one"
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _lock_file(settings: Settings) -> Path:
    return settings.home / "run" / "lock"


def _state_file(settings: Settings) -> Path:
    return settings.home / "run" / "supervisor.json"


def _boot() -> str:
    """Return what tells one boot of this machine from another, so that old process ids mean
    nothing after it.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"
