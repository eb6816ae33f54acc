"""What is registered with Feast: one use case's objects, applied when they changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.features.feast_registry import (
    apply_registry,
    definitions,
    is_applied,
    objects,
    store,
    transient_store,
)
from tests.builders.shop import YAML, Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_definitions_are_applied_once_and_again_when_they_change(shop: Shop) -> None:
    arguments = shop.settings, shop.records, shop.use_case, shop.feature_set
    assert not is_applied(shop.settings, shop.use_case, shop.feature_set)
    assert [apply_registry(*arguments), apply_registry(*arguments)] == [True, False]
    assert is_applied(shop.settings, shop.use_case, shop.feature_set)
    shop.define(YAML.replace("What a customer spent.", "Other words."))
    assert not is_applied(shop.settings, shop.use_case, shop.feature_set)
    assert apply_registry(shop.settings, shop.records, shop.use_case, shop.feature_set)
    described = store(shop.settings).get_feature_view("shop__spending").description
    assert described == "Other words."


def test_a_view_that_a_use_case_no_longer_has_leaves_the_registry(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    apply_registry(shop.settings, shop.records, shop.use_case, shop.feature_set)
    text = (shop.folder / "shop.yaml").read_text()
    shop.define(text[: text.index("  visit:")])
    apply_registry(shop.settings, shop.records, shop.use_case, shop.feature_set)
    assert [view.name for view in store(shop.settings).list_feature_views()] == ["shop__spending"]


def test_objects_are_the_entity_the_views_and_a_service_over_them(shop: Shop) -> None:
    entity, *views, service = objects(shop.use_case, shop.feature_set)
    assert (entity.name, entity.join_key) == ("shop__customer", "customer_id")
    assert [view.name for view in views] == ["shop__spending", "shop__visit"]
    for view, ours in zip(views, shop.feature_set.views, strict=True):
        assert view.ttl == ours.ttl
        assert [field.name for field in view.features] == list(ours.columns)
        assert view.batch_source.path == ours.table("shop")
    assert [projection.name for projection in service.feature_view_projections] == [
        view.name for view in views
    ]
    assert definitions(shop.settings).keys() == {
        entity.name,
        *(v.name for v in views),
        service.name,
    }


def test_a_store_for_one_question_leaves_no_registry_behind(shop: Shop) -> None:
    opened = transient_store(shop.settings, shop.use_case, shop.feature_set)
    assert {view.name for view in opened.list_feature_views()} == {"shop__spending", "shop__visit"}
    assert not (shop.settings.home / "feast").exists()
