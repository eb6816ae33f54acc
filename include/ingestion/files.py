"""The files that a source has for a partition: local ones within bounds, remote ones fetched."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from include.config.settings import Settings
from include.config.use_case import UseCase
from include.config.use_case_sources import Source
from include.errors import SourceError
from include.ingestion.file_reader import FileReader
from include.ingestion.remote_files import MAX_FILES, fetch, is_passed_over


def has_partition_files(source: Source) -> bool:
    """Tell whether each partition of the source has files of its own."""
    return source.path is not None and "{partition}" in source.path


def files_of(
    name: str, use_case: UseCase, settings: Settings, key: str, reader: FileReader
) -> list[tuple[str, Path]]:
    """Return the files of a source, each with the name that is shown and kept, sorted by it.

    Raises:
        SourceError: the path is refused or leaves its folder, or matches no file or too many.
    """
    pattern = (use_case.sources[name].path or "").replace("{partition}", key)
    where = describe_path(name, use_case)
    plain = pattern.removeprefix("{data_dir}/")
    # A backslash or `..` could leave the folder, `~` and `%` are expanded by some file systems,
    # `::` chains them in fsspec, and a brace left over is a misspelt placeholder.
    if any(part == ".." for part in re.split(r"[/\\]", plain)) or re.search(
        r"[\\%\0{}~]|::", plain
    ):
        raise SourceError(
            f"{where} is refused: no '..', backslash, '%', '~', '::', NUL, or placeholder other "
            "than {partition}, {data_dir}"
        )
    if "://" in plain:
        return _fetch(plain, where, reader)
    base = (settings.data_dir if plain != pattern else use_case.folder).resolve()
    paths = _matches(base, plain, where)
    for path in paths:
        _check(base, path)
    files = [(str(path.relative_to(base)), path) for path in paths if path.is_file()]
    if not files and not has_partition_files(use_case.sources[name]):
        raise SourceError(
            f"{where} matches no file in {base}; put the file there, or mend the path"
        )
    return files


def describe_path(name: str, use_case: UseCase) -> str:
    """Return the words that name a source and its path in messages."""
    return f"{use_case.name}, source {name}: path {use_case.sources[name].path!r}"


def _matches(base: Path, pattern: str, where: str) -> list[Path]:
    """Return what a pattern names in a folder, sorted, without what writers leave beside."""
    if Path(pattern).is_absolute() and not Path(pattern).is_relative_to(base):
        raise SourceError(
            f"{where} is refused: it leaves {base}; put the data beside the YAML, or set "
            "EVERGREEN_DATA_DIR and write {data_dir}/ before it"
        )
    relative = str(Path(pattern).relative_to(base)) if Path(pattern).is_absolute() else pattern
    if base.is_dir() and relative.endswith("/"):
        relative += "*"
    if (base / relative).is_dir():
        relative += "/*"
    # What the path itself names is wanted, whatever it begins with.
    spelled_out = set(Path(relative).parts)
    paths = [
        path
        for path in (sorted(base.glob(relative)) if base.is_dir() else [])
        if not any(
            is_passed_over(part) for part in path.relative_to(base).parts if part not in spelled_out
        )
    ]
    if len(paths) > MAX_FILES:
        raise SourceError(
            f"{where} matches {len(paths)} files; at most {MAX_FILES} are read: use {{partition}} "
            "in the path"
        )
    return paths


def _check(base: Path, path: Path) -> None:
    """Refuse a path that leaves its folder by a link, cannot be read, or is no regular file."""
    shown = path.relative_to(base)
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError) as error:
        raise SourceError(
            f"{shown}: cannot be read ({error}); mend the link or the permissions"
        ) from None
    if not real.is_relative_to(base):
        raise SourceError(f"{shown}: is a link that leaves {base}; put the file itself there")
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise SourceError(f"{shown}: is no regular file; remove it from the folder")
    if not os.access(real, os.R_OK):
        raise SourceError(f"{shown}: may not be read; mend its permissions")


def _fetch(pattern: str, where: str, reader: FileReader) -> list[tuple[str, Path]]:
    """Fetch the files of a URI into the reader's folder."""
    files = fetch(pattern, where, reader.folder)
    if not files and "{partition}" not in where:
        raise SourceError(f"{where} matches no file; check the address")
    return files
