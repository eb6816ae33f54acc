"""The packages that a node has unpacked from the store, and which of them can go.

Those of packaging have an export beside them, which a node does not unpack: by that the two are
told apart in a home that they share. What packaging has put in place is collected by the records
(`include.retention.packages`), in the home of the process that collects.
"""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
from collections.abc import Collection
from pathlib import Path

from include.config.names import NAME
from include.models.bento_sources import TAG, export_path, package_paths
from include.retention import aside

log = logging.getLogger(__name__)

YOUNG_SECONDS = 48 * 3600.0  # for so long what was unpacked stays, whatever needs it
MOST = 50  # packages that go at once; the others wait for the next time
_USE_CASE, _VERSION = f"(?P<use_case>{NAME.strip('^$')})", f"(?P<version>{TAG.pattern})"


def remove_unneeded(home: Path, needed: Collection[str], now: float) -> int:
    """Remove unpacked packages that are old and not among the `needed` tags; return how many.

    One that is wanted again is unpacked again. The process of a model runs a copy of its code, so
    it loses nothing. What cannot be removed is logged, and left for the next time.
    """
    removed = 0
    for use_case, version in sorted(_found(home)):
        if f"{use_case}_scorer:{version}" in needed or _is_of_packaging(home, use_case, version):
            continue
        try:
            if _is_old(home, use_case, version, now):
                _remove(home, use_case, version)
                removed += 1
        except OSError as error:
            log.warning("package %s of %s is not removed: %s", version, use_case, error)
        if removed == MOST:
            break
    if removed:
        log.info("%d unpacked packages that no model needs are removed", removed)
    return removed


def _found(home: Path) -> set[tuple[str, str]]:
    """Return use case and version of all packages, whole or not."""
    root, found = home / "bento", set[tuple[str, str]]()
    for part in package_paths(home, "USE_CASE", "VERSION"):
        name = part.relative_to(root).as_posix()
        pattern = re.escape(name).replace("USE_CASE", _USE_CASE).replace("VERSION", _VERSION)
        for path in root.glob("/".join("*" for _ in name.split("/"))):
            if (match := re.fullmatch(pattern, path.relative_to(root).as_posix())) is not None:
                found.add((match["use_case"], match["version"]))
    return found


def _is_of_packaging(home: Path, use_case: str, version: str) -> bool:
    """Tell whether it has an export, or had one until a collection that was killed put it aside."""
    export = export_path(home, use_case, version)
    return export.exists() or export.with_name(f"{aside.PREFIX}{export.name}").exists()


def _is_old(home: Path, use_case: str, version: str, now: float) -> bool:
    """Tell whether nothing of it was put in place lately.

    Raises:
        OSError: that cannot be read.
    """
    ages = []
    for path in package_paths(home, use_case, version):
        with contextlib.suppress(FileNotFoundError):
            ages.append(aside.age_of(path, now))
    return min(ages, default=0.0) > YOUNG_SECONDS


def _remove(home: Path, use_case: str, version: str) -> None:
    """Remove it at once for whoever looks; what a kill leaves in `staging` goes a day later.

    Raises:
        OSError: it cannot be removed.
    """
    staging = home / "bento" / "staging"
    staging.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=staging, prefix="unneeded-") as scratch:
        for number, path in enumerate(package_paths(home, use_case, version)):
            with contextlib.suppress(FileNotFoundError):
                path.rename(Path(scratch) / str(number))
