"""What `materialize_features` leaves on record for later stages: its tables."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from include.pipeline.outputs import Outputs


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
