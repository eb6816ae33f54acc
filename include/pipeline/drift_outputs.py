"""What `check_drift` leaves on record: verdict and stability of each feature."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from include.pipeline.outputs import Outputs


class ComparedWith(msgspec.Struct, frozen=True, kw_only=True):
    """What drift is measured against: an opponent's sample, or (without a version) a partition."""

    kind: Literal["opponent", "before"]
    partition: str
    version: int | None = None


class FeatureStability(msgspec.Struct, frozen=True, kw_only=True):
    """The stability index of a feature; None where it cannot be computed, and `note` says why.

    `reference_missing`, `current_missing` and `unseen` (values that the reference never showed)
    are shares of the rows.
    """

    psi: float | None
    bins: int = 0
    reference_missing: float | None = None
    current_missing: float | None = None
    unseen: float = 0.0
    note: str = ""


class ComparedRows(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a view on both sides; `lost` is the share of entities that left it since."""

    reference: int
    current: int
    lost: float | None = None


class DriftOutputs(Outputs, frozen=True, kw_only=True):
    """What `check_drift` leaves: the index of each feature, held against one `limit`.

    `error` is set where something could not be read. `report` is where people find the report,
    `report_uri` its address in the store: None where none could be written.
    """

    verdict: Literal["pass", "drift", "hold"] = "hold"
    reasons: list[str] = []
    error: str | UnsetType = UNSET
    reference: ComparedWith | None = None
    limit: float
    features: dict[str, FeatureStability] = {}
    views: dict[str, ComparedRows] | UnsetType = UNSET
    report: str | UnsetType | None = UNSET
    report_uri: str | UnsetType | None = UNSET
