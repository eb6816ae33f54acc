"""A release in its steps of a use case whose features and labels were really made."""

from __future__ import annotations

from pathlib import Path

from include.deployment.release_plan import ReleasePlan
from include.records.records import Model, Release
from tests.builders.releases import AT, entry, sign_model
from tests.builders.shop import Shop, run_days


def published_home(home: Path) -> Path:
    """Make a home with three days that are computed, of which the last is online."""
    made = Shop(home)
    run_days(made, 3)
    made.run(2, "live")
    made.records.close()
    return home


def begin(shop: Shop, *, champions_set: str | None = None) -> Release:
    """Have model 1 as champion and model 2 of the current features in its shadow step."""
    features = shop.feature_set.version
    for version, of in ((1, champions_set or features), (2, features)):
        shop.records.models.add(
            Model(
                use_case="shop", version=version, model_digest=f"sha256:{version}",
                partition=shop.key(version), as_of=AT, mode="live", feature_set=of, bundle="",
                state="challenger",
            )
        )  # fmt: skip
    shop.records.routes.change("shop", set={"champion": 1}, entry=entry())
    sign_model(shop.settings, shop.records, 2)
    model = shop.records.models.get("shop", 2)
    assert model is not None
    release = shop.records.releases.request(
        "shop",
        partition=shop.key(2),
        model=model,
        opponent=1,
        judged_generation=1,
        plan=ReleasePlan.of(shop.use_case).plain(),
        description=None,
        entry=entry(),
    )
    return shop.records.releases.begin(release, entry())
