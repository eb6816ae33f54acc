"""Whether the folder of public keys has changed since a running node has read it last."""

from __future__ import annotations

import logging
from pathlib import Path

from include.errors import ConfigError
from include.models.public_keys import KeyRing, read_keys

log = logging.getLogger(__name__)


class KeySource:
    """Looks at the folder and reads it; apart from the event loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: tuple[tuple[object, ...], ...] | None = None

    def news(self) -> KeyRing | ConfigError | None:
        """Return the keys if anything in their folder has changed, or why they cannot be read.

        Then nothing new is loaded, and what is loaded goes on: only what can be read revokes.
        """
        seen = self._look()
        if seen == self._seen:
            return None
        self._seen = seen
        try:
            return read_keys(self._folder)
        except ConfigError as error:
            log.error("nothing is loaded by the public keys: %s", error)
            return error

    def _look(self) -> tuple[tuple[object, ...], ...]:
        try:
            paths = sorted(self._folder.iterdir())
        except OSError as error:
            return ((error.errno,),)
        found = list[tuple[object, ...]]()
        for path in paths:
            try:
                state = path.stat()
            except OSError as error:
                found.append((path.name, error.errno))
                continue
            # Of a change of its rights too: a file that could not be read may be now.
            found.append((path.name, state.st_ino, state.st_size, state.st_ctime_ns))
        return tuple(found)
