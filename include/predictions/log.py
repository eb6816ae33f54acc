"""The prediction log: what was answered, on disk before the answer leaves the node.

A node appends one JSON line a prediction to its own segment `<home>/predictions/<use
case>/<name>.open`, by one `write` on an `O_APPEND` descriptor: the page cache outlives a killed
process, so nothing answered is lost. A segment is closed by renaming it to `<name>.jsonl`, after a
size, a time, at shutdown, or by `recover` for a process that died: the writer holds a file lock,
which ends with it, whatever killed it and whatever container it ran in. Closed segments never
change; the DAG `import_predictions` imports them into the lake.

The lock is `flock` on the segment itself, not filelock's on a file beside it: it must be held
before the segment has its name, go with the descriptor that is written to, and leave no file behind
a segment that was imported.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from include.errors import Unavailable
from include.files import written_aside

ROTATE_BYTES = 32 * 1024 * 1024
ROTATE_SECONDS = 60.0
OPEN, CLOSED, SET_ASIDE = ".open", ".jsonl", ".bad"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Segment:
    """A closed segment; its `name` is unique for ever, so an import can be repeated."""

    use_case: str
    name: str
    path: Path

    @property
    def where(self) -> str:
        """The folder that it lies in, as people find it."""
        return str(self.path.parent)

    def size(self) -> int:
        """Return its bytes."""
        return self.path.stat().st_size

    def read(self) -> bytes:
        """Return its content."""
        return self.path.read_bytes()

    def remove(self) -> None:
        """Remove it, if it is there."""
        self.path.unlink(missing_ok=True)

    def put_aside(self, name: str, content: bytes) -> None:
        """Keep a file beside it, durably."""
        with written_aside(self.path.with_name(name), mode=0o600, durable=True) as temporary:
            temporary.write_bytes(content)


def folder(home: Path, use_case: str) -> Path:
    """Return the folder of a use case's segments."""
    return home / "predictions" / use_case


def name_of(nanoseconds: int) -> str:
    """Return what the name of a segment begins with that is opened at a time since 1970."""
    return f"{nanoseconds:020d}"


class PredictionLog:
    """The writer of one process and one use case. Not thread-safe: it belongs to the event loop.

    `written_lines` and `written_bytes` count what it has put on disk since it was made.
    """

    def __init__(
        self,
        home: Path,
        use_case: str,
        *,
        rotate_bytes: int = ROTATE_BYTES,
        rotate_seconds: float = ROTATE_SECONDS,
    ) -> None:
        self.use_case, self.written_lines, self.written_bytes = use_case, 0, 0
        self._folder = folder(home, use_case)
        self._rotate_bytes, self._rotate_seconds = rotate_bytes, rotate_seconds
        self._descriptor = -1
        self._path = Path()
        self._size = 0
        self._opened = 0.0
        self._torn = False
        self._closing: list[int] = []

    @property
    def position(self) -> tuple[str, int]:
        """The segment that is written and its bytes; none is open: the time, as names begin."""
        if self._descriptor < 0:
            return name_of(time.time_ns()), 0
        return self._path.stem, self._size

    def append(self, line: bytes, count: int = 1) -> None:
        """Put one line, or `count` lines together, on disk; each ends in a line feed.

        Raises:
            Unavailable: it could not be written whole; then nothing may be answered.
        """
        try:
            if self._descriptor < 0:
                self._open()
            if self._torn:
                self._cut_off()
            written = os.write(self._descriptor, line)
            if written != len(line):
                # A part of a line would join the next one, and neither could be read.
                self._torn = True
                self._cut_off()
                raise OSError(errno.ENOSPC, "no space left for a whole line")
        except OSError as error:
            raise Unavailable(
                f"the prediction log {self._folder} cannot be written ({error.strerror}); nothing "
                "is answered that is not on record: free disk space, or check the folder's owner"
            ) from error
        self._size += written
        self.written_lines += count
        self.written_bytes += written
        if self._size >= self._rotate_bytes:
            self._hand_over()

    def _cut_off(self) -> None:
        """Take back the part of a line that a full disk has left."""
        os.ftruncate(self._descriptor, self._size)
        self._torn = False

    def rotate(self) -> None:
        """Close the segment if it has been open long enough, or its file is gone (`reset`)."""
        if self._descriptor < 0:
            return
        is_old = time.monotonic() - self._opened >= self._rotate_seconds
        if is_old or os.fstat(self._descriptor).st_nlink == 0:
            self._hand_over()

    def sync(self) -> None:
        """Force what was written to the disk itself, which only a loss of power needs.

        Ends the segments that `rotate` or their size has closed. Safe from another thread than that
        of `append`; waits for the disk.
        """
        self._end_closed(durable=True)
        descriptor = self._descriptor
        if descriptor >= 0:
            try:
                os.fdatasync(descriptor)
            except OSError:
                return  # closed in between: closing has synced it, or the next append will tell

    def close(self, *, durable: bool = True) -> None:
        """Close the segment: from now on it can be imported; `durable` waits for the disk."""
        if self._descriptor >= 0:
            self._hand_over()
        self._end_closed(durable)

    def _end_closed(self, durable: bool) -> None:
        """Close the descriptors of closed segments, and with them their locks."""
        while self._closing:
            try:
                descriptor = self._closing.pop()
            except IndexError:  # the other thread was faster
                return
            try:
                if durable:
                    os.fdatasync(descriptor)
            except OSError as error:
                log.warning("a segment of %s could not be synced: %s", self._folder, error)
            finally:
                os.close(descriptor)

    def _hand_over(self) -> None:
        """Give the segment its closed name; `sync` does what takes time.

        Never raises: what is in the segment is on record, whatever its name is.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if self._torn:
            with contextlib.suppress(OSError):  # then `read_line` sets the part of a line aside
                os.ftruncate(descriptor, self._size)
            self._torn = False
        try:
            os.rename(self._path, self._path.with_suffix(CLOSED))
        except OSError as error:
            # Its name stays `.open`: `recover` renames what is no longer locked, or it was deleted.
            log.warning("segment %s could not be closed: %s", self._path, error)
        # Its lock goes with the descriptor, which `sync` closes.
        self._closing.append(descriptor)

    def _open(self) -> None:
        """Begin a segment; its name begins with nanoseconds, so names sort by time."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{name_of(time.time_ns())}-{secrets.token_hex(6)}"
        self._path = self._folder / f"{name}{OPEN}"
        unlocked = self._folder / f".{name}"
        descriptor = os.open(
            unlocked, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Locked before it can be seen, so nobody recovers it from under us.
            os.rename(unlocked, self._path)
        except OSError:
            os.close(descriptor)
            unlocked.unlink(missing_ok=True)
            raise
        self._descriptor, self._size, self._opened = descriptor, 0, time.monotonic()
        self._torn = False


def recover(home: Path, use_case: str) -> list[Segment]:
    """Close the segments of processes that are dead and return them.

    A half-written last line is cut off: it was never answered.
    """
    closed = []
    for path in sorted(folder(home, use_case).glob(f"*{OPEN}")):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # its writer, or another recovery, has just closed it
        except OSError as error:
            log.warning("segment %s cannot be opened: %s", path, error)
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            whole = _last_line_end(path)
            if whole < os.fstat(descriptor).st_size:
                os.ftruncate(descriptor, whole)
            os.rename(path, path.with_suffix(CLOSED))
            closed.append(Segment(use_case, path.stem, path.with_suffix(CLOSED)))
        except (BlockingIOError, FileNotFoundError):  # its writer lives, or has just closed it
            continue
        except OSError as error:  # it is tried again at the next time, and keeps nobody else back
            log.warning("segment %s cannot be recovered: %s", path, error)
        finally:
            os.close(descriptor)
    return closed


def closed_segments(home: Path, use_case: str) -> list[Segment]:
    """Return the segments that can be imported, oldest first, also those of dead processes."""
    recover(home, use_case)
    return [
        Segment(use_case, path.stem, path)
        for path in sorted(folder(home, use_case).glob(f"*{CLOSED}"))
    ]


def forget(segments: Iterable[Segment]) -> None:
    """Remove segments whose rows are committed to the lake."""
    for segment in segments:
        segment.remove()


def _last_line_end(path: Path) -> int:
    """Return the length of a file up to and with its last line feed."""
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        while position > 0:
            start = max(0, position - 65536)
            file.seek(start)
            line_feed = file.read(position - start).rfind(b"\n")
            if line_feed >= 0:
                return start + line_feed + 1
            position = start
    return 0


def began_at(name: str) -> datetime | None:
    """Return when a segment was begun, by the name of its file; None: it is no segment's."""
    nanoseconds = name.partition("-")[0]
    if len(nanoseconds) != 20 or not nanoseconds.isdigit():
        return None
    return datetime.fromtimestamp(int(nanoseconds) // 10**9, tz=UTC)
