"""Readers of files whose child is forked from a process that has its libraries loaded.

To start one anew costs 0.3 s of processor time, and the tests start some hundreds. The child runs
the product's own `file_worker.main` behind the same pipes, with the same limits; what a started one
knows of its surroundings is tested in tests/ingestion/test_file_reader.py, which starts its own.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, cast

from include.ingestion.file_reader import FileReader

WARM = multiprocessing.get_context("forkserver")
WARM.set_forkserver_preload(["include.ingestion.file_worker"])


def _answer(stdin: Connection, stdout: Connection, folder: str) -> None:
    """Run the product's worker behind two pipes, as `python -m` does."""
    from include.ingestion import file_worker

    os.dup2(stdin.fileno(), 0)
    os.dup2(stdout.fileno(), 1)
    stdin.close()
    stdout.close()
    os.chdir(folder)
    sys.stdin, sys.stdout = os.fdopen(0, "r"), os.fdopen(1, "w")
    sys.exit(file_worker.main())


class WarmChild:
    """What a reader uses of `subprocess.Popen`, of a forked process."""

    def __init__(self, folder: Path) -> None:
        theirs_in, ours_in = WARM.Pipe(duplex=False)
        ours_out, theirs_out = WARM.Pipe(duplex=False)
        self.stdin: IO[bytes] = os.fdopen(os.dup(ours_in.fileno()), "wb")
        self.stdout: IO[bytes] = os.fdopen(os.dup(ours_out.fileno()), "rb")
        self._process = WARM.Process(
            target=_answer, args=(theirs_in, theirs_out, str(folder)), daemon=True
        )
        self._process.start()
        for end in (theirs_in, ours_in, ours_out, theirs_out):
            end.close()  # an end that stayed open here would hide the child's death

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs."""
        return self.poll()

    def poll(self) -> int | None:
        """Return how it ended; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> None:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it runs on.
        """
        self._process.join(timeout)
        if self._process.is_alive():
            raise subprocess.TimeoutExpired("file_worker", timeout or 0.0)

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()


def start_warm(self: FileReader) -> subprocess.Popen[bytes]:
    """Start a reader's child from the warm process."""
    self._child = cast("subprocess.Popen[bytes]", WarmChild(self.folder))
    return self._child
