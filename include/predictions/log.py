"""The prediction log: what was answered, on disk before the answer leaves the node.

A node appends one JSON line a prediction to its own segment `<home>/predictions/<use
case>/<name>.open`, by one `write` on an `O_APPEND` descriptor: the page cache outlives a killed
process, so nothing answered is lost. A segment is closed by renaming it to `<name>.jsonl`, after a
size, a time, at shutdown, or by `recover` for a process that died: the writer holds a file lock,
which ends with it, whatever killed it and whatever container it ran in. Closed segments never
change; `check_drift` imports them into the lake.

The lock is `flock` on the segment itself, not filelock's on a file beside it: it must be held
before the segment has its name, go with the descriptor that is written to, and leave no file behind
a segment that was imported.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from include.errors import Unavailable

if TYPE_CHECKING:
    import pyarrow as pa

ROTATE_BYTES = 32 * 1024 * 1024
ROTATE_SECONDS = 60.0
_OPEN, _CLOSED = ".open", ".jsonl"


class Prediction(msgspec.Struct, omit_defaults=False):
    """One answered prediction.

    `at` and `features_at` are UTC as ISO text, `entity` is text, `features` is the row that the
    model saw, as JSON. `latency_us` is microseconds up to the answer.
    """

    request_id: str
    at: str
    version: int
    digest: str
    arm: str
    entity: str | None
    score: float
    decision: str
    flags: str
    feature_set: str
    features_at: str | None
    features: msgspec.Raw
    latency_us: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A closed segment; its `name` is unique for ever, so an import can be repeated."""

    use_case: str
    name: str
    path: Path


def folder(home: Path, use_case: str) -> Path:
    """Return the folder of a use case's segments."""
    return home / "predictions" / use_case


class PredictionLog:
    """The writer of one process and one use case. Not thread-safe: it belongs to the event loop."""

    def __init__(
        self,
        home: Path,
        use_case: str,
        *,
        rotate_bytes: int = ROTATE_BYTES,
        rotate_seconds: float = ROTATE_SECONDS,
    ) -> None:
        self._folder = folder(home, use_case)
        self._rotate_bytes, self._rotate_seconds = rotate_bytes, rotate_seconds
        self._encode = msgspec.json.Encoder().encode_into
        self._line = bytearray()
        self._descriptor = -1
        self._path = Path()
        self._size = 0
        self._opened = 0.0

    def append(self, prediction: Prediction) -> None:
        """Put one prediction on disk.

        Raises:
            Unavailable: it could not be written whole; then nothing may be answered.
        """
        self._encode(prediction, self._line)
        self._line.append(10)  # a line feed
        self._write(self._line)

    def append_all(self, predictions: Iterable[Prediction]) -> None:
        """Put many predictions on disk by one write: all of them, or none.

        Raises:
            Unavailable: they could not be written whole; then nothing may be answered.
        """
        lines, at = bytearray(), 0
        for prediction in predictions:
            self._encode(prediction, lines, at)
            lines.append(10)
            at = len(lines)
        self._write(lines)

    def _write(self, lines: bytearray) -> None:
        try:
            if self._descriptor < 0:
                self._open()
            written = os.write(self._descriptor, lines)
            if written != len(lines):
                # A part of a line would join the next one, and neither could be read.
                os.ftruncate(self._descriptor, self._size)
                raise OSError(errno.ENOSPC, "no space left for a whole line")
        except OSError as error:
            raise Unavailable(
                f"the prediction log {self._folder} cannot be written ({error.strerror}); nothing "
                "is answered that is not on record: free disk space, or check the folder's owner"
            ) from error
        self._size += written
        if self._size >= self._rotate_bytes:
            self.close()

    def rotate(self) -> None:
        """Close the segment if it has been open long enough."""
        if self._descriptor >= 0 and time.monotonic() - self._opened >= self._rotate_seconds:
            self.close()

    def sync(self) -> None:
        """Force the open segment to the disk itself, which only a loss of power needs.

        Safe from another thread than that of `append`.
        """
        if self._descriptor >= 0:
            try:
                os.fdatasync(self._descriptor)
            except OSError:
                return  # closed in between: closing has synced it, or the next append will tell

    def close(self) -> None:
        """Close the segment: from now on it can be imported."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        os.rename(self._path, self._path.with_suffix(_CLOSED))
        os.close(descriptor)  # last: it ends the lock, and `recover` renames what is not locked

    def _open(self) -> None:
        """Begin a segment; its name begins with nanoseconds, so names sort by time."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns():020d}-{secrets.token_hex(6)}"
        self._path = self._folder / f"{name}{_OPEN}"
        unlocked = self._folder / f".{name}"
        descriptor = os.open(
            unlocked, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Locked before it can be seen, so nobody recovers it from under us.
        os.rename(unlocked, self._path)
        self._descriptor, self._size, self._opened = descriptor, 0, time.monotonic()


def recover(home: Path, use_case: str) -> list[Segment]:
    """Close the segments of processes that are dead and return them.

    A half-written last line is cut off: it was never answered.
    """
    closed = []
    for path in sorted(folder(home, use_case).glob(f"*{_OPEN}")):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # its writer, or another recovery, has just closed it
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            whole = _last_line_end(path)
            if whole < os.fstat(descriptor).st_size:
                os.ftruncate(descriptor, whole)
            os.rename(path, path.with_suffix(_CLOSED))
            closed.append(Segment(use_case, path.stem, path.with_suffix(_CLOSED)))
        except (BlockingIOError, FileNotFoundError):  # its writer lives, or has just closed it
            continue
        finally:
            os.close(descriptor)
    return closed


def closed_segments(home: Path, use_case: str) -> list[Segment]:
    """Return the segments that can be imported, oldest first, also those of dead processes."""
    recover(home, use_case)
    return [
        Segment(use_case, path.stem, path)
        for path in sorted(folder(home, use_case).glob(f"*{_CLOSED}"))
    ]


def read(segments: Sequence[Segment]) -> pa.Table:
    """Return the predictions of closed segments.

    Columns: those of `Prediction` (`at` and `features_at` as `timestamp[us, tz=UTC]`, `features` as
    JSON text), and `segment` and `line`, which together name a row for ever: an import that is
    repeated replaces, never doubles.
    """
    import pyarrow as pa

    names = [*Prediction.__struct_fields__, "segment", "line"]
    columns: dict[str, list[object]] = {name: [] for name in names}
    for segment, line, prediction in _predictions(segments):
        for name in Prediction.__struct_fields__:
            value = getattr(prediction, name)
            columns[name].append(bytes(value).decode() if name == "features" else value)
        columns["segment"].append(segment.name)
        columns["line"].append(line)
    stamp = pa.timestamp("us", tz="UTC")
    types = {
        "version": pa.int64(),
        "score": pa.float64(),
        "latency_us": pa.int64(),
        "line": pa.int64(),
    }
    arrays = []
    for name in names:
        array = pa.array(columns[name], types.get(name, pa.string()))
        arrays.append(array.cast(stamp) if name in ("at", "features_at") else array)
    return pa.table(arrays, names=names)


def forget(segments: Iterable[Segment]) -> None:
    """Remove segments whose rows are committed to the lake."""
    for segment in segments:
        segment.path.unlink(missing_ok=True)


def _predictions(segments: Sequence[Segment]) -> Iterable[tuple[Segment, int, Prediction]]:
    """Yield every prediction with its segment and its place in that, from 0."""
    decode = msgspec.json.Decoder(Prediction).decode
    for segment in segments:
        with segment.path.open("rb") as file:
            for number, line in enumerate(file):
                yield segment, number, decode(line)


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
