"""Tell people how far a long copy is: a line every few seconds, and one at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
EVERY_SECONDS = 3.0


class Progress:
    """Counts things and their bytes; one writer."""

    def __init__(self, what: str, say: Callable[[str], object]) -> None:
        self._what, self._say = what, say
        self._count = self._bytes = 0
        self._next = time.monotonic() + EVERY_SECONDS

    def add(self, size: int = 0) -> None:
        """Count one thing more."""
        self._count, self._bytes = self._count + 1, self._bytes + size
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY_SECONDS
            self._say(f"  {self} so far")

    def through(self, things: Iterable[T]) -> Iterator[T]:
        """Count what goes through."""
        for thing in things:
            self.add()
            yield thing

    def end(self, *, quiet: bool = False) -> None:
        """Say how many there were."""
        if not quiet:
            self._say(str(self))

    def __str__(self) -> str:
        size = f", {self._bytes / 1e6:.1f} MB" if self._bytes else ""
        return f"{self._count} {self._what}{size}"
