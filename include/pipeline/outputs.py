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


class FileHeader(msgspec.Struct, frozen=True, kw_only=True):
    """A header that files of a source had, with up to three of the files, and how many have it."""

    columns: list[str]
    files: list[str]
    count: int | UnsetType = UNSET


class WaitingRows(msgspec.Struct, frozen=True, kw_only=True):
    """The late rows that a partition's run saw and left, and the partitions that they belong to."""

    rows: int
    corrections: int
    partitions: list[str]
    sample: list[str]


class IngestedSource(msgspec.Struct, frozen=True, kw_only=True):
    """What `ingest_data` took of one source.

    `checksum` and `seen` are quick checksums: of the partition's own rows, and of what its source
    offered last. `compared` has those that the run compared row by row, by the partition that the
    rows belong to. `marks` are size and time of the partition's own files. `expected` is False
    where the partition lies outside the source's history.
    """

    checksum: str | UnsetType = UNSET
    corrections: int | UnsetType = UNSET
    compared: dict[str, str] | UnsetType = UNSET
    rows: int
    digest: str
    source_digest: str
    files: list[str]
    columns: list[FileHeader]
    late: int | UnsetType = UNSET
    early: int | UnsetType = UNSET
    arrival: str | UnsetType = UNSET
    marks: dict[str, str] | UnsetType = UNSET
    seen: str | UnsetType = UNSET
    waiting: WaitingRows | UnsetType = UNSET
    redriven: int | UnsetType = UNSET
    expected: bool | UnsetType = UNSET

    # Of a static source alone: the version, the partition from which on it is known, is the key
    # under which the lake keeps its rows.
    version: str | UnsetType = UNSET
    observed: str | UnsetType = UNSET
    pending: StaticVersion | UnsetType = UNSET
    restated: int | UnsetType = UNSET

    @property
    def is_expected(self) -> bool:
        """Tell whether the partition lies within the source's history."""
        return self.expected is UNSET or self.expected

    def stored_under(self, key: str) -> str:
        """Return the key under which the lake keeps the rows that partition `key` took."""
        return self.version or key


class StaticVersion(IngestedSource, frozen=True, kw_only=True):
    """What `ingest_data` took of a static source: one version, and `pending`, the next one."""

    version: str
    observed: str

    @classmethod
    def of(cls, source: IngestedSource) -> StaticVersion | None:
        """Return a source as the version that it is, or None where it is not static."""
        return cls(**msgspec.structs.asdict(source)) if source.version else None


class IngestOutputs(Outputs, frozen=True, kw_only=True):
    """What `ingest_data` leaves, by source."""

    sources: dict[str, IngestedSource] = {}


class CuratedSource(msgspec.Struct, frozen=True, kw_only=True):
    """What `validate_data` made of one source; rows set aside are counted by the rule they fail.

    `mark` is the digest of all that a static version's curated rows follow from, `profile` what the
    expectations are asked of: both are recorded of static sources alone.
    """

    table: str | UnsetType = UNSET
    curated_digest: str
    rows: int
    quarantined: int | UnsetType = UNSET
    duplicates: int | UnsetType = UNSET
    conflicts: int | UnsetType = UNSET
    repeated: int | UnsetType = UNSET
    sharing: int | UnsetType = UNSET
    rules: dict[str, int] | UnsetType = UNSET
    version: str | UnsetType = UNSET
    mark: str | UnsetType = UNSET
    profile: dict[str, int | float | None] | UnsetType = UNSET

    def stored_under(self, key: str) -> str:
        """Return the key under which the lake keeps the curated rows of partition `key`."""
        return self.version or key


class LabelTable(msgspec.Struct, frozen=True, kw_only=True):
    """A partition of the labels; `rules` is the digest of what a label is."""

    table: str | UnsetType = UNSET
    digest: str
    rows: int
    rules: str | UnsetType = UNSET


class ValidationOutputs(Outputs, frozen=True, kw_only=True):
    """What `validate_data` leaves; `rules` is the digest of all that judges raw rows.

    `report` is the folder with the result of the expectations.
    """

    verdict: str | UnsetType = UNSET
    sources: dict[str, CuratedSource] = {}
    labels: LabelTable | UnsetType = UNSET
    report: str | UnsetType = UNSET
    rules: str | UnsetType = UNSET


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
