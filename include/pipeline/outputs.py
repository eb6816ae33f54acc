"""What each stage leaves on record for later ones: one frozen struct a stage.

A stage builds its struct and records `plain()` of it; whoever reads a result asks `of(result)`.
Fields that an earlier version did not record, or that only some partitions have, are `UNSET`:
they are left out of what is recorded, so a record is what it was. Unknown fields are passed over,
so an older version opens what a newer one wrote.
"""

from __future__ import annotations

from typing import Any, Protocol, Self

import msgspec
from msgspec import UNSET, UnsetType

from include.errors import ArtefactError


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
        try:
            return msgspec.convert(result.outputs, cls)
        except msgspec.ValidationError as error:
            raise ArtefactError(
                f"recorded outputs are none of {cls.__name__} ({error}); run the stage again"
            ) from error

    def plain(self) -> dict[str, Any]:
        """Return the outputs as they are recorded."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


class FeatureTable(msgspec.Struct, frozen=True, kw_only=True):
    """A partition of one view's table; `version` is that of the view's definition."""

    table: str
    version: str
    rows: int
    digest: str


class FeatureOutputs(Outputs, frozen=True, kw_only=True):
    """What `materialize_features` leaves: tables by feature set and view."""

    feature_sets: dict[str, dict[str, FeatureTable]] = {}
    current: str | UnsetType = UNSET
    not_computed: dict[str, str] | UnsetType = UNSET


class TrainingSet(msgspec.Struct, frozen=True, kw_only=True):
    """The exact rows of a training, at a version of the lake's table."""

    table: str
    digest: str
    table_version: int
    rows: int


class PackageOutputs(Outputs, frozen=True, kw_only=True):
    """What `package_model` leaves; empty where it was skipped."""

    bento_tag: str | UnsetType = UNSET
    model_tag: str | UnsetType = UNSET
    bundle: str | UnsetType = UNSET
    pins: str | UnsetType = UNSET
    export: str | UnsetType = UNSET
    version: int | UnsetType = UNSET


class DeploymentOutputs(Outputs, frozen=True, kw_only=True):
    """What `deploy_model` leaves; `released` is the version that it released."""

    champion: int | UnsetType | None = UNSET
    generation: int | UnsetType = UNSET
    version: int | UnsetType = UNSET
    released: int | UnsetType = UNSET
