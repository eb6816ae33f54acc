"""A log of bounded size that takes what a process prints while the process runs.

The process writes into a pipe, a thread of ours into the file: a file that a process has open
itself can be put aside, but never loses its writer, and cutting it off loses what is written
meanwhile. Where the disk is full the thread goes on reading, or the process would stand still.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from pathlib import Path

CHUNK = 65536  # bytes of a read; a line may reach so far over the bound rather than be cut
PENDING = 1 << 20  # bytes that are kept while the disk takes none; older ones are lost, and counted
PIPE_BYTES = 1 << 20  # what a process can print while this one is busy, where the system allows it


class RotatingLog:
    """`name.log`, and beside it the older `name.1.log` to `name.N.log`, each of `max_bytes`.

    Files end with whole lines. Threads may write to it at once.
    """

    def __init__(self, path: Path, *, max_bytes: int, kept: int) -> None:
        """Build it; `kept` is the number of older files. Nothing is opened yet."""
        self.path, self.max_bytes, self.kept = path, max_bytes, kept
        self.lost = 0  # bytes of which nothing was written, since this was last said in the log
        self._pending = b""
        self._lock = threading.Lock()
        self._readers: list[threading.Thread] = []

    def open_pipe(self) -> int:
        """Return the end of a pipe to write to: what comes out of it is written to the log.

        The caller closes it, as does each process that inherits it; with the last one the thread
        ends that reads the other end.
        """
        with contextlib.suppress(OSError):  # for who looks for it before there is a line
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
        reading, writing = os.pipe()
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        reader = threading.Thread(
            target=self._read, args=(reading,), name=f"log {self.path.name}", daemon=True
        )
        reader.start()
        self._readers = [one for one in self._readers if one.is_alive()] + [reader]
        return writing

    def drain(self, seconds: float) -> None:
        """Wait until what processes that have ended had printed is in the file, not for ever."""
        for reader in self._readers:
            reader.join(seconds)

    def write(self, data: bytes) -> None:
        """Write bytes; what the disk does not take is kept for the next time, as far as it fits."""
        with self._lock:
            self._pending += data
            try:
                self._flush()
            except OSError:
                excess = max(0, len(self._pending) - PENDING)
                self.lost += excess
                self._pending = self._pending[excess:]

    def _read(self, descriptor: int) -> None:
        try:
            while data := os.read(descriptor, CHUNK):
                self.write(data)
        finally:
            os.close(descriptor)

    def _flush(self) -> None:
        """Write what is pending, rotating wherever the file is full.

        Raises:
            OSError: the disk takes no more; what was not written is still pending.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while self._pending:
            # Opened each time: a file that somebody has removed or moved is simply made anew.
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(self.path, flags, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                whole = size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
                if self.lost and whole:
                    os.write(descriptor, b"(%d bytes could not be written)\n" % self.lost)
                    self.lost = 0
                    continue
                fits = self._fitting(size, is_whole=whole)
                while fits > 0:
                    written = os.write(descriptor, self._pending[:fits])
                    self._pending, fits = self._pending[written:], fits - written
            finally:
                os.close(descriptor)
            if self._pending:
                self._rotate()

    def _fitting(self, size: int, *, is_whole: bool) -> int:
        """Return how many of the pending bytes go into a file of this size before it is full."""
        room = max(0, self.max_bytes - size)
        if len(self._pending) <= room:
            return len(self._pending)
        lines = self._pending.rfind(b"\n", 0, room) + 1
        if lines or (is_whole and size):
            return lines
        # Within a line: it is ended in the same file, unless it has no end.
        end = self._pending.find(b"\n", 0, room + CHUNK) + 1
        if end:
            return end
        return min(len(self._pending), room + CHUNK) if size < self.max_bytes + CHUNK else 0

    def _rotate(self) -> None:
        """Put the file aside, and those before it one place further; the oldest goes."""
        names = [self.path, *(self._older(number) for number in range(1, self.kept + 1))]
        names[-1].unlink(missing_ok=True)
        for newer, older in zip(names[-2::-1], names[:0:-1], strict=True):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)

    def _older(self, number: int) -> Path:
        return self.path.with_suffix(f".{number}{self.path.suffix}")
