"""What a store lists: an artefact, or what is left of one."""

from __future__ import annotations

from typing import NamedTuple

from include.artefacts.address import Address
from include.errors import ArtefactError


class Entry(NamedTuple):
    """Something in a store; `written` is when it was changed last, in seconds since 1970."""

    kind: str
    use_case: str
    name: str
    bytes: int
    written: float

    @property
    def uri(self) -> str | None:
        """Its address; None: it is none, such as what a killed writer has left."""
        try:
            return str(Address(self.kind, self.use_case, self.name))
        except ArtefactError:
            return None
