"""A table with every name that our code uses as a column: it works through the chain, or
`usecase check` refuses it.
"""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from include.config import names
from include.config.settings import ROOT
from include.config.use_case import UseCase
from include.config.use_case_file import parse
from include.errors import ConfigError
from include.features import feature_sets, frames, population
from include.features.spine import build_spine
from include.monitoring import psi
from include.onboarding import check
from include.point_in_time.partitions import period
from include.records.records import Records
from include.training import leaks
from include.validation import quarantine
from tests.builders.installation import DATA_STAGES, Installation

DAYS, ROWS = ("2026-01-01", "2026-01-02"), 60
SQL = re.compile(r"\b(SELECT|FROM|WHERE|AS|OVER|JOIN|ORDER BY)\b")
OF_THE_TABLE = ("event_timestamp", "created_timestamp", "order_no", "customer_id", "came")
HEAD = """name: shop
history: {{first: 2026-01-01}}
entity: {{name: customer, key: customer_id}}
sources:
  orders:
    path: orders.csv
    key: [order_no]
    max_bad: 0.5
    columns:
      order_no: {{type: int64}}
      customer_id: {{type: int64}}
      came: {{type: int64, values: ["0", "1"]}}
{columns}
label: {{source: orders, column: came, label_time: event + 1h, delay: 1h}}
features:
  row:
    grain: event
    source: orders
    columns:
      amount_of_row: string
{of_row}
  past:
    sql: SELECT customer_id, any_value(amount_of_past) AS amount_of_past{picked}
        FROM orders GROUP BY customer_id
    columns:
      amount_of_past: string
{of_past}
"""


def identifiers(pattern: re.Pattern[str] | None = None) -> list[str]:
    """Return the names that stand in our SQL (by a pattern), else also every string that is a
    name; once each without case.
    """
    found: dict[str, str] = {}
    for path in sorted((ROOT / "include").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words = re.findall(r"[A-Za-z_][A-Za-z0-9_]*", node.value)
                if pattern is not None:
                    words = [
                        word
                        for found_words in pattern.findall(node.value)
                        for word in found_words
                        if word
                    ]
                if SQL.search(node.value) or words == [node.value]:
                    for word in words:
                        if re.fullmatch(names.COLUMN, word):
                            found.setdefault(word.lower(), word)
    return [word for lower, word in sorted(found.items()) if lower not in OF_THE_TABLE]


def use_case_text(columns: list[str]) -> str:
    half = len(columns) // 2
    of_row, of_past = columns[:half], columns[half:]
    return HEAD.format(
        columns="\n".join(
            f'      "{name}": {{type: string}}'
            for name in ["amount_of_row", "amount_of_past", *columns]
        ),
        of_row="\n".join(f'      "{name}": string' for name in of_row),
        picked="".join(f', any_value("{name}") AS "{name}"' for name in of_past),
        of_past="\n".join(f'      "{name}": string' for name in of_past),
    )


def refused(columns: list[str]) -> set[str]:
    """Return the columns that the check refuses by name: these two as the file is read, the
    others afterwards.
    """
    at_once = {name for name in columns if name.lower() in ("label", "label_timestamp")}
    for name in at_once:
        with pytest.raises(
            ConfigError, match=f"'{name}' is an id, a time or the label, never a feature"
        ):
            parse(use_case_text([name]))
    columns = [name for name in columns if name not in at_once]
    return at_once | {
        where[-1] for where, _ in check.find_problems(parse(use_case_text(columns)))
    } & set(columns)


def write_orders(path: Path, columns: list[str]) -> None:
    header = [
        "order_no",
        "customer_id",
        "came",
        "event_timestamp",
        "created_timestamp",
        "amount_of_row",
        "amount_of_past",
        *columns,
    ]
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(header)
        for number in range(ROWS):
            at = (
                datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number * 2 * 1440 // ROWS)
            ).isoformat()
            # one row of each day repeats a key with other values, and one has no entity: both go to
            # quarantine
            order = number - 1 if number % 30 == 7 else number
            at = (
                datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=order * 2 * 1440 // ROWS)
            ).isoformat()
            customer = "" if number % 30 == 9 else number % 30
            cells = [
                f"{name}:{number % 5}" for name in ["amount_of_row", "amount_of_past", *columns]
            ]
            out.writerow([order, customer, number % 2, at, at, *cells])


def batches(columns: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(columns), size):
        yield columns[start : start + size]


def through_the_chain(home: Path, columns: list[str]) -> None:
    """Run two days of data stages on a table with such columns, and ask of it what training,
    serving and drift ask.
    """
    folder = home / "usecases"
    folder.mkdir(parents=True)
    (folder / "shop.yaml").write_text(use_case_text(columns))
    write_orders(folder / "orders.csv", columns)
    made = Installation(home, "shop")
    use_case: UseCase = made.use_case
    for key in DAYS:
        made.day(key, DATA_STAGES)
    current = feature_sets.current(use_case)
    as_of = period(use_case, DAYS[-1]).as_of
    spine = build_spine(made.lake, use_case, as_of + timedelta(days=1))
    assert len(spine.rows) == ROWS - 4
    frame = frames.training_frame(
        made.settings,
        use_case,
        current,
        spine.rows,
        frames.table_versions(made.lake, use_case, current),
        records=made.records,
    )
    online = population.entity_frame_at(made.lake, use_case, current, as_of)
    for name in use_case.feature_types:
        of_row = pc.starts_with(frame.column(name).drop_null(), f"{name}:")
        assert pc.all(of_row).as_py(), f"{name} holds another column's values"
        assert frame.column(name).null_count < len(frame)
        assert set(online.column(name).drop_null().to_pylist()) <= {
            f"{name}:{number}" for number in range(5)
        }
    labelled = frame.append_column("split", pa.array(["train"] * len(frame)))
    assert len(set(labelled.column_names)) == len(labelled.column_names)
    assert set(leaks.check(labelled, use_case).feature_auc) == set(use_case.trained_features)
    assert set(psi.stability(online, online, use_case.feature_types)) == set(use_case.feature_types)
    waiting = quarantine.find_rows(
        made.settings, Records.open(made.settings.records_address), use_case
    )
    assert {row.rule for row in waiting} == {"conflicting_duplicate", "customer_id: null"}
    exported = home / "quarantine.csv"
    assert quarantine.export_csv(waiting, use_case, exported) == len(waiting)
    back = quarantine.read_corrections(exported, {row.place: row for row in waiting}, use_case)
    assert back == {row.place: row.values for row in waiting}


@pytest.mark.slow
def test_our_own_names_are_refused_and_no_others() -> None:
    columns = identifiers()
    assert refused(columns) == {
        name for name in columns if names.is_ours(name, (*names.ROWS, *names.FRAMES))
    }
    assert {"newest", "entity", "source", "score"} <= set(columns) - refused(columns)


@pytest.mark.slow
def test_a_table_with_the_names_of_our_queries_goes_through_the_chain(tmp_path: Path) -> None:
    named = [
        name
        for name in identifiers(
            re.compile(r"\b(?:AS|FROM|JOIN|WITH) \(?([a-z_]+)\b|, ([a-z_]+) AS \(")
        )
        if "__" not in name
    ]
    more = [
        "newest",
        "entity",
        "rowid",
        "pending",
        "source",
        "next_created",
        "as_of",
        "view",
        "expires",
        "a",
        "t",
        "v",
        "k",
        "d",
    ]
    columns = sorted(
        {
            *named,
            *more,
            "Entity_Of",
            "index",
            "value",
            "score",
            "decision",
            "version",
            "order",
            "group",
        }
    )
    ours = refused(columns)
    through_the_chain(tmp_path / "home", [name for name in columns if name not in ours])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(6))
def test_a_table_with_all_our_names_goes_through_the_chain(tmp_path: Path, part: int) -> None:
    columns = identifiers()
    ours = refused(columns)
    sound = [name for name in columns if name not in ours]
    through_the_chain(tmp_path / "home", sound[part::6])
