"""Rollbacks that a node has carried out by itself, until the records hold them.

While the records cannot be reached, a person's rollback is a line in a file beside the node's
artefacts, on the disk before it is answered. It names the digest that it takes back, and outranks
the routing row on this node for that digest alone: a generation means nothing to whoever replays it
later, when another model may serve.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final, Literal

import msgspec

from include.deployment.rollback import Late
from include.files import written_aside

log = logging.getLogger(__name__)

_FORMAT: Final = 1


class _Content(msgspec.Struct):
    format: Literal[1]  # of another version nobody knows what it means
    entries: list[Late]


_decode = msgspec.json.Decoder(_Content).decode
_encode = msgspec.json.Encoder().encode


class Journal:
    """The file of one node; `path` is made with the first entry, and goes with the last.

    `damage` says that what was in it could not be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = ""
        self._entries = self._read()

    @property
    def entries(self) -> tuple[Late, ...]:
        """What is not in the records yet, in the order in which it was done."""
        return self._entries

    def digests(self, use_case: str) -> frozenset[str]:
        """Return the digests of a use case that this node does not serve, whatever its row says."""
        return frozenset(one.digest for one in self._entries if one.use_case == use_case)

    def add(self, entry: Late) -> None:
        """Keep an entry; it is on the disk when this returns.

        Raises:
            OSError: it cannot be written; nothing has changed.
        """
        self._write((*self._entries, entry))

    def remove(self, entry: Late) -> None:
        """Forget an entry that the records hold.

        Raises:
            OSError: the file cannot be written; the entry stays, and replaying it changes nothing.
        """
        self._write(tuple(one for one in self._entries if one != entry))

    def _write(self, entries: tuple[Late, ...]) -> None:
        with written_aside(self.path, mode=0o600, durable=True) as temporary:
            temporary.write_bytes(_encode(_Content(_FORMAT, list(entries))))
        self._entries = entries

    def _read(self) -> tuple[Late, ...]:
        try:
            return tuple(_decode(self.path.read_bytes()).entries)
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, RecursionError) as error:
            self.damage = (
                f"{self.path} cannot be read ({error}): rollbacks of the time without records may "
                "be lost; look at what serves, and roll back again"
            )
            log.error("%s", self.damage)
        # Put aside for a person: the next rollback is not to write over it.
        try:
            self.path.replace(self.path.with_suffix(".bad"))
        except OSError as error:
            log.error("%s cannot be put aside: %s", self.path, error)
        return ()
