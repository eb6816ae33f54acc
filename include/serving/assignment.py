"""Which arm of a release a request is meant for: told by its entity, by a secret of the release.

An entity has a place between 0 and 9999 for as long as a release lasts, and belongs to the
challenger where its place is below the share. So it stays with its arm from request to request and
from node to node, a larger share only adds entities, and the next release, whose secret is another
one, asks others first. Without the secret nobody can choose an arm by choosing a key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from typing import Literal

Arm = Literal["champion", "challenger"]
WHOLE = 10_000  # a share of everything, in basis points
MAX_KNOWN = 65_536  # places that are kept; beyond, all are forgotten and counted anew
# The same secret tells other things by other purposes: who is in a share, or a pair, by one is no
# likelier to be in another.
ARMS, PAIRS = b"evergreen arm", b"evergreen pairs"


class Assignment:
    """The places of one release; belongs to the event loop.

    Places are kept in `known`: to hash a key takes ten times as long as to look it up, and who asks
    at each request looks there first, as a call of `place` costs more than that.
    """

    __slots__ = ("_empty", "_excluded", "_name_of", "known")

    def __init__(
        self,
        key: bytes,
        exclude: Collection[object] = (),
        name_of: Callable[[str], str] | None = None,
        purpose: bytes = ARMS,
    ) -> None:
        """Build it.

        `key` is the release's secret, at most 64 bytes; the entities in `exclude` always belong to
        the champion. `name_of` is by what some of them are named there, if not by their keys.
        Places of one `purpose` say nothing of those of another.
        """
        self._empty = hashlib.blake2b(key=key, person=purpose, digest_size=8)
        self._name_of = name_of
        self._excluded = frozenset(str(entity) for entity in exclude)
        self.known: dict[object, int] = {}

    def place(self, entity: int | str) -> int:
        """Return the place of an entity; of one that is excluded, one behind every share."""
        place = self.known.get(entity)
        if place is None:
            text = str(entity)
            is_out = self._is_excluded(text)
            place = WHOLE if is_out else self._hashed(text.encode("utf-8", _KEEP))
            if len(self.known) >= MAX_KNOWN:
                self.known.clear()
            self.known[entity] = place
        return place

    def _is_excluded(self, text: str) -> bool:
        if not self._excluded:
            return False
        return text in self._excluded or (
            self._name_of is not None and self._name_of(text) in self._excluded
        )

    def place_of_row(self, content: bytes) -> int:
        """Return the place of a row without an entity, by its bytes as they came."""
        # A mark before, so that a row is never taken for the entity of the same text.
        return self._hashed(b"\0" + content)

    def _hashed(self, text: bytes) -> int:
        state = self._empty.copy()  # the key is in it already
        state.update(text)
        # Of 64 bits: the rest of the division is even to a part in 10 to the 15.
        return int.from_bytes(state.digest(), "little") % WHOLE


_KEEP = "surrogatepass"  # JSON can hold half a pair, which UTF-8 cannot


def arm_of(key: bytes, entity: int | str, share: int, exclude: Collection[object] = ()) -> Arm:
    """Return the arm of an entity at a share, in basis points, of the release with this secret."""
    return "challenger" if Assignment(key, exclude).place(entity) < share else "champion"
