"""Online rows beside the offline store's: equal when published, each difference found and named."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pyarrow.compute as pc
import pytest

from include.errors import Unavailable
from include.features.online_parity import compare, published
from tests.builders import compared
from tests.builders.shop import Shop


@pytest.fixture(scope="module")
def published_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compared.published_home(tmp_path_factory.mktemp("published"))


@pytest.fixture
def shop(published_home: Path, tmp_path: Path) -> Shop:
    """A copy of it."""
    shutil.copytree(published_home, tmp_path / "home")
    return Shop(tmp_path / "home")


def look(shop: Shop) -> tuple[list[bool], dict[str, int]]:
    described = published(shop.settings, "shop", shop.feature_set.version)
    assert described is not None
    found = compare(shop.settings, shop.lake, shop.records, shop.use_case, described)
    assert (found.partition, found.publication) == (shop.key(2), described.digest)
    return list(found.rows.values()), dict(found.differ)


def write_online(shop: Shop, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(shop.settings.home / "online" / "shop.db")) as con:
        assert con.execute(statement, values).rowcount == 1
        con.commit()


def first_row(shop: Shop) -> tuple[str, list[object]]:
    with closing(sqlite3.connect(shop.settings.home / "online" / "shop.db")) as con:
        entity, packed = con.execute('SELECT entity, "values" FROM rows LIMIT 1').fetchone()
    return entity, msgspec.msgpack.decode(packed)


def test_what_was_published_is_what_the_offline_store_answers(shop: Shop) -> None:
    same, differ = look(shop)
    assert len(same) >= 2
    assert all(same)
    assert differ == {}


def test_a_value_that_somebody_changed_is_found_and_named(shop: Shop) -> None:
    entity, values = first_row(shop)
    changed = msgspec.msgpack.encode([99, *values[1:]])
    write_online(shop, 'UPDATE rows SET "values" = ? WHERE entity = ?', changed, entity)
    same, differ = look(shop)
    assert same.count(False) == 1
    assert differ == {"orders_5d": 1}


def test_a_row_that_is_older_or_nobodys_offline_differs_too(shop: Shop) -> None:
    entity, _ = first_row(shop)
    write_online(shop, "UPDATE rows SET event_ts = event_ts - 1 WHERE entity = ?", entity)
    write_online(
        shop,
        "INSERT INTO rows SELECT feature_set, '4711', event_ts, \"values\" FROM rows "
        "WHERE entity = ?",
        entity,
    )
    _, differ = look(shop)
    assert differ == {"(event time)": 1, "(no row offline)": 1}


def test_a_partition_that_was_computed_anew_and_not_published_differs(shop: Shop) -> None:
    """Such as by a late row, before the night has published it."""
    view = next(one for one in shop.feature_set.views if one.name == "spending")
    rows = shop.lake.read(view.table("shop"), keys=[shop.key(2)])
    more = pc.add(rows.column("amount_5d"), 1.0)
    rows = rows.set_column(rows.column_names.index("amount_5d"), "amount_5d", more)
    shop.lake.replace(view.table("shop"), shop.key(2), rows.select(view.schema.names))
    same, differ = look(shop)
    assert False in same
    assert set(differ) == {"amount_5d"}


def test_nobody_compares_while_features_are_being_written(shop: Shop) -> None:
    with (
        shop.records.leases.claim(
            "shop", "materialize_features", shop.key(3), owner="x", attempt=1, ttl=30
        ),
        pytest.raises(Unavailable, match="materialize_features is at work"),
    ):
        look(shop)
    look(shop)


def test_nothing_online_is_nothing_to_compare(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    assert published(shop.settings, "shop", shop.feature_set.version) is None
