"""Ports of the loopback for servers that a test starts."""

from __future__ import annotations

import os
import random
import socket
from collections import deque

# Below what the kernel gives to outgoing connections, which could take a port meanwhile.
FIRST, LAST = 20_000, 30_000
# Between the moment at which a port is found and the one at which it is bound nothing shows that it
# is taken. So each worker of pytest-xdist has ports of its own, and gives none twice in a row.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
_given: deque[int] = deque(maxlen=500)


def free_ports(number: int) -> list[int]:
    """Return so many different ports that nobody holds."""
    found: list[int] = []
    mine = [port for port in range(FIRST + WORKER, LAST, WORKERS) if port not in _given]
    for port in random.sample(mine, min(50 + number, len(mine))):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == number:
            _given.extend(found)
            return found
    raise AssertionError(f"no {number} free ports between {FIRST} and {LAST}")


def free_port() -> int:
    """Return a port that nobody holds."""
    return free_ports(1)[0]
