"""Feast's registry in PostgreSQL, beside the records: written as the workers' role."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url, text

from include.config.settings import Settings
from include.config.use_case_file import find
from include.errors import Unavailable
from include.features import feast_tables
from include.features.feast_registry import apply_registry, is_applied, online_path, store
from include.features.feature_sets import current
from include.records.database import Database
from tests.builders.postgres_roles import Place, prepared_place
from tests.builders.shop import YAML, Shop, arrive_week

WITH_FEAST = YAML + "online: {feast: true}\n"


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with prepared_place() as made:
        feast_tables.migrate(make_url(made.owner), worker=f"{made.prefix}_worker")
        yield made


@pytest.fixture
def shop(place: Place, tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path / "one", records_url=SecretStr(place.worker))
    yield made
    made.records.forget("shop")
    owner = Database(feast_tables.address(make_url(place.owner)))
    with owner.transaction() as session:
        listed = "SELECT tablename FROM pg_tables WHERE schemaname = 'feast'"
        for table in session.scalars(text(listed)).all():
            session.execute(text(f"DELETE FROM {table}"))
    owner.close()
    made.records.close()


def apply(shop: Shop) -> bool:
    return apply_registry(shop.settings, shop.records, shop.use_case, shop.feature_set)


def applied(shop: Shop) -> bool:
    return is_applied(shop.settings, shop.use_case, shop.feature_set)


def test_definitions_are_applied_once_for_all_machines(shop: Shop, tmp_path: Path) -> None:
    assert not applied(shop)
    assert [apply(shop), apply(shop)] == [True, False]
    other = Shop(tmp_path / "other", records_url=shop.settings.records_url)
    assert applied(other), "another machine, with a home of its own, sees them"
    assert not apply(other)
    assert not list(tmp_path.glob("*/feast/registry.db")), "and no file has them"
    shop.define(YAML.replace("What a customer spent.", "Other words."))
    assert not applied(shop)
    assert apply(shop)
    described = store(other.settings).get_feature_view("shop__spending").description
    assert described == "Other words."


def test_a_view_that_a_use_case_no_longer_has_leaves_the_registry(shop: Shop) -> None:
    apply(shop)
    words = (shop.folder / "shop.yaml").read_text()
    shop.define(words[: words.index("  visit:")])
    apply(shop)
    assert [view.name for view in store(shop.settings).list_feature_views()] == ["shop__spending"]
    shop.define(words)
    assert apply(shop), "and comes back with its name"
    assert len(store(shop.settings).list_feature_views()) == 2


def test_two_writers_at_once_leave_what_both_wrote(shop: Shop, tmp_path: Path) -> None:
    other = Shop(tmp_path / "two", YAML, records_url=shop.settings.records_url)
    text_of_other = YAML.replace("name: shop", "name: stall")
    (other.folder / "shop.yaml").unlink()
    (other.folder / "stall.yaml").write_text(text_of_other)
    stall = find("stall", other.settings.usecase_dirs)
    done: list[bool] = []
    writers = [
        threading.Thread(target=lambda: done.append(apply(shop))),
        threading.Thread(
            target=lambda: done.append(
                apply_registry(other.settings, other.records, stall, current(stall))
            )
        ),
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert done == [True, True]
    names = {view.name for view in store(shop.settings).list_feature_views()}
    assert names == {"shop__spending", "shop__visit", "stall__spending", "stall__visit"}


def test_another_machine_mirrors_what_was_registered_here(shop: Shop, tmp_path: Path) -> None:
    """Feast's online table is a file of each machine's own: of who ran the last partition."""
    shop.define(WITH_FEAST)
    arrive_week(shop, 3)
    version = shop.feature_set.version
    shop.run(0)
    assert shop.run(1, "live").effects[version]["feast"] == "written"
    other = Shop(
        tmp_path / "other",
        WITH_FEAST,
        records_url=shop.settings.records_url,
        lake_uri=shop.settings.lake_root,
    )
    assert not online_path(other.settings).exists()
    assert other.run(2, "live").effects[version]["feast"] == "written"
    opened = store(other.settings)
    answer = opened.get_online_features(
        opened.get_feature_service("shop__features"), [{"customer_id": 1}]
    ).to_dict()
    assert answer["pages"] == [3]


def test_a_role_that_may_not_make_the_tables_is_told_who_does(tmp_path: Path) -> None:
    with prepared_place() as bare:
        settings = Settings(home=tmp_path, records_url=SecretStr(bare.worker))
        with pytest.raises(Unavailable, match="`evergreen migrate` as the owner"):
            store(settings)


def test_a_database_of_one_role_gets_the_tables_as_they_are_needed(
    postgres_url: str, tmp_path: Path
) -> None:
    shop = Shop(tmp_path, records_url=SecretStr(postgres_url))
    assert apply(shop)
    assert applied(shop)


def test_no_error_tells_the_password(tmp_path: Path) -> None:
    url = SecretStr("postgresql://nobody:hunter2@127.0.0.1:9/x")
    settings = Settings(home=tmp_path, records_url=url, database_patience=0.5)
    with pytest.raises(Unavailable) as caught:
        store(settings)
    assert "hunter2" not in str(caught.value)
