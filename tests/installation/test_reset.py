"""Forgetting a use case: everything of it and of nobody else, and not while it is at work."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from include.artefacts.store import ArtefactStore
from include.config.settings import Settings
from include.errors import Busy, ConfigError
from include.features.online_rows import pack
from include.features.online_stores import open_store
from include.installation import reset
from include.predictions.shared import SharedPlace
from include.records.records import Records
from tests.builders import redis_server
from tests.features.test_online_stores import SET

AT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def records(settings: Settings) -> Records:
    """Return records in which two use cases have a partition, and folders with a file each."""
    records = Records.open(settings.records_address)
    records.migrate()
    for name in ("shop", "shop_two"):
        records.partitions.raise_to(
            name, "2026-01-01", mode="live", target="data", actor="test", at=AT
        )
        for path in (
            settings.home / "lake" / name / "raw.parquet",
            settings.home / "reports" / name / "page.html",
            settings.home / "online" / f"{name}.db",
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * 2_000_000)
    return records


def test_all_of_one_use_case_goes_and_the_other_stays(settings: Settings, records: Records) -> None:
    state = reset.preview(settings, records, "shop")
    assert not state.empty
    assert ("records: partitions", "1 rows") in state.rows()
    assert (str(settings.home / "lake" / "shop"), "2.0 MB") in state.rows()
    reset.reset(settings, records, "shop", actor="test")
    assert reset.preview(settings, records, "shop").empty
    assert len(reset.preview(settings, records, "shop_two").rows()) == 4
    (entry,) = records.audit.entries("shop", action="use_case.reset", limit=5)
    assert entry.actor == "test"
    reset.reset(settings, records, "shop", actor="test")  # killed half-way, it can be run again


def test_a_link_is_removed_and_what_it_points_to_stays(
    settings: Settings, records: Records, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "keep").touch()
    link = settings.home / "models" / "shop"
    link.parent.mkdir()
    link.symlink_to(elsewhere)
    reset.reset(settings, records, "shop", actor="test")
    assert not link.is_symlink()
    assert (elsewhere / "keep").exists()


def test_a_use_case_at_work_is_left_alone(settings: Settings, records: Records) -> None:
    with (
        records.leases.claim(
            "shop", "ingest_data", "2026-01-01", owner="worker", attempt=1, ttl=30
        ),
        pytest.raises(Busy, match="shop is at work: worker"),
    ):
        reset.reset(settings, records, "shop", actor="test")
    assert (settings.home / "lake" / "shop").exists()


@pytest.mark.parametrize("name", ["../shop", "shop/..", "", "Shop", "shop\n", "."])
def test_what_is_no_name_never_becomes_a_path(
    settings: Settings, records: Records, name: str
) -> None:
    with pytest.raises(ConfigError, match="is no use case name"):
        reset.preview(settings, records, name)
    with pytest.raises(ConfigError, match="is no use case name"):
        reset.reset(settings, records, name, actor="test")


def test_rows_in_an_object_store_go_too(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", lake_uri=f"file://{tmp_path / 'store'}")
    settings.home.mkdir()
    records = Records.open(settings.records_address)
    records.migrate()
    table = tmp_path / "store" / "shop" / "raw"
    table.mkdir(parents=True)
    (table / "part").write_bytes(b"x" * 1_000_000)
    assert reset.preview(settings, records, "shop").folders == {
        f"file://{tmp_path / 'store'}/shop": 1.0
    }
    reset.reset(settings, records, "shop", actor="test")
    assert not (tmp_path / "store" / "shop").exists()


def test_online_rows_in_redis_go_too(settings: Settings, records: Records) -> None:
    with redis_server.prefix() as own:
        there = {"online_url": SecretStr(redis_server.URL), "online_prefix": own}
        settings = settings.model_copy(update=there)
        stores = [open_store(settings, name) for name in ("shop", "shop_two")]
        for store in stores:
            store.publish(SET, [pack(1, 1, [1])])
        reset.reset(settings, records, "shop", actor="test")
        assert [store.get("aaaa", 1) for store in stores] == [None, (1, [1])]
        for store in stores:
            store.close()


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_all_in_the_store_of_one_use_case_goes_and_the_other_s_stays(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    uri = f"{tmp_path}/store" if kind == "folder" else request.getfixturevalue("s3_store").uri
    settings = Settings(home=tmp_path / "home", store_uri=uri)
    records = Records.open(settings.records_address)
    records.migrate()
    store = ArtefactStore.of(settings)
    names = ("shop", "shop_two")
    bundles = [store.put("bundles", name, {"model.txt": name.encode()}) for name in names]
    for name, bundle in zip(names, bundles, strict=True):
        store.get(bundle)
        store.write(f"store:reports/{name}/2026-01-01/drift.html", "page")
        for path in (
            f"bentos/{name}_scorer/1/bento.yaml",
            f"exports/{name}_scorer-1.bento",
            f"receipts/{name}-1.json",
        ):
            (settings.home / "bento" / path).parent.mkdir(parents=True, exist_ok=True)
            (settings.home / "bento" / path).write_text(name)
        SharedPlace(settings.segments_root).write(name, "0001.closed", b"{}")
    assert any(uri in place for place in reset.preview(settings, records, "shop").folders)
    reset.reset(settings, records, "shop", actor="test")
    assert reset.preview(settings, records, "shop").empty
    assert [store.holds(each) for each in bundles] == [False, True]
    assert store.is_there("store:reports/shop_two/2026-01-01/drift.html")
    left = sorted(path.name for path in (settings.home / "bento").rglob("*") if path.is_file())
    assert left == ["bento.yaml", "shop_two-1.json", "shop_two_scorer-1.bento"]
    cache = settings.home / "cache" / "bundles"
    assert not (cache / "shop").exists()
    assert (cache / "shop_two").exists() is (kind == "s3")
    shipped = SharedPlace(settings.segments_root)
    assert [shipped._is_there(name) for name in names] == [False, True]
