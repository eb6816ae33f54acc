"""The curated rows and labels of the lake are digested as the record has them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from include.validation.read_back import read_back
from tests.builders.intake import Intake

DAY = "2026-01-01"


def test_rows_and_labels_are_read_back_equal_and_a_lost_row_is_seen(made: Intake) -> None:
    made.validate(DAY)
    result = made.result("validate_data", DAY)
    context: Any = SimpleNamespace(
        use_case=made.use_case, lake=made.lake, table=lambda name: f"shop/{name}"
    )
    curated, labels = read_back(context, result)
    assert curated.table == result.outputs["sources"]["orders"]["table"]
    assert labels.table == result.outputs["labels"]["table"]
    assert (curated.stored, labels.stored) == (curated.recorded, labels.recorded)
    rows = made.lake.read(curated.table, keys=[DAY])
    made.lake.replace(curated.table, DAY, rows.slice(1))
    again, _ = read_back(context, result)
    assert again.stored != again.recorded


def test_a_record_without_rows_has_nothing_to_read_back() -> None:
    result: Any = SimpleNamespace(key=DAY, outputs={"error": "Busy"})
    assert list(read_back(SimpleNamespace(use_case=None), result)) == []
