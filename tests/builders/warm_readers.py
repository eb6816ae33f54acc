"""Readers of files whose child is forked from a process that has its libraries loaded.

To start one anew costs 0.3 s of processor time, and the tests start some hundreds. The child runs
the product's own `file_worker.main` behind the same pipes, with the same limits; what a started one
knows of its surroundings is tested where tests ask for `cold_readers`.

    python -m tests.builders.warm_readers DESCRIPTOR     the process that forks, on a socket
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import IO, NoReturn, cast

from include.config.settings import ROOT
from include.ingestion.file_reader import FileReader

_NUMBER = struct.Struct("i")


class WarmChild:
    """What a reader uses of `subprocess.Popen`, of a forked process."""

    def __init__(self, folder: Path) -> None:
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        self._state, theirs_state = os.pipe()
        try:
            handed = [theirs_in, theirs_out, theirs_state]
            socket.send_fds(_forking(), [str(folder).encode()], handed)
        finally:
            for end in (theirs_in, theirs_out, theirs_state):
                os.close(end)  # an end that stayed open here would hide the child's death
        self.stdin: IO[bytes] = os.fdopen(ours_in, "wb")
        self.stdout: IO[bytes] = os.fdopen(ours_out, "rb")
        self.pid: int = _NUMBER.unpack(os.read(self._state, _NUMBER.size))[0]
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return how it ended; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(timeout=0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it runs on.
        """
        if self.returncode is None:
            if not select.select([self._state], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("file_worker", timeout or 0.0)
            self.returncode = _NUMBER.unpack(os.read(self._state, _NUMBER.size))[0]
            os.close(self._state)
        return self.returncode

    def kill(self) -> None:
        """Kill it."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def start_warm(self: FileReader) -> subprocess.Popen[bytes]:
    """Start a reader's child from the warm process."""
    self._child = cast("subprocess.Popen[bytes]", WarmChild(self.folder))
    return self._child


@cache
def _forking() -> socket.socket:
    """Return the socket of the process that forks; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    subprocess.Popen(
        [sys.executable, "-m", "tests.builders.warm_readers", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TZ": "UTC", "PYTHONUTF8": "1"},
        cwd="/",
    )
    theirs.close()
    return ours


def _serve(requests: socket.socket) -> None:
    """Fork a child for each request, until nobody can ask any more."""
    import include.ingestion.file_worker  # noqa: F401 - what is to be warm

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    while True:
        folder, handed, _, _ = socket.recv_fds(requests, 4096, 3)
        if not folder:
            return
        if os.fork() == 0:
            requests.close()
            _wait_for_worker(folder.decode(), *handed)
        for descriptor in handed:
            os.close(descriptor)


def _wait_for_worker(folder: str, stdin: int, stdout: int, state: int) -> NoReturn:
    """Fork the worker; write its id, and at its end how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(state)
        _work(folder, stdin, stdout)
    for descriptor in (stdin, stdout):
        os.close(descriptor)
    os.write(state, _NUMBER.pack(pid))
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        os.write(state, _NUMBER.pack(ended))
    os._exit(0)


def _work(folder: str, stdin: int, stdout: int) -> NoReturn:
    """Run the product's worker behind two pipes, as `python -m` does."""
    from include.ingestion import file_worker

    code = 1
    try:
        for given, number in ((stdin, 0), (stdout, 1)):
            os.dup2(given, number)
            os.close(given)
        os.chdir(folder)
        sys.stdin, sys.stdout = os.fdopen(0, "r"), os.fdopen(1, "w")
        code = file_worker.main()
        sys.stdout.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
