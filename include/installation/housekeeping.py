"""What a running installation keeps small by itself, and what it says of its size.

Airflow rotates and removes no log of a task or a DAG file: the oldest go here, once all together
are too large. How much each part of the home folder takes is written to `run/sizes.json`, where the
node reads it for its metrics: walking over a lake would hold up its answers.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from include.config.settings import Settings
from include.files import write_text
from include.retention.left_behind import plain_files, remove_left_behind, sizes_file

EVERY_SECONDS = 600.0
YOUNG_SECONDS = 3600.0  # a log that was written to so lately may be of a task that runs


def keep_house(settings: Settings, now: float) -> None:
    """Remove the oldest task logs above their bound and what killed processes left, and measure.

    `now` is in seconds since 1970, as the times of files are.

    Raises:
        OSError: a file cannot be removed or written.
    """
    remove_oldest(settings.task_log_folder, round(settings.task_log_megabytes * 1e6), now)
    remove_left_behind(settings.home, now)
    write_text(sizes_file(settings.home), json.dumps(measure(settings.home)))


def remove_oldest(folder: Path, max_bytes: int, now: float) -> int:
    """Remove the files that were written to longest ago, until the rest fits; return how many.

    Files of the last hour stay, however large, and so do links. Folders that are empty then go too.

    Raises:
        OSError: a file cannot be removed.
    """
    files = sorted((status.st_mtime, status.st_size, path) for path, status in plain_files(folder))
    size, removed = sum(size for _, size, _ in files), 0
    for modified, bytes_of_file, path in files:
        if size <= max_bytes or now - modified < YOUNG_SECONDS:
            break
        path.unlink(missing_ok=True)
        removed, size = removed + 1, size - bytes_of_file
        for parent in path.parents:
            if parent == folder or not parent.is_relative_to(folder):
                break
            try:
                parent.rmdir()
            except OSError:  # it holds more
                break
    return removed


def measure(home: Path) -> dict[str, int]:
    """Return the bytes of each folder and database of a home folder, and what is free there.

    What is removed meanwhile is not counted.
    """
    sizes: dict[str, int] = {}
    for entry in sorted(home.iterdir()):
        if entry.is_symlink():
            continue
        # A database and what SQLite keeps beside it are one.
        name = entry.name.removesuffix("-wal").removesuffix("-shm")
        size = sum(status.st_size for _, status in plain_files(entry))
        sizes[name] = sizes.get(name, 0) + size
    space = os.statvfs(home)
    return {**sizes, "free": space.f_bavail * space.f_frsize}
