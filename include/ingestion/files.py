"""Which files a source has for a partition: local ones within bounds, and remote ones fetched."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

from include.config.settings import Settings
from include.config.use_case import UseCase
from include.config.use_case_sources import Source
from include.errors import SourceError
from include.ingestion.file_reader import FileReader

MAX_FILES = 20_000
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


def partitioned(source: Source) -> bool:
    """Tell whether each partition of the source has files of its own."""
    return source.path is not None and "{partition}" in source.path


def files_of(
    name: str, use_case: UseCase, settings: Settings, key: str, reader: FileReader
) -> list[tuple[str, Path]]:
    """Return the files of a source, each with the name that is shown and kept, sorted by it."""
    pattern = (use_case.sources[name].path or "").replace("{partition}", key)
    where = f"{use_case.name}, source {name}: path {use_case.sources[name].path!r}"
    plain = pattern.removeprefix("{data_dir}/")
    if any(part == ".." for part in re.split(r"[/\\]", plain)) or re.search(
        r"[\\%\0{}~]|::", plain
    ):
        raise SourceError(
            f"{where} is refused: no '..', backslash, '%', '~', '::', NUL, or placeholder other "
            "than {partition}, {data_dir}"
        )
    if "://" in plain:
        return _remote(plain, where, reader)
    base = (settings.data_dir if plain != pattern else use_case.folder).resolve()
    if Path(plain).is_absolute() and not Path(plain).is_relative_to(base):
        raise SourceError(
            f"{where} is refused: it leaves {base}; put the data beside the YAML, or set "
            "EVERGREEN_DATA_DIR and write {data_dir}/ before it"
        )
    relative = str(Path(plain).relative_to(base)) if Path(plain).is_absolute() else plain
    if base.is_dir() and relative.endswith("/"):
        relative += "*"
    if (base / relative).is_dir():
        relative += "/*"
    found = sorted(base.glob(relative)) if base.is_dir() else []
    # What the path itself names is wanted, whatever it begins with.
    named = set(Path(relative).parts)
    found = [
        path
        for path in found
        if not any(_passed_over(part) for part in path.relative_to(base).parts if part not in named)
    ]
    if len(found) > MAX_FILES:
        raise SourceError(
            f"{where} matches {len(found)} files; at most {MAX_FILES} are read: use {{partition}} "
            "in the path"
        )
    for path in found:
        try:
            real = path.resolve(strict=True)
            mode = real.stat().st_mode
        except (OSError, RuntimeError) as error:
            raise SourceError(
                f"{path.relative_to(base)}: cannot be read ({error}); mend the link or the "
                "permissions"
            ) from None
        if not real.is_relative_to(base):
            raise SourceError(
                f"{path.relative_to(base)}: is a link that leaves {base}; put the file itself there"
            )
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise SourceError(
                f"{path.relative_to(base)}: is no regular file; remove it from the folder"
            )
        if not os.access(real, os.R_OK):
            raise SourceError(f"{path.relative_to(base)}: may not be read; mend its permissions")
    files = [(str(path.relative_to(base)), path) for path in found if path.is_file()]
    if not files and not partitioned(use_case.sources[name]):
        raise SourceError(
            f"{where} matches no file in {base}; put the file there, or mend the path"
        )
    return files


def _passed_over(part: str) -> bool:
    """Tell whether a file or folder is what a writer leaves beside its parts, such as
    `_SUCCESS`, `_delta_log` or `.crc`.
    """
    return part.startswith((".", "_"))


def _remote(pattern: str, where: str, reader: FileReader) -> list[tuple[str, Path]]:
    """Fetch the files of a URI into the reader's folder."""
    system, found = _offered(pattern, where)
    files = []
    try:
        for index, (shown, match, _) in enumerate(found):
            target = (
                reader.folder
                / f"remote-{index}-{re.sub(r'[^A-Za-z0-9._-]', '_', Path(match).name)}"
            )
            system.get_file(match, str(target))
            files.append((shown, target))
    except (OSError, ValueError) as error:
        raise _away(where, error) from None
    if not files and "{partition}" not in where:
        raise SourceError(f"{where} matches no file; check the address")
    return files


def _offered(pattern: str, where: str) -> tuple[Any, list[tuple[str, str, str]]]:
    """Return the file system of a URI, and of each file that it names the shown name, the path,
    and size with time.
    """
    import fsspec

    scheme = pattern.partition("://")[0]
    if scheme in _LOCAL_SCHEMES:
        raise SourceError(f"{where} is refused: write local files as a plain path beside the YAML")
    try:
        system, path = fsspec.core.url_to_fs(pattern)
        matches = (
            sorted(system.glob(path))
            if re.search(r"[*?\[]", path)
            else [path]
            if system.exists(path)
            else []
        )
        matches = [
            match
            for match in matches
            if match == path or not _passed_over(match.rsplit("/", 1)[-1])
        ]
        told = [(match, system.info(match)) for match in matches[: MAX_FILES + 1]]
    except (OSError, ValueError, ImportError) as error:
        raise _away(where, error) from None
    # Each system names the time of a file's last change otherwise; one that names none is told
    # apart by its size alone.
    times = ("mtime", "LastModified", "last_modified", "updated", "ETag", "etag", "created")
    return system, [
        (
            f"{scheme}://{match.lstrip('/')}",
            match,
            f"{info.get('size')}:{[str(info[name]) for name in times if name in info]}",
        )
        for match, info in told
    ]


def _away(where: str, error: Exception) -> SourceError:
    return SourceError(
        f"{where} cannot be reached ({type(error).__name__}: {error}); check the address and its "
        "credentials"
    )
