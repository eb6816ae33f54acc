"""What `ingest_data` leaves on record for later stages, by source."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from include.pipeline.outputs import Outputs


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
