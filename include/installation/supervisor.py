"""The supervisor of one installation: Airflow's four processes, MLflow's UI and the serving node.

It starts them, waits until each does its work, restarts what dies or hangs, and ends all of them
and nothing else. One supervisor a home folder (include/installation/lock.py). `run/supervisor.json`
lists what it has started, so that the next start finds what a killed one left behind.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType, TracebackType
from typing import TypeVar

from include import clock
from include.config.settings import Settings
from include.config.settings import settings as current_settings
from include.errors import Busy, EvergreenError, Unavailable
from include.files import write_text
from include.installation.airflow_database import set_up
from include.installation.child import STARTED_WITHIN, Child, end
from include.installation.housekeeping import EVERY_SECONDS, keep_house
from include.installation.lock import InstallationLock, find_holder
from include.installation.preflight import (
    check_ports,
    copy_databases,
    is_migrated,
    stamp_version,
)
from include.installation.services import children
from include.processes import Born, end_sessions, tail
from include.serving.listener import open_listener

log = logging.getLogger(__name__)

START_TIMEOUT = STARTED_WITHIN
STOP_TIMEOUT = 60.0  # seconds
POLL = 0.25  # seconds between two looks at what is waited for, and the most that Ctrl-C takes
Say = Callable[[str], None]
T = TypeVar("T")


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
        self, settings: Settings, *, say: Say = log.info, services: Sequence[str] = ()
    ) -> None:
        self.settings = settings
        self._say = say
        self._children = children(settings, services)
        self._lock = InstallationLock(settings)
        self._ending = threading.Event()
        self._stopping = threading.Event()
        self._interrupted_by = ""
        self._up: set[str] = set()
        self._writing = threading.Lock()
        self._listener: socket.socket | None = None
        self._remembered: dict[str, Born | None] = {}
        self.problems: Counter[str] = Counter()  # what went wrong while looking, by kind
        self._failure: EvergreenError | None = None
        self._house_pause = 0.5  # seconds until the first look; a start has more to do
        # A thread a child: one that does not answer keeps nobody else waiting.
        self._watches = [
            threading.Thread(target=self._watching, args=(child,), name=child.name, daemon=True)
            for child in self._children
        ]
        # Nobody waits for it at the end: it may be walking over a large lake.
        self._house = threading.Thread(target=self._keep_house, name="housekeeping", daemon=True)
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> Supervisor:
        self._lock.__enter__()
        try:
            clean_up(self.settings, say=self._say)
            check_ports(self.settings)
            self._hand_down_listener()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._handlers[number] = signal.signal(number, self._interrupted)
        except BaseException:  # Ctrl-C too
            self._close_listener()
            self._lock.__exit__()
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
            for watch in self._watches:
                if watch.is_alive():
                    watch.join(timeout=6)  # a question about health takes 5 s at most
            self._close_listener()  # from here on the node's port is to refuse, not to queue
            end(self._children)
        finally:
            _state_file(self.settings).unlink(missing_ok=True)
            self._lock.__exit__()
            for number, handler in self._handlers.items():
                signal.signal(number, handler)  # type: ignore[arg-type]

    def _hand_down_listener(self) -> None:
        """Open the node's port here, so that what comes while the node is away waits for it."""
        for child in self._children:
            if child.name == "node":
                self._listener = open_listener(self.settings.host, self.settings.node_port)
                number = self._listener.fileno()
                child.environment = {**child.environment, "EVERGREEN_NODE_LISTENER": str(number)}
                child.descriptors = (number,)

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()

    def start(self) -> None:
        """Start every process; returns at once."""
        for child in self._children:
            child.start()
        self._remember()
        for watch in (*self._watches, self._house):
            watch.start()

    def wait_healthy(self, names: Sequence[str] = (), timeout: float = START_TIMEOUT) -> None:
        """Wait until every process, or those of the given names, does its work.

        Raises:
            Unavailable: one does not come up; the message ends with its log.
        """

        def missing() -> list[Child]:
            return [
                child
                for child in self._children
                if child.name not in self._up and (not names or child.name in names)
            ]

        if not self.wait_for(lambda: not missing(), seconds=timeout):
            slow = missing()[0]
            raise Unavailable(
                f"{slow.name} did not come up in {timeout:.0f} s; its log {slow.log} ends "
                f"with:\n{tail(slow.log)}"
            )

    def wait_for(self, answer: Callable[[], T | None], *, seconds: float) -> T | None:
        """Ask until there is an answer, as `clock.wait_for` does; raise where `check` does."""

        def checked() -> T | None:
            self.check()
            return answer()

        return clock.wait_for(checked, seconds=seconds, every=POLL)

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

    def _watching(self, child: Child) -> None:
        """Look after one child, in a thread of its own, until the end or until it is given up."""
        while not self._ending.wait(0.5):
            try:
                self._look_after(child)
            except EvergreenError as error:
                self._failure = error
                self._stopping.set()
                return
            except Exception as error:  # noqa: BLE001 - a full disk, no memory for a process:
                # whatever it is, a watch that ends would leave the child dead from then on.
                self._count(child.name, error)

    def _keep_house(self) -> None:
        """Bound and measure what grows, now and then, until the end."""
        while not self._ending.wait(self._house_pause):
            self._house_pause = EVERY_SECONDS
            try:
                keep_house(self.settings, time.time())
            except Exception as error:  # noqa: BLE001 - as above: the next turn tries again
                self._count("housekeeping", error)

    def _count(self, name: str, error: Exception) -> None:
        """Count what went wrong while looking after a child, and say each kind of it once."""
        kind = f"{name}: {type(error).__name__}"
        self.problems[kind] += 1
        if self.problems[kind] == 1:
            self._tell(f"looking after {kind}: {error}; it is tried again")

    def _tell(self, text: str) -> None:
        """Say something, if anybody still listens: stdout may be a closed pipe or a full disk."""
        try:
            self._say(text)
        except (OSError, ValueError):  # ValueError: it is closed
            self.problems["said to nobody"] += 1

    def _look_after(self, child: Child) -> None:
        """Restart a child that has died or hangs, and say so when it first does its work."""
        if event := child.revive(time.monotonic()):
            self._tell(event)
        if child.born != self._remembered.get(child.name):  # also where the last write failed
            self._remember()
            self._remembered[child.name] = child.born
        if child.given_up:
            self._up.add(child.name)  # nobody waits for it any more
            return
        if event := child.look(time.monotonic()):
            self._tell(event)
        if child.name not in self._up and child.up:
            self._up.add(child.name)
            took = child.well - child.started
            self._tell(f"  {child.name:<22} {'up':<20} {took:6.1f} s")

    def _remember(self) -> None:
        """Write down what was started, for the next start after a kill."""
        sessions = [asdict(session) for child in self._children for session in list(child.sessions)]
        body = {"boot": _boot(), "sessions": sessions}
        with self._writing:
            write_text(_state_file(self.settings), json.dumps(body))

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        # Raised at the next `pause`, so never in the middle of a start.
        self._interrupted_by = signal.Signals(number).name
        self._stopping.set()


def migrate(settings: Settings, *, say: Say = log.info) -> None:
    """Migrate the databases to this version; returns at once where that was done before.

    Raises:
        Unavailable: Airflow's command fails; the message ends with what it printed.
        ConfigError: the copy of a database file of another version cannot be written.
    """
    from include.installation.databases import migrate_records

    migrate_records(settings)
    if is_migrated(settings):
        return
    copy_databases(settings.home)
    set_up(settings, say=say)
    stamp_version(settings.home)


def clean_up(settings: Settings, *, say: Say = log.info) -> list[int]:
    """End what a killed supervisor of this installation left behind; return the process ids.

    The caller holds the lock.
    """
    path = _state_file(settings)
    try:
        body = json.loads(path.read_text())
        leaders = [Born(**session) for session in body["sessions"]]
        if body["boot"] != _boot():
            leaders = []  # all of them ended with that boot; their ids are others' now
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        leaders = []  # an unreadable file names nobody
    ended = end_sessions(leaders)
    if ended:
        say(f"  ended {len(ended)} processes that an earlier run had left behind")
    path.unlink(missing_ok=True)
    return ended


def stop(settings: Settings | None = None, *, timeout: float = STOP_TIMEOUT) -> str:
    """Stop the installation of this home folder, from another shell; return what was done.

    Raises:
        Busy: it does not end in time.
    """
    settings = settings or current_settings()
    if not settings.home.exists():
        return f"nothing runs: {settings.home} does not exist"
    holder = find_holder(settings)
    if holder is None:
        with InstallationLock(settings):
            ended = clean_up(settings)
        left = f"; ended {len(ended)} processes left behind" if ended else ""
        return f"nothing runs in {settings.home}{left}"
    with contextlib.suppress(ProcessLookupError):
        os.kill(holder.pid, signal.SIGTERM)
    if not clock.wait_for(lambda: find_holder(settings) != holder, seconds=timeout, every=0.2):
        raise Busy(
            f"process {holder.pid} has not ended after {timeout:.0f} s; look at it, then `kill -9 "
            f"{holder.pid} && make stop`"
        )
    return f"stopped process {holder.pid} and all that it had started"


def _state_file(settings: Settings) -> Path:
    return settings.home / "run" / "supervisor.json"


def _boot() -> str:
    """Return the id of this boot of the machine: process ids of another one mean nothing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"
