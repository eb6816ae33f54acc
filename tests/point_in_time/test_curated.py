"""Columns of curated tables and labels, and table names that carry the digest of their types."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from include.config.use_case import UseCase
from include.config.use_case_file import parse
from include.lake.sql import TIMESTAMP
from include.lake.tables import Lake
from include.point_in_time.curated import (
    curated_name,
    curated_schema,
    curated_table,
    label_schema,
    label_table,
    record_key,
)
from tests.point_in_time.test_views import YAML


@pytest.fixture
def use_case(tmp_path: Path) -> UseCase:
    return parse(YAML, folder=tmp_path)


def test_the_key_of_a_record_is_named_as_in_the_curated_rows(use_case: UseCase) -> None:
    assert record_key(use_case.sources["orders"]) == ["customer_id", "event_timestamp"]


def test_curated_rows_have_the_declared_columns_then_both_times(use_case: UseCase) -> None:
    assert curated_schema(use_case.sources["orders"]) == pa.schema(
        [
            ("customer_id", pa.int64()),
            ("amount", pa.float64()),
            ("event_timestamp", TIMESTAMP),
            ("created_timestamp", TIMESTAMP),
        ]
    )
    assert label_schema(use_case).names == [
        "customer_id",
        "event_timestamp",
        "label_timestamp",
        "created_timestamp",
        "label",
    ]
    assert curated_name(use_case.sources["orders"], "ordered_at") == "event_timestamp"
    assert curated_name(use_case.sources["shops"], "town") == "town"


def test_a_changed_contract_has_a_table_of_its_own(tmp_path: Path, use_case: UseCase) -> None:
    lake = Lake(str(tmp_path / "lake"))
    table = curated_table(lake, use_case, "orders")
    assert table.startswith("shop/curated/orders@")
    assert table == curated_table(lake, use_case, "orders")
    reordered = YAML.replace(
        "{customer_id: {type: int64}, amount: {type: float64}}",
        "{amount: {type: float64}, customer_id: {type: int64}}",
    )
    assert curated_table(lake, parse(reordered, folder=tmp_path), "orders") == table
    retyped = YAML.replace("amount: {type: float64}", "amount: {type: int64}")
    assert curated_table(lake, parse(retyped, folder=tmp_path), "orders") != table


def test_a_table_of_before_names_had_a_digest_is_the_version_with_its_types(
    tmp_path: Path, use_case: UseCase
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    schema = curated_schema(use_case.sources["orders"])
    lake.replace("shop/curated/orders", "2026-01-01", schema.empty_table())
    assert curated_table(lake, use_case, "orders") == "shop/curated/orders"
    assert label_table(lake, use_case).startswith("shop/labels@")
