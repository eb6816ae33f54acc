"""Who runs an installation: one process a home folder, which says who it is."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Literal

from filelock import FileLock, Timeout

from include.clock import wait_for
from include.config.settings import Settings
from include.errors import Busy
from include.files import write_text
from include.processes import Born

LOOKED_AT = 1.0  # seconds that a start waits while others look who runs, for which they lock
WRITTEN_WITHIN = 5.0  # seconds in which who has the lock says who it is


class InstallationLock:
    """The right to start processes in a home folder; the system takes it from a dead process.

    Raises:
        Busy: another process has it; the message names its id.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = _file_lock(settings)

    def __enter__(self) -> InstallationLock:
        """Take the lock."""
        try:
            self._lock.acquire(timeout=LOOKED_AT, poll_interval=0.05)
        except Timeout:
            holder = find_holder(self._settings)
            who = f"process {holder.pid}" if holder else "a process that has just ended"
            raise Busy(
                f"{self._settings.home} is in use by {who}: this installation runs already. Stop "
                "it with `make stop`, or set EVERGREEN_HOME and the ports for a second one"
            ) from None
        write_text(_holder_file(self._settings), json.dumps(asdict(Born.of(os.getpid()))))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        """Give the lock back."""
        # First the name: without the lock it would name whoever comes next.
        _holder_file(self._settings).unlink(missing_ok=True)
        self._lock.release()


def find_holder(settings: Settings) -> Born | None:
    """Return the process that runs this installation, or None where none does.

    Raises:
        Busy: one does, and does not say which it is.
    """

    def look() -> Born | Literal["nobody"] | None:
        lock = _file_lock(settings)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return _read_holder(settings)
        lock.release()
        return "nobody"

    # Who has just taken the lock says only then who it is.
    answer = wait_for(look, seconds=WRITTEN_WITHIN, every=0.05)
    if answer is None:
        raise Busy(
            f"{settings.home} is in use by a process that does not say which it is; look for it "
            "with `ps`, and end it"
        )
    return answer if isinstance(answer, Born) else None


def _read_holder(settings: Settings) -> Born | None:
    """Return who says that it has the lock, if it lives: a killed process leaves its name."""
    try:
        holder = Born(**json.loads(_holder_file(settings).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return holder if holder.alive else None


def _file_lock(settings: Settings) -> FileLock:
    path = settings.home / "run" / "lock"
    settings.make_home()
    path.parent.mkdir(exist_ok=True, mode=0o700)
    return FileLock(path)


def _holder_file(settings: Settings) -> Path:
    return settings.home / "run" / "holder.json"
