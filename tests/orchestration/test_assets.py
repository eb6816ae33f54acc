"""The assets of a use case, by the names that the flow gives them."""

from __future__ import annotations

from include.orchestration.assets import Assets, assets_of
from include.pipeline.flow import ASSETS


def test_every_asset_of_the_flow_has_one_address_a_use_case() -> None:
    assets = assets_of("shop")
    assert Assets._fields == (*list(ASSETS)[:5], "bento", "champion", "drift")
    assert [asset.uri for asset in assets] == [f"evergreen://shop/{name}" for name in ASSETS]
    assert assets.raw.name == "shop.raw"
    assert not set(assets_of("shopping")) & set(assets)
