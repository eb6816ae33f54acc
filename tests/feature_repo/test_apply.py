"""`feast` from the command line: every use case is defined, and what is online is kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from include.config.settings import ROOT
from include.features.feast_registry import apply_registry, is_applied, service_name, store
from include.features.online_reader import OnlineReader
from tests.builders.shop import T0, YAML, Shop

BY_HAND = """
from datetime import timedelta
from feast import FeatureView, Field, FileSource
from feast.types import Int64
from definitions import shop__customer

visits_by_hand = FeatureView(
    name="visits_by_hand", entities=[shop__customer], ttl=timedelta(days=2),
        schema=[Field(name="pages", dtype=Int64)],
    source=FileSource(name="visits_by_hand", path="shop/curated/visits",
        timestamp_field="event_timestamp",
                      created_timestamp_column="created_timestamp"),
    description="Visits, straight from the curated table.", owner="somebody",
        tags={"made": "by hand"},
)
"""


def environment(**settings: str) -> dict[str, str]:
    """Return a child's environment: ours with the given settings alone, our code importable."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("EVERGREEN_")
    } | settings
    # not made by `make install`.
    if not (Path(sysconfig.get_path("purelib")) / "evergreen.pth").exists():
        clean["PYTHONPATH"] = str(ROOT)
    return clean


def feast(folder: Path, *words: str, **settings: str) -> str:
    """Run `feast` in a folder and return what it prints."""
    command = [str(Path(sys.executable).with_name("feast")), *words]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A use case by YAML alone that went live."""
    made = Shop(tmp_path_factory.mktemp("shop"), YAML + "online: {feast: true}\n")
    made.arrive(0, [(1, 1, 10.0, T0, T0)], [(1, 10, "a", T0, T0), (2, 20, "b", T0, T0)])
    made.run(0, "live")
    return made


def answers(shop: Shop) -> Any:
    opened = store(shop.settings)
    service = opened.get_feature_service(service_name("shop"))
    online = opened.get_online_features(
        service, [{"customer_id": one} for one in (1, 2, 3)]
    ).to_dict()
    packed = OnlineReader(shop.settings.home / "online" / "shop.db")
    return online, [packed.get(shop.feature_set.version, one) for one in (1, 2, 3)]


@pytest.mark.slow
def test_apply_by_hand_keeps_what_is_online_and_views_by_hand_stand_beside(
    shop: Shop, tmp_path: Path
) -> None:
    before = answers(shop)
    assert before[0]["pages"] == [10, 20, None]
    repo = tmp_path / "feature_repo"
    shutil.copytree(ROOT / "feature_repo", repo, ignore=shutil.ignore_patterns("__pycache__"))
    (repo / "by_hand.py").write_text(BY_HAND)
    settings = {
        "EVERGREEN_HOME": str(shop.settings.home),
        "EVERGREEN_USECASES": shop.settings.usecases,
    }
    printed = feast(repo, "apply", **settings)
    assert "visits_by_hand" in printed
    assert answers(shop) == before
    assert is_applied(shop.settings, shop.use_case, shop.feature_set)
    assert (
        sorted(path.name for path in repo.iterdir() if path.suffix == ".db" or path.name == "data")
        == []
    )

    opened = store(shop.settings)
    views = {view.name: view for view in opened.list_feature_views()}
    assert sorted(views) == ["shop__spending", "shop__visit", "visits_by_hand"]
    assert views["shop__visit"].tags["view_version"] == shop.feature_set.views[1].version
    for view in views.values():
        assert view.ttl
        assert view.ttl.total_seconds() > 0
        assert view.description
        assert view.owner
        assert view.tags
    assert opened.list_on_demand_feature_views() == opened.list_stream_feature_views() == []

    listed = feast(ROOT / "feature_repo", "feature-services", "list", **settings)
    assert "shop__features" in listed

    shop.define((shop.folder / "shop.yaml").read_text().replace("sum(amount)", "min(amount)"))
    assert apply_registry(shop.settings, shop.records, shop.use_case, shop.feature_set)
    assert {view.name for view in store(shop.settings).list_feature_views()} == set(views)


def test_without_settings_state_lies_under_the_default_home() -> None:
    code = (
        "from pathlib import Path; from feast.repo_config import load_repo_config;config = "
        "load_repo_config(Path('.'), Path('feature_store.yaml'));from "
        "include.features.feast_online_store import HomeRegistryStore, "
        "HomeSqliteOnlineStore;print(HomeSqliteOnlineStore._get_db_path(config), "
        "HomeRegistryStore(config.registry, Path('.'))._filepath)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command,
        cwd=ROOT / "feature_repo",
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.split() == [
        str(ROOT / "var" / "feast" / name) for name in ("online.db", "registry.db")
    ]
