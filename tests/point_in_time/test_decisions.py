"""Decisions of one entity at one moment: counted, told, blocked above the limit.

Label and features come from one row.
"""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from include.features import feature_sets, frames
from include.features.spine import build_spine
from tests.builders import stored
from tests.builders.intake import Intake

COLUMNS = """
      order_id: {type: int64}
      customer_id: {type: int64}
      amount: {type: float64}
      paid: {type: int64}"""
HEAD = "order_id,customer_id,event_timestamp,created_timestamp,amount,paid\n"
DAY = "2026-01-01"


def shop(
    path: Path, lines: list[tuple[Any, ...]], more: str = "max_bad: 0.5", columns: str = COLUMNS
) -> Intake:
    """Validate orders whose features stand on the row.

    They are (order, customer, hour, hour of creation, amount, paid).
    """
    made = Intake(path, columns=columns, more=more)
    file = made.folder / "shop.yaml"
    head, _, _ = file.read_text().partition("features:")
    file.write_text(
        head + "features: {facts: {grain: event, source: orders, columns: {amount: float64}}}\n"
    )
    rows = [
        (o, c, f"{DAY}T{at:02}:00:00Z", f"{DAY}T{made_at:02}:00:00Z", amount, paid)
        for o, c, at, made_at, amount, paid in lines
    ]
    made.put(HEAD + "".join(",".join(map(str, row)) + "\n" for row in rows))
    return made


def pairs(made: Intake) -> set[tuple[Any, ...]]:
    """Return (customer, label, amount) of the newest label and feature row of each decision."""
    found = []
    for table, name in ((stored.table(made.lake, "shop/labels"), "label"), (_view(made), "amount")):
        rows = sorted(
            made.lake.read(table, keys=[DAY]).to_pylist(), key=lambda row: row["created_timestamp"]
        )
        found.append({(row["customer_id"], row["event_timestamp"]): row[name] for row in rows})
    assert found[0].keys() == found[1].keys()
    return {(key[0], label, found[1][key]) for key, label in found[0].items()}


def _view(made: Intake) -> str:
    (table,) = [table for table in made.tables() if table.startswith("shop/features/")]
    return table


def test_label_and_features_come_from_one_row_whatever_the_label_is(tmp_path: Path) -> None:
    for number, (first, second) in enumerate(itertools.product([0, 1], repeat=2)):
        lines = [
            (1, 7, 5, 5, 10.0, first),
            (2, 7, 5, 5, 5.0, second),
            (3, 8, 5, 5, 1.0, 0),
            (4, 8, 6, 6, 2.0, 1),
        ]
        random.Random(number).shuffle(lines)
        made = shop(tmp_path / str(number), lines)
        made.validate()
        made.run("materialize_features", DAY)
        assert pairs(made) == {(7, float(second), 5.0), (8, 0.0, 1.0), (8, 1.0, 2.0)}
        fact = made.result("validate_data", DAY).outputs["sources"]["orders"]
        assert (fact["repeated"], fact["sharing"], fact["quarantined"]) == (1, 2, 0)


def test_the_row_that_was_created_last_stands(tmp_path: Path) -> None:
    made = shop(tmp_path, [(9, 7, 5, 5, 10.0, 1), (2, 7, 5, 6, 5.0, 0), (3, 8, 5, 5, 1.0, 0)])
    made.validate()
    made.run("materialize_features", DAY)
    assert pairs(made) == {(7, 0.0, 5.0), (8, 0.0, 1.0)}


def test_a_request_s_features_are_of_the_row_that_the_label_is_of(tmp_path: Path) -> None:
    """Of a record the request brought the first version, and its label is the newest.

    A duplicate that was created earlier was taken for the first version of the one that stands.
    """
    lines = [(9, 7, 5, 6, 10.0, 1), (2, 7, 5, 7, 5.0, 0), (2, 7, 5, 8, 6.0, 1)]
    made = shop(tmp_path, [*lines, (3, 8, 5, 5, 1.0, 0)])
    made.validate()
    made.run("materialize_features", DAY)
    spine = build_spine(made.lake, made.use_case, datetime(2026, 1, 4, tzinfo=UTC))
    frame = frames.training_frame(
        made.settings,
        made.use_case,
        feature_sets.current(made.use_case),
        spine,
        {},
        records=made.records,
    )
    found = zip(
        *(frame[name].to_pylist() for name in ("customer_id", "label", "amount")), strict=True
    )
    assert sorted(found) == [(7, 1.0, 5.0), (8, 0.0, 1.0)]
    # The duplicate was never known as an outcome; the correction of the row that stands was.
    assert spine.restated == 1


def test_a_correction_is_no_duplicate(tmp_path: Path) -> None:
    made = shop(
        tmp_path,
        [(1, 7, 5, 5, 10.0, 1), (1, 7, 5, 6, 11.0, 0), (3, 8, 5, 5, 1.0, 0)],
        more="max_bad: 0",
    )
    made.validate()
    fact = made.result("validate_data", DAY).outputs["sources"]["orders"]
    assert (
        made.result("validate_data", DAY).outputs["verdict"],
        fact["repeated"],
        fact["sharing"],
    ) == ("pass", 0, 0)


def test_more_than_max_bad_blocks_with_the_remedy(tmp_path: Path) -> None:
    lines = [(number, number // 2 if number < 6 else number, 5, 5, 1.0, 0) for number in range(20)]
    report = shop(tmp_path, lines, more="max_bad: 0.1").validate()
    assert report.state == "blocked"
    assert (
        "6 of 20 rows share entity and event_timestamp with another, so 3 decisions would be lost"
        in report.reason
    )
    assert "take a finer time as event_time, or make the row's own key the entity" in report.reason


def test_rows_that_repeat_the_key_are_told_with_the_remedy(tmp_path: Path) -> None:
    report = shop(
        tmp_path, [(1, n, 5, 5, 1.0, 0) for n in range(4)], more="max_bad: 0.1"
    ).validate()
    assert (
        "3 rows repeat the key [order_id] with other values; name what tells rows apart in `key`"
        in report.reason
    )


@pytest.mark.parametrize(("limit", "state"), [("0.5", "done"), ("0.1", "blocked")])
def test_rows_without_their_entity_go_to_quarantine(tmp_path: Path, limit: str, state: str) -> None:
    made = shop(
        tmp_path,
        [(1, "", 5, 5, 1.0, 0), (2, 7, 5, 5, 2.0, 1), (3, 8, 5, 5, 2.0, 1)],
        more=f"max_bad: {limit}",
    )
    report = made.validate()
    assert (report.state, made.rules(DAY)) == (state, {1: "customer_id: null"})
    if state == "done":
        made.run("materialize_features", DAY)
        assert pairs(made) == {(7, 1.0, 2.0), (8, 1.0, 2.0)}


def test_rows_without_their_entity_are_left_out_where_the_column_may_be_null(
    tmp_path: Path,
) -> None:
    columns = COLUMNS.replace(
        "customer_id: {type: int64}", "customer_id: {type: int64, nullable: true}"
    )
    made = shop(
        tmp_path, [(1, "", 5, 5, 1.0, 0), (2, 7, 5, 5, 2.0, 1)], more="max_bad: 0", columns=columns
    )
    assert made.validate().state == "done"
    made.run("materialize_features", DAY)
    assert pairs(made) == {(7, 1.0, 2.0)}


def test_two_keys_never_become_one_number(tmp_path: Path) -> None:
    lines = [
        ("007", 7, 5, 5, 1.0, 0),
        ("7", 8, 5, 5, 2.0, 1),
        ("2.5", 9, 5, 5, 1.0, 0),
        ("1e18", 9, 6, 6, 1.0, 0),
        ("8.0", "010", 5, 5, 1.0, 0),
    ]
    made = shop(tmp_path, lines, more="max_bad: 1")
    made.validate()
    assert made.rules(DAY) == {
        1: "order_id: leading_zeros",
        3: "order_id: not_int64",
        4: "order_id: not_int64",
        5: "customer_id: leading_zeros",
    }
    assert [row["order_id"] for row in made.curated(DAY)] == [7]
