"""Which features are personal: as marked, and rather too many than one too few."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from include.config.use_case import UseCase
from include.config.use_case_file import parse
from include.errors import ConfigError
from include.features.pii import describe_log, pii_features
from include.pipeline.memo import fields_digest

CASE = """
name: shops
history: {first: 2026-01-01}
entity: {name: shop, key: shop_id}
sources:
  visits:
    path: "*.csv"
    arrival: event + 0s
    key: [shop_id]
    columns: {shop_id: {type: int64}, paid: {type: int64}, email: {type: string, pii: value},
      size: {type: float64}}
label: {source: visits, column: paid, label_time: event + 1d, delay: 1d}
features:
  shop: {grain: event, source: visits, columns: {size: float64, email: string}}
"""


def case(sql: str | None = None, **view: Any) -> UseCase:
    plain = yaml.safe_load(CASE)
    if sql is not None:
        made = {"sql": sql, "columns": {"spent": "float64", "domain": "string"}}
        plain["features"]["made"] = {**made, **view}
    return parse(yaml.safe_dump(plain, sort_keys=False))


def test_a_feature_of_the_name_of_a_marked_column_is_personal() -> None:
    assert pii_features(case()) == ["email"]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT shop_id, sum(size) AS spent, split_part(email, '@', 2) AS domain FROM visits "
        "GROUP BY ALL",
        'SELECT shop_id, sum(size) AS spent, max(v."EMail") AS domain FROM visits v GROUP BY ALL',
        "SELECT shop_id, d AS domain, 1.0 AS spent FROM (SELECT shop_id, email AS d FROM visits)",
        "SELECT * FROM visits",
        "SELECT shop_id, v::VARCHAR AS domain, 1.0 AS spent FROM visits AS v",
    ],
)
def test_of_a_view_whose_sql_reads_one_all_features_are(sql: str) -> None:
    assert pii_features(case(sql)) == ["email", "spent", "domain"]
    assert pii_features(case(sql, pii=["domain"])) == ["email", "domain"]
    assert pii_features(case(sql, pii=[])) == ["email"]


def test_of_another_view_none_is() -> None:
    sql = "SELECT shop_id, sum(size * 2) AS spent, count(*) AS domain FROM visits GROUP BY ALL"
    assert pii_features(case(sql)) == ["email"]


def test_a_feature_that_the_view_lacks_cannot_be_marked() -> None:
    with pytest.raises(ConfigError, match=r"pii names \['name'\], which are no columns"):
        case("SELECT 1", pii=["name"])


def test_people_are_told_what_the_log_is_written_without() -> None:
    assert list(describe_log(case())) == [("prediction log", "without email")]
    hashed = CASE.replace("shop_id: {type: int64}", "shop_id: {type: int64, pii: entity}")
    assert list(describe_log(parse(hashed))) == [
        ("prediction log", "without email; shop_id as a keyed hash")
    ]
    assert list(describe_log(parse(CASE.replace(", pii: value", "")))) == []


def test_only_the_entitys_key_can_be_hashed() -> None:
    wrong = CASE.replace("pii: value", "pii: entity")
    with pytest.raises(ConfigError, match="is for the entity's key, shop_id; write pii: value"):
        parse(wrong)
    marked = CASE.replace("shop_id: {type: int64}", "shop_id: {type: int64, pii: entity}")
    assert parse(marked).hashes_entity
    assert not case().hashes_entity
    assert pii_features(parse(marked)) == ["email"]


def test_what_is_marked_changes_nothing_that_is_computed() -> None:
    unmarked = CASE.replace(", pii: value", "")
    fields = ("sources", "features")
    assert fields_digest(parse(CASE), fields) == fields_digest(parse(unmarked), fields)
