"""Every asset, in flow order: what one DAG proves and the next one runs on.

A partition's key travels with the event.
"""

from __future__ import annotations

from typing import NamedTuple

from airflow.sdk import Asset

from include.pipeline.flow import ASSETS


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


def uri(use_case: str, name: str) -> str:
    """Return the address of an asset."""
    return f"evergreen://{use_case}/{name}"


def assets_of(use_case: str) -> Assets:
    """Return the assets of a use case."""
    return Assets(
        **{
            name: Asset(name=f"{use_case}.{name}", uri=uri(use_case, name), group="evergreen")
            for name in ASSETS
        }
    )
