"""Look at a use case's log on the disk: how much waits there, since when, and how much is free."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from include.predictions.log import CLOSED, OPEN, SET_ASIDE, folder


class OnDisk(NamedTuple):
    """The segments that are not imported, in bytes, and the age of the oldest in seconds.

    `set_aside` is the number of lines that could not be read and lie there. Without a segment the
    age is 0.
    """

    segments: int
    bytes: int
    oldest: float
    set_aside: int


def look(home: Path, use_case: str, *, now: int) -> OnDisk:
    """Return what lies in the folder of a use case's segments; `now` is in ns since 1970."""
    segments = size = set_aside = 0
    oldest = now
    try:
        entries = list(os.scandir(folder(home, use_case)))
    except FileNotFoundError:
        entries = []
    for entry in entries:
        stem, suffix = os.path.splitext(entry.name)
        if suffix == SET_ASIDE:
            count = stem.rpartition(".")[2]
            set_aside += int(count) if count.isdigit() else 0
        elif suffix in (OPEN, CLOSED):
            try:
                size += entry.stat().st_size
            except FileNotFoundError:  # imported meanwhile
                continue
            segments += 1
            began = stem.partition("-")[0]
            oldest = min(oldest, int(began) if began.isdigit() else now)
    return OnDisk(segments, size, (now - oldest) / 1e9, set_aside)


def free_bytes(home: Path) -> int:
    """Return the bytes that this process may still write on the disk of a home folder."""
    disk = os.statvfs(home)
    return disk.f_bavail * disk.f_frsize
