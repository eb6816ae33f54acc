"""Addresses of artefacts: what the records hold in place of a path of some machine.

    store:<kind>/<use case>/<digest>      what never changes: the digest of all its files names it
    store:<kind>/<use case>/<rest ...>    what is written anew: a partition's report, its scores

Where that is, the setting `EVERGREEN_STORE_URI` says: another mount point is no other address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from include.errors import ArtefactError

SCHEME = "store:"
BUNDLES, REFERENCES, BENTOS = "bundles", "references", "bentos"
# What never changes, each folder of which is named by its digest.
IMMUTABLE = (BUNDLES, REFERENCES, BENTOS)
REPORTS, VALIDATION = "reports", "validation"
# Of versions before: bundle and reference of a model under partition and digest.
MODELS = "models"
# What MLflow writes by itself, under names of its own.
MLFLOW = "mlartifacts"
# No part begins with a dot, so none is `..` or the name of a file that is being written.
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Address:
    """Where an artefact is, below the root of any store."""

    kind: str
    use_case: str
    rest: str

    def __post_init__(self) -> None:
        for part in (self.kind, self.use_case, *self.rest.split("/")):
            if not _PART.fullmatch(part):
                raise ArtefactError(
                    f"{SCHEME}{self.kind}/{self.use_case}/{self.rest} is no address of an "
                    f"artefact: {part!r} is no plain name"
                )

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Return the address that a record holds.

        Raises:
            ArtefactError: it is none.
        """
        parts = uri.removeprefix(SCHEME).split("/", 2)
        if not uri.startswith(SCHEME) or len(parts) < 3:
            raise ArtefactError(
                f"{uri!r} is no address of an artefact; write {SCHEME}KIND/USE_CASE/DIGEST"
            )
        return cls(*parts)

    def __str__(self) -> str:
        return SCHEME + self.path

    @property
    def path(self) -> str:
        """The path below the root of a store."""
        return f"{self.kind}/{self.use_case}/{self.rest}"

    @property
    def is_digest(self) -> bool:
        """Whether it names its content, and so can be verified and kept anywhere."""
        return self.kind in IMMUTABLE and _DIGEST.fullmatch(self.rest) is not None


def is_plain(name: str) -> bool:
    """Tell whether a name of a file in an artefact stays in it: no `..`, no absolute path."""
    return all(_PART.fullmatch(part) for part in name.split("/"))
