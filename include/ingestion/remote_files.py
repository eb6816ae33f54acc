"""The files that a URI names in an object store, listed with size and time, and fetched whole.

A fetched file lies in the reader's folder, where its child process opens it like any other.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from include.errors import SourceError
from include.object_stores import explain, filesystem, store_errors

MAX_FILES = 20_000
AT_ONCE = 8  # files; each is written to disk in pieces while it comes
ATTEMPTS = 2  # of a file whose bytes were cut off; the libraries repeat each request themselves
_LOCAL_SCHEMES = (
    "file",
    "local",
    "dir",
    "zip",
    "tar",
    "simplecache",
    "filecache",
    "blockcache",
    "reference",
)
# Each system names the time of a file's last change otherwise; one that names none is told apart by
# its size alone.
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "ETag", "etag", "created")


class RemoteFile(NamedTuple):
    """A file behind a URI: its shown name, its path in its file system, size with time, bytes."""

    shown: str
    path: str
    stamp: str
    size: int | None


def is_passed_over(part: str) -> bool:
    """Tell whether a name is of what writers leave beside: `_SUCCESS`, `_delta_log`, `.crc`."""
    return part.startswith((".", "_"))


def list_remote_files(pattern: str, where: str) -> tuple[Any, list[RemoteFile]]:
    """Return the file system of a URI, and the files that it names; none is fetched.

    Raises:
        ConfigError: the library that speaks to such a store is not installed.
        SourceError: the address is a local one, does not answer, or names too many files.
    """
    scheme = pattern.partition("://")[0]
    if scheme in _LOCAL_SCHEMES:
        raise SourceError(f"{where} is refused: write local files as a plain path beside the YAML")
    try:
        system, path = filesystem(pattern)
        if re.search(r"[*?\[]", path):  # what makes a path a pattern, for fsspec too
            # One list gives size and time of all: to ask for each is a request a file.
            infos = dict(sorted(system.glob(path, detail=True).items()))
        else:
            infos = _info(system, path)
    except store_errors() as error:
        raise _unreachable(where, error) from None
    infos = {
        match: info
        for match, info in infos.items()
        if match == path or not is_passed_over(match.rsplit("/", 1)[-1])
    }
    if len(infos) > MAX_FILES:
        raise SourceError(
            f"{where} matches {len(infos)} files; at most {MAX_FILES} are read: use {{partition}} "
            "in the path"
        )
    return system, [
        RemoteFile(
            f"{scheme}://{match.lstrip('/')}",
            match,
            f"{info.get('size')}:{[str(info[name]) for name in _TIMES if name in info]}",
            info.get("size"),
        )
        for match, info in infos.items()
        if info.get("type", "file") == "file"
    ]


def _info(system: Any, path: str) -> dict[str, Any]:
    """Return what is known of the one file that a path names, by its path; nothing without it.

    Not by `exists`, which some systems answer with no where the store does not answer at all.
    """
    try:
        return {path: system.info(path)}
    except FileNotFoundError:
        return {}


def fetch(pattern: str, where: str, folder: Path) -> list[tuple[str, Path]]:
    """Fetch the files of a URI into a folder; return each by the name that is shown.

    Raises:
        SourceError: a file does not come as a whole, or has no room here.
    """
    system, remote = list_remote_files(pattern, where)
    targets = [_target(folder, index, file) for index, file in enumerate(remote)]
    try:
        _fetch_all(system, remote, targets)
    except store_errors() as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SourceError(
                f"{where}: {folder} has no room for the file; free space there, or set TMPDIR to "
                "another disk"
            ) from None
        raise _unreachable(where, error) from None
    return [(file.shown, target) for file, target in zip(remote, targets, strict=True)]


def _target(folder: Path, index: int, file: RemoteFile) -> Path:
    name = re.sub(r"[^A-Za-z0-9._-]", "_", Path(file.path).name)
    return folder / f"remote-{index}-{name}"


def _fetch_all(system: Any, remote: Sequence[RemoteFile], targets: Sequence[Path]) -> None:
    def get(file: RemoteFile, target: Path) -> None:
        for attempt in Retrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            reraise=True,
        ):
            with attempt:
                system.get_file(file.path, str(target))
                got = target.stat().st_size
                if file.size is not None and got != file.size:
                    # Cut off, or written again meanwhile: then the next run reads it as a whole.
                    raise ValueError(f"{got} of {file.size} bytes came of {file.shown}")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting = [
            pool.submit(get, file, target) for file, target in zip(remote, targets, strict=True)
        ]
        try:
            for future in waiting:
                future.result()
        finally:
            for future in waiting:
                future.cancel()


def _may_pass(error: BaseException) -> bool:
    """Tell whether an error may be gone in a moment: neither what is missing or forbidden is."""
    lasting = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    return (
        isinstance(error, store_errors())
        and not isinstance(error, FileNotFoundError | PermissionError)
        and getattr(error, "errno", None) not in lasting
    )


def _unreachable(where: str, error: Exception) -> SourceError:
    return SourceError(
        f"{where} cannot be reached ({type(error).__name__}: {explain(error)}); check the address "
        "and its credentials"
    )
