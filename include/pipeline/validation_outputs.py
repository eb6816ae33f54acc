"""What `validate_data` leaves on record for later stages: curated rows, and labels."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from include.pipeline.outputs import Outputs


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

    `report` is the folder with the result of the expectations, `report_uri` its address in the
    store.
    """

    verdict: str | UnsetType = UNSET
    sources: dict[str, CuratedSource] = {}
    labels: LabelTable | UnsetType = UNSET
    report: str | UnsetType = UNSET
    report_uri: str | UnsetType = UNSET
    rules: str | UnsetType = UNSET
