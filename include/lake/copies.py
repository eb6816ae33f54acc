"""Local copies of the files of a remote lake, which DuckDB and Arrow read as if the lake were here.

A file of the lake never changes under its name, so a copy is right for as long as a table names
it. Files are got whole, many at once: a file system of Python's that is registered with DuckDB asks
for the footer and for each column of each file by itself, one after the other.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from include.errors import SourceError
from include.files import make_private, written_aside
from include.object_stores import delta_options, explain, shown, store_errors

AT_ONCE = 16  # files; waiting is most of it
PIECE = 8 << 20  # bytes that are held of each file at a time
ATTEMPTS = 4  # of a file whose bytes were cut off: the library repeats what got no answer
# A copy is removed when it was not used for so long. Rows that the lake has removed (personal data
# among them) are named by nobody any more, so their copies go then as well.
KEPT_HOURS = 48
# What was looked up so recently may be read yet, also where there are more copies than may be kept.
IN_USE_HOURS = 4
SWEEP_SECONDS = 600


class Copies:
    """The copies of a remote lake's files in a folder of this machine."""

    def __init__(self, root: str, folder: Path, most: int) -> None:
        """Build them; `most` is how many bytes of copies are kept."""
        self._root, self._most = root, most
        self._all = folder
        self._folder = folder / hashlib.sha256(root.encode()).hexdigest()[:16]

    def get(self, table: str, sizes: Mapping[str, int]) -> list[str]:
        """Return the paths of copies of some files of a table, in their order; `sizes` are bytes.

        What is not here yet is got, several at once.

        Raises:
            SourceError: the store does not give a file, or the copies cannot be written.
        """
        folder = self._folder / table
        for name in sizes:
            # Who may write into the store writes what the table's log names.
            if "://" in name or name.startswith("/") or ".." in name.split("/"):
                raise SourceError(
                    f"{shown(self._root)}/{table}: names a file outside of the table, "
                    f"{name[:80]!r}; nothing of ours does: look who else writes there"
                )
        paths = {name: folder / name for name in sizes}
        missing = [name for name, path in paths.items() if not self._is_here(path, sizes[name])]
        if missing:
            self._prepare()
            self._get(table, missing, sizes, paths)
        return [str(path) for path in paths.values()]

    def folder(self, name: str) -> Path:
        """Return where the copies of a table lie, or those of all tables below a folder."""
        return self._folder / name

    def sweep(self) -> None:
        """Remove copies that were not used for long, and the oldest where there are too many.

        At most every few minutes: it looks at every copy.
        """
        mark = self._all / ".swept"
        with contextlib.suppress(OSError):  # no copy yet, or nobody may write: nothing to remove
            last = mark.stat().st_mtime if mark.exists() else 0.0
            # A mark of the future is of a clock that was set back.
            if not 0 <= time.time() - last < SWEEP_SECONDS:
                mark.touch()
                remove_unused(self._all, self._most)

    @staticmethod
    def _is_here(path: Path, size: int) -> bool:
        """Tell whether there is a copy, and mark it as used: what is not, goes after a while."""
        try:
            if path.stat().st_size != size:
                return False
            os.utime(path)
        except OSError:
            return False
        return True

    def _prepare(self) -> None:
        try:
            make_private(self._all)
        except OSError as error:
            raise _unwritable(self._all, error) from None

    def _get(
        self, table: str, names: Sequence[str], sizes: Mapping[str, int], paths: Mapping[str, Path]
    ) -> None:
        from deltalake.fs import DeltaStorageHandler

        uri = f"{self._root}/{table}"
        try:
            store = DeltaStorageHandler(uri, delta_options(uri), dict(sizes))
        except store_errors() as error:
            raise SourceError(f"{shown(uri)}: cannot be read ({explain(error)})") from None

        def get(name: str) -> None:
            for attempt in Retrying(
                retry=retry_if_exception(_may_pass),
                stop=stop_after_attempt(ATTEMPTS),
                wait=wait_random_exponential(multiplier=0.2, max=5),
                reraise=True,
            ):
                with attempt:
                    _copy(store, name, sizes[name], paths[name])

        with ThreadPoolExecutor(min(AT_ONCE, len(names))) as pool:
            waiting = [(name, pool.submit(get, name)) for name in names]
            try:
                for name, future in waiting:
                    try:
                        future.result()
                    except FileNotFoundError:
                        raise SourceError(
                            f"{shown(uri)}/{name}: is gone, though the table names it; if it was "
                            "removed by hand, restore it, else run this again"
                        ) from None
                    except _CannotWrite as error:
                        raise _unwritable(paths[name].parent, error.error) from None
                    except store_errors() as error:
                        raise SourceError(
                            f"{shown(uri)}/{name}: cannot be read ({explain(error)}); check that "
                            "the store answers, and its credentials"
                        ) from None
            except SourceError:
                for _, future in waiting:
                    future.cancel()
                raise


class _CannotWrite(Exception):
    """The copy cannot be written here: no fault of the store, and none that passes."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def _may_pass(error: BaseException) -> bool:
    return not isinstance(error, FileNotFoundError | _CannotWrite)


def _copy(store: object, name: str, size: int, path: Path) -> None:
    """Write a copy of a file, as a whole or not at all."""
    source = store.open_input_file(name)  # type: ignore[attr-defined]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path, mode=0o600) as temporary, temporary.open("wb") as file:
            got = 0
            while got < size:
                piece = _read(source, min(PIECE, size - got))
                if not piece:
                    break
                got += len(piece)
                file.write(piece)
            if got != size:
                raise _ReadFailed(OSError(errno.EIO, f"{got} of {size} bytes came"))
    except OSError as error:
        raise _CannotWrite(error) from error
    except _ReadFailed as failed:
        raise failed.error from None
    finally:
        source.close()


class _ReadFailed(Exception):
    """A store's error while a copy is being written, told apart from one of this disk."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


def _read(source: object, size: int) -> bytes:
    try:
        return bytes(source.read(size))  # type: ignore[attr-defined]
    except store_errors() as error:
        raise _ReadFailed(error) from error


def _unwritable(folder: Path, error: OSError) -> SourceError:
    full = " free space there, or" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return SourceError(
        f"{folder}: copies of the lake's files cannot be written ({error.strerror or error});"
        f"{full} mend its permissions or set EVERGREEN_HOME to another disk"
    )


def remove_unused(folder: Path, most: int) -> int:
    """Remove copies that were not used for long, and the oldest where they are more than `most`.

    Returns the bytes that were removed. What another process removes meanwhile is passed over.
    """
    # Times of files are of this machine's clock, as is this: nothing is decided by it but what
    # has to be got again.
    now, removed, files = time.time(), 0, []
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except OSError:
            continue
        if path.is_dir() and not path.is_symlink():
            continue
        files.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in files)
    for used, size, path in sorted(files, key=lambda file: file[0]):
        hours = (now - used) / 3600
        if hours > KEPT_HOURS or (total > most and hours > IN_USE_HOURS):
            path.unlink(missing_ok=True)
            total, removed = total - size, removed + size
    return removed


def keep_copies(folder: Path, most: int) -> None:
    """Let this process keep copies of remote lakes in a folder, at most so many bytes of them."""
    _place[:] = [(folder, most)]


def copies_of(root: str) -> Copies:
    """Return the copies of a remote lake; where no folder was named, they are temporary files."""
    default = Path(tempfile.gettempdir()) / f"evergreen-lake-{os.getuid()}", 10 << 30
    return Copies(root, *(_place[0] if _place else default))


_place: list[tuple[Path, int]] = []
