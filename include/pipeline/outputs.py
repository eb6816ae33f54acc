"""What each stage leaves on record for later ones: one frozen struct a stage.

A stage builds its struct and records `plain()` of it; whoever reads a result asks `of(result)`.
Fields that an earlier version did not record, or that only some partitions have, are `UNSET`:
they are left out of what is recorded, so a record is what it was. Unknown fields are passed over,
so an older version opens what a newer one wrote.
"""

from __future__ import annotations

from typing import Any, Protocol, Self, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from include.errors import ArtefactError

T = TypeVar("T")


def optional(value: T | UnsetType | None) -> T | None:
    """Return a value; None: it was not recorded."""
    return None if value is UNSET else value


class Recorded(Protocol):
    """A result on record, or an outcome that is about to be."""

    @property
    def outputs(self) -> Any: ...


class Outputs(msgspec.Struct, frozen=True, kw_only=True):
    """The outputs of a stage."""

    @classmethod
    def of(cls, result: Recorded) -> Self:
        """Return a result's outputs.

        Raises:
            ArtefactError: what is recorded has another form; the stage must be run again.
        """
        return cls._read(result.outputs)

    @classmethod
    def _read(cls, recorded: Any) -> Self:
        try:
            return msgspec.convert(recorded, cls)
        except msgspec.ValidationError as error:
            raise ArtefactError(
                f"recorded outputs are none of {cls.__name__} ({error}); run the stage again"
            ) from error

    def plain(self) -> dict[str, Any]:
        """Return the outputs as they are recorded."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain
