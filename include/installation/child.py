"""A supervised process: started, asked whether it does its work, started again, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from include.errors import Unavailable
from include.processes import Born, end_sessions, start, tail
from include.rotating_log import RotatingLog

GRACE = 20.0  # seconds between SIGTERM and SIGKILL
STABLE = 60.0  # seconds after which a restarted process counts as well again
MAX_RESTARTS = 5
BACK_SECONDS = 0.2  # until a process is back that had worked, and is kept whatever happens
ASKED_EVERY = 3.0  # seconds between two questions to a process that works
STARTED_WITHIN = 240.0  # seconds; Airflow's first start on a slow machine takes two minutes
LOG_BYTES, LOGS_KEPT = 20 * 1024 * 1024, 3  # of a log, and how many older ones
DRAIN_SECONDS = 2.0  # for the last lines of a process that has ended
Importance = Literal["needed", "kept", "optional"]


@dataclass
class Child:
    """One supervised process.

    `healthy` asks whether it does its work, not only whether it lives; None: nobody can say.
    `importance` says what becomes of it when it dies again and again: *needed* ends the
    installation, *kept* is started again for ever, *optional* is given up alone. `answers_within`
    are the seconds without a healthy answer after which it counts as hung.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    healthy: Callable[[], bool | None]
    patience: float = 5.0  # seconds that its own children get to end by themselves after a SIGTERM
    importance: Importance = "needed"
    answers_within: float = 120.0
    descriptors: Sequence[int] = ()  # open files that it inherits, under the same numbers
    log_bytes: int = LOG_BYTES
    logs_kept: int = LOGS_KEPT
    given_up: bool = False
    up: bool = False  # it has done its work since it was started
    asked: float = 0.0
    well: float = 0.0  # when it was last known to do its work, by `time.monotonic`
    process: subprocess.Popen[bytes] | None = None
    born: Born | None = None
    sessions: list[Born] = field(default_factory=list)
    restarts: int = 0
    started: float = 0.0
    due: float = 0.0
    output: RotatingLog = field(init=False)

    def __post_init__(self) -> None:
        self.output = RotatingLog(self.log, max_bytes=self.log_bytes, kept=self.logs_kept)

    def start(self) -> None:
        """Start the process in a session of its own, its output appended to its log."""
        output = self.output.open_pipe()
        try:
            self.process = start(
                self.command,
                environment=self.environment,
                folder=Path("/"),
                log=output,
                descriptors=self.descriptors,
            )
        finally:
            os.close(output)
        self.born = Born.of(self.process.pid)
        self.sessions.append(self.born)
        self.started = self.well = time.monotonic()
        self.up = False

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to the process itself, if it still runs."""
        if self.alive and self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def look(self, now: float) -> str | None:
        """Ask whether it does its work, and kill it when it has not for too long.

        Return a message for people, if any. What was killed is started again by `revive`.
        """
        if not self.alive or (self.up and now - self.asked < ASKED_EVERY):
            return None  # the port of a dead one may be held open: asking would hold its start up
        self.asked = now
        answer = self.healthy()
        now = max(now, time.monotonic())  # the answer may have taken seconds
        if answer is not False or not self.alive:
            self.up = self.up or answer is True
            self.well = now
            return None
        limit = self.answers_within if self.up else max(STARTED_WITHIN, self.answers_within)
        if now - self.well <= limit:
            return None
        self.signal(signal.SIGKILL)  # SIGTERM does not reach a stopped process
        return f"{self.name} has not answered for {now - self.well:.0f} s; it is killed"

    def revive(self, now: float) -> str | None:
        """Restart a dead process after a growing pause; return a message for people, if any.

        It is called again and again: the first call that sees it dead sets the moment of the
        restart. `now` is of `time.monotonic`.

        Raises:
            Unavailable: it is needed, and dies again and again.
            OSError: it cannot be started at present; the next calls try it again.
        """
        if self.alive or self.process is None or self.given_up:
            if self.restarts and self.alive and now - self.started > STABLE:
                self.restarts = 0
            return None
        if not self.due:
            end_sessions(self.sessions)
            self.sessions.clear()
            self.output.drain(DRAIN_SECONDS)
            self.restarts += 1
            if self.restarts > MAX_RESTARTS and self.importance != "kept":
                return self._give_up()
            self.due = now + self._pause()
            return (
                f"{self.name} ended with code {self.process.returncode}; it is started again "
                f"(log: {self.log})"
            )
        if now >= self.due:
            self.due = 0.0
            self.start()
        return None

    def _pause(self) -> float:
        """Return the seconds until a process that has ended is started again."""
        if self.up and self.importance == "kept":
            return BACK_SECONDS  # it worked: requests wait in its socket meanwhile
        return min(2.0 ** min(self.restarts - 1, 5), 30.0)

    def _give_up(self) -> str:
        """Return what to say of an optional process that is not started again.

        Raises:
            Unavailable: it is needed.
        """
        died = f"{self.name} died {self.restarts} times"
        if self.importance == "needed":
            raise Unavailable(f"{died}; its log {self.log} ends with:\n{tail(self.log)}")
        self.given_up = True
        return (
            f"{died} and is not started again before the next `make run`; everything else goes on "
            f"(log: {self.log})"
        )


def end(children: Iterable[Child], *, grace: float = GRACE) -> None:
    """End children: SIGTERM to each, and SIGKILL to what has not ended after `grace` seconds.

    What a child forked gets its SIGKILL before that, when its own patience is over; what is left in
    the sessions of all gets it at the end.
    """
    alive = [child for child in children if child.process is not None]
    sessions = [session for child in alive for session in child.sessions]
    for child in alive:
        child.signal(signal.SIGTERM)
    began = time.monotonic()
    impatient: set[str] = set()
    while (waiting := [child for child in alive if child.alive]) and (
        waited := time.monotonic() - began
    ) < grace:
        for child in waiting:
            if waited > child.patience and child.name not in impatient:
                # Airflow's scheduler waits for running tasks, its triggerer for triggers.
                impatient.add(child.name)
                end_sessions(child.sessions, leaders_too=False)
        time.sleep(0.1)
    for child in alive:
        child.signal(signal.SIGKILL)
        if child.process is not None:
            child.process.wait(timeout=10)
    end_sessions(sessions)
    for child in alive:
        child.output.drain(DRAIN_SECONDS)
