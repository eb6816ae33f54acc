"""Files that others read while they are written: each is written aside and put in place at once."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path


def make_private(folder: Path) -> None:
    """Make a folder that its owner alone can open, and close one that others can.

    Whatever lies in it is then out of others' reach, whichever process wrote it.

    Raises:
        OSError: it cannot be made or closed, or is everybody's, such as /tmp, and must stay so.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if not mode & 0o077:
        return
    if mode & stat.S_ISVTX:
        raise OSError(errno.EPERM, "it is shared by all users; name a folder in it", str(folder))
    folder.chmod(mode & ~0o077)


@contextlib.contextmanager
def written_aside(path: Path, *, mode: int = 0o666, durable: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to, and rename it when the block ends well.

    A reader sees the old file or the new one, never a part; two writers do not mix, the later
    rename wins. After an error `path` is as it was, and the temporary file is gone. The folder is
    made if it is missing. `mode` is what the file may have at most (the process' umask applies).
    `durable` waits until the bytes and the name are on the disk: for what must survive a loss of
    power.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, since a rename across file systems is a copy. The name is hidden, and ends
    # like the real one: writers choose a format by it.
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}.{path.name}")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: a new one would be lost with the power.

    Raises:
        OSError: the disk says that they are not.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Write a UTF-8 text as a whole.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    with written_aside(path, mode=mode) as temporary:
        temporary.write_text(text, encoding="utf-8")
