"""Bounds on what a process that loads a model may take of the machine.

A hostile or damaged model must not take the memory of the node beside it, fill the disk, or use up
the open files. Set from outside, right after the start: no model is opened so early.
"""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

# Of address space. LightGBM, numpy and their threads map a gigabyte before any model is loaded; a
# bundle (a gigabyte at most) stands in memory as bytes, as text and as trees.
BASE_BYTES, BYTES_PER_BYTE, MOST_BYTES = 4 << 30, 16, 16 << 30
OPEN_FILES = 256


def bound_process(pid: int, bundle: str, *, cpu_seconds: int | None = None) -> None:
    """Bound memory, by the size of a bundle, open files, files written and core dumps of a process.

    `cpu_seconds` is for one that ends by itself. A process that has ended meanwhile, and a system
    without such bounds, are passed over.
    """
    set_limit = getattr(resource, "prlimit", None)  # Linux alone has it
    if set_limit is None:
        return
    with contextlib.suppress(OSError):
        size = sum(path.stat().st_size for path in Path(bundle).glob("*"))
        limits = {
            resource.RLIMIT_AS: min(MOST_BYTES, BASE_BYTES + BYTES_PER_BYTE * size),
            resource.RLIMIT_NOFILE: OPEN_FILES,
            resource.RLIMIT_FSIZE: 0,  # it has nothing to write but to pipes and its socket
            resource.RLIMIT_CORE: 0,
        }
        if cpu_seconds is not None:
            limits[resource.RLIMIT_CPU] = cpu_seconds
        for limit, most in limits.items():
            hard = set_limit(pid, limit)[1]
            bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
            set_limit(pid, limit, (bound, bound))
