"""Rows are compared by the source's columns: which are new, restored, left, and of other keys."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from include.config.use_case_sources import Source
from include.ingestion import row_comparison

SOURCE = Source.model_validate(
    {"path": "orders.csv", "key": ["id"], "columns": {"id": {"type": "int64"}}}
)
KEYLESS = Source.model_validate(
    {"path": "orders.csv", "key": ["other"], "columns": {"other": {"type": "int64"}}}
)
DAY, NEXT = "2026-01-01", "2026-01-02"


def rows(*values: tuple[str | None, str | None], day: str = DAY, **more: Any) -> pa.Table:
    """Return rows (id, amount) of a day, each from a line of its own."""
    count = len(values)
    columns: dict[str, Any] = {
        "id": pa.array([key for key, _ in values], pa.string()),
        "amount": pa.array([amount for _, amount in values], pa.string()),
        "source_file": pa.array([more.pop("file", "a.csv")] * count, pa.string()),
        "source_row": pa.array(range(count), pa.int64()),
        "__belongs": pa.array([day] * count, pa.string()),
    }
    columns |= {name: pa.array([value] * count, pa.string()) for name, value in more.items()}
    return pa.table(columns)


def ids(table: pa.Table) -> list[Any]:
    return table.column("id").to_pylist() if len(table) else []


def test_rows_that_equal_none_of_their_partition_are_new_and_of_a_known_key_corrections() -> None:
    offered = rows(("1", "10"), ("2", "21"), ("3", None), ("4", "40"))
    known = [rows(("1", "10"), ("2", "20"), ("3", None)), rows(("4", "40"), day=NEXT), pa.table({})]
    new = row_comparison.find_new_rows(offered, known, SOURCE)
    assert ids(new) == ["2", "4"], "a null equals a null, and another day's row is none of this one"
    assert new.column("__corrects").to_pylist() == [True, False]
    keyless = row_comparison.find_new_rows(offered, known, KEYLESS)
    assert keyless.column("__corrects").to_pylist() == [False, False]
    assert ids(row_comparison.find_new_rows(offered.slice(0, 0), known, SOURCE)) == []


def test_a_column_that_the_known_rows_lack_is_null_there() -> None:
    offered = rows(("1", "10"), note=None)
    assert ids(row_comparison.find_new_rows(offered, [rows(("1", "10"))], SOURCE)) == []
    filled = rows(("1", "10"), note="x")
    assert ids(row_comparison.find_new_rows(filled, [rows(("1", "10"))], SOURCE)) == ["1"]


def test_what_stands_again_after_a_correction_corrects_it() -> None:
    offered = rows(("1", "10"), ("2", "22"))
    taken = rows(("1", "11"), ("2", "22"), file=f"late://{DAY}/a.csv", partition=NEXT)
    restored = row_comparison.find_restored_rows(offered, pa.table({}), taken, SOURCE)
    assert ids(restored) == ["1"], "the second correction still stands"
    assert restored.column("__corrects").to_pylist() == [True]
    new = rows(("1", "10"))
    assert ids(row_comparison.find_restored_rows(offered, new, taken, SOURCE)) == []
    unmarked = rows(("1", "11"), partition=NEXT)
    assert ids(row_comparison.find_restored_rows(offered, pa.table({}), unmarked, SOURCE)) == []
    assert ids(row_comparison.find_restored_rows(offered, pa.table({}), taken, KEYLESS)) == []


def test_each_row_takes_one_equal_row_away() -> None:
    left = rows(("1", "10"), ("1", "10"), ("2", None), ("3", "30")).drop_columns(["__belongs"])
    others = rows(("1", "10"), ("2", None), ("9", "90"))
    assert ids(row_comparison.subtract_rows(left, others)) == ["1", "3"]
    first = row_comparison.subtract_rows(left, others).column("source_row").to_pylist()
    assert first == [1, 3], "of equal rows the first goes"
    assert row_comparison.subtract_rows(left, pa.table({})) is left


def test_rows_are_left_whose_key_no_other_row_has() -> None:
    offered, others = rows(("1", "10"), ("2", "20"), (None, "0")), rows(("2", "99"), (None, "1"))
    assert ids(row_comparison.without_keys_of(offered, others, SOURCE)) == ["1", None]
    assert ids(row_comparison.without_keys_of(offered, others, KEYLESS)) == ["1", "2", None]
    assert row_comparison.without_keys_of(offered, pa.table({}), SOURCE) is offered


def test_a_key_of_computed_parts_is_compared_by_what_they_are() -> None:
    source = Source.model_validate(
        {
            "path": "orders.csv",
            "key": ["id", "half"],
            "columns": {
                "id": {"type": "int64"},
                "amount": {"type": "int64"},
                "half": {"type": "int64", "sql": "amount // 2"},
            },
        }
    )
    known, offered = rows(("1", "10"), ("2", "20")), rows(("1", "11"), ("2", "22"), ("1", None))
    new = row_comparison.find_new_rows(offered, [known], source)
    assert new.column_names == [*offered.column_names, "__corrects"]
    assert new.column("__corrects").to_pylist() == [True, False, False]
    assert ids(row_comparison.without_keys_of(offered, known, source)) == ["2", "1"]
    taken = new.slice(0, 1).drop_columns(["__corrects"])
    taken = taken.set_column(
        taken.column_names.index("source_file"), "source_file", pa.array([f"late://{DAY}/a.csv"])
    ).append_column("partition", pa.array([NEXT]))
    again = row_comparison.find_new_rows(known, [known, taken], source)
    restored = row_comparison.find_restored_rows(known, again, taken, source)
    assert ids(restored) == ["1"]
    assert restored.column_names == [*known.column_names, "__corrects"]
