"""List the assets in flow order: what one DAG proves and the next one runs on.

A partition's key travels with the event.
"""

from __future__ import annotations

from typing import NamedTuple

from airflow.sdk import Asset

from include.pipeline.flow import ASSETS, RELEASE_ENDED, asset_uri


class Assets(NamedTuple):
    """The assets of one use case."""

    raw: Asset
    curated: Asset
    features: Asset
    candidate: Asset
    judged: Asset
    bento: Asset
    champion: Asset
    drift: Asset


def assets_of(use_case: str) -> Assets:
    """Return the assets of a use case."""
    return Assets(
        **{
            name: Asset(name=f"{use_case}.{name}", uri=asset_uri(use_case, name), group="evergreen")
            for name in ASSETS
        }
    )


def ended_asset(use_case: str) -> Asset:
    """Return the asset whose event says how a release ended; `announcing` emits it."""
    name, uri = f"{use_case}.{RELEASE_ENDED}", asset_uri(use_case, RELEASE_ENDED)
    return Asset(name=name, uri=uri, group="evergreen")
