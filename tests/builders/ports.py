"""Ports of the loopback for servers that a test starts."""

from __future__ import annotations

import random
import socket

# Below what the kernel gives to outgoing connections, which could take a port meanwhile.
FIRST, LAST = 20_000, 30_000


def free_ports(number: int) -> list[int]:
    """Return so many different ports that nobody holds."""
    found: list[int] = []
    for port in random.sample(range(FIRST, LAST), 50 + number):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == number:
            return found
    raise AssertionError(f"no {number} free ports between {FIRST} and {LAST}")


def free_port() -> int:
    """Return a port that nobody holds."""
    return free_ports(1)[0]
