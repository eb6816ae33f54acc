"""What `package_model` and `deploy_model` leave on record."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from include.pipeline.outputs import Outputs


class PackageOutputs(Outputs, frozen=True, kw_only=True):
    """What `package_model` leaves; empty where it was skipped.

    `bento_uri` is the address of the export with its receipt, `export` where people find them.
    """

    bento_tag: str | UnsetType = UNSET
    model_tag: str | UnsetType = UNSET
    bundle: str | UnsetType = UNSET
    pins: str | UnsetType = UNSET
    export: str | UnsetType = UNSET
    bento_uri: str | UnsetType = UNSET
    version: int | UnsetType = UNSET


class DeploymentOutputs(Outputs, frozen=True, kw_only=True):
    """What `deploy_model` leaves; `released` is the version that it released."""

    champion: int | UnsetType | None = UNSET
    generation: int | UnsetType = UNSET
    version: int | UnsetType = UNSET
    released: int | UnsetType = UNSET
