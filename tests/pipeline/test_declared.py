"""Names of ours and keys that lose values: refused with line and remedy, by the check and by
every stage.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from include.config import names
from include.config.use_case_file import parse
from include.errors import ConfigError
from include.onboarding import check
from include.pipeline import declared
from tests.builders.intake import GOOD, HEAD, Intake

YAML = """name: shop
history: {first: 2026-01-01}
entity: {name: customer, key: customer_id}
sources:
  orders:
    path: orders.csv
    event_time: at
    arrival: event + 0s
    key: [order_id]
    columns:
      order_id: {type: int64}
      customer_id: {type: int64}
      amount: {type: float64}
      at: {type: timestamp}
      paid: {type: int64}
label: {source: orders, column: paid, label_time: event + 1d, delay: 1d}
features:
  facts: {grain: event, source: orders, columns: {amount: float64}}
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        (
            "order_id: {type: int64}",
            "order_id: {type: float64}",
            11,
            "part of the source's key but of type float64",
        ),
        (
            "customer_id: {type: int64}",
            "customer_id: {type: float64}",
            12,
            "part of the entity's key but of type float64",
        ),
        (
            "amount: {type: float64}",
            "rule: {type: float64}",
            13,
            r"Evergreen's own; write rule_value: \{header: rule, \.\.\.\}",
        ),
        (
            "amount: {type: float64}",
            "Partition: {type: float64}",
            13,
            "Evergreen's own; write Partition_value",
        ),
        ("amount: {type: float64}", "__x: {type: float64}", 13, "Evergreen's own; write x_value"),
        (
            "amount: {type: float64}",
            "event_timestamp: {type: timestamp}",
            13,
            "own name for the event_time of a row",
        ),
        (
            "amount: {type: float64}",
            "CREATED_timestamp: {type: timestamp}",
            13,
            "own name for the arrival of a row",
        ),
        (
            "amount: {type: float64}",
            "PAID: {type: float64}",
            15,
            "differs from 'PAID' in nothing but case",
        ),
        (
            "columns: {amount: float64}",
            "columns: {split: float64}",
            18,
            "Evergreen's own; name the source's column split_value",
        ),
        ("columns: {amount: float64}", "columns: {Label: float64}", 18, "Evergreen's own"),
        (
            "columns: {amount: float64}",
            "columns: {Customer_ID: int64}",
            18,
            "is the entity's key 'customer_id'",
        ),
        (
            "columns: {amount: float64}",
            "columns: {amount: float64, AMOUNT: float64}",
            18,
            "differs from 'amount' in nothing",
        ),
        ("key: customer_id}", "key: score}", 3, "Evergreen's own"),
        (
            "type: int64}\n      amount",
            "type: string}\n      amount",
            3,
            "is string in orders, but the entity is int64; write type",
        ),
        ("at: {type: timestamp}", "at: {type: timestamp}\n      t: {type: string}", 0, ""),
        (
            "label_time: event + 1d",
            "label_time: amount",
            16,
            "is of type float64; declare its column timestamp or date",
        ),
        ("delay: 1d}", "delay: 1d, positive: good}", 16, "'good' is no value of 'paid'"),
        (
            "paid: {type: int64}",
            "paid: {type: string}",
            16,
            "else name what counts as 1 by `positive`",
        ),
    ],
)
def test_the_check_names_the_line_and_the_remedy(
    tmp_path: Path, old: str, new: str, line: int, says: str
) -> None:
    assert old in YAML
    path = tmp_path / "shop.yaml"
    path.write_text(YAML.replace(old, new, 1))
    if not says:
        assert check.check_file(path).name == "shop"
        return
    with pytest.raises(ConfigError, match=f"line {line}: .*{says}"):
        check.check_file(path)


def test_a_stage_refuses_what_the_check_refuses(tmp_path: Path) -> None:
    made = Intake(
        tmp_path,
        columns="\n      order_id: {type: float64}\n      customer_id: {type: int64}\n      paid: "
        "{type: int64}",
    )
    made.put(HEAD + GOOD)
    with pytest.raises(
        ConfigError, match="order_id: is part of the source's key but of type float64"
    ):
        made.ingest()


def test_the_times_of_a_row_keep_their_names() -> None:
    text = YAML.replace("event_time: at", "event_time: event_timestamp").replace(
        "      at:", "      event_timestamp:"
    )
    assert list(declared.find_problems(parse(text))) == []


def test_names_are_compared_without_case() -> None:
    assert names.alike(["a", "B", "A", "b", "c"]) == [["a", "A"], ["B", "b"]]
    assert names.is_ours("RULE", names.ROWS)
    assert not names.is_ours("rules", names.ROWS)
