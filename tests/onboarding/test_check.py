from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from include.errors import ConfigError
from include.onboarding import check

SHOP = """name: shop
history: {first: 2026-01-01}
entity: {name: customer, key: customer_id}
sources:
  orders:
    path: orders.csv
    key: [order_id]
    columns:
      order_id: {type: int64}
      customer_id: {type: int64}
      amount: {type: float64}
      town: {type: string}
      paid: {type: int64, values: ["0", "1"]}
  shops:
    kind: static
    path: shops.csv
    valid_from: 2026-01-01
    key: [town]
    columns: {town: {type: string}, size: {type: int64}}
label: {source: orders, column: paid, label_time: event + 1d, delay: 1d}
features:
  spending:
    columns: {total: float64}
    sql: SELECT customer_id, sum(amount) AS total FROM orders GROUP BY customer_id
"""
VIEW = "SELECT customer_id, sum(amount) AS total FROM orders GROUP BY customer_id"


def checked(folder: Path, *changes: tuple[str, str]) -> str:
    """Return what the check says of the use case with some of its text replaced; an empty text
    where all is well.
    """
    text = SHOP
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "shop.yaml"
    path.write_text(text)
    try:
        check.check_file(path)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "query",
    [
        VIEW,
        "SELECT customer_id, sum(amount) AS total FROM orders JOIN shops USING (town) GROUP BY ALL",
        "SELECT customer_id, sum(amount) AS total FROM orders NATURAL JOIN (SELECT town, size "
        "FROM shops) GROUP BY ALL",
        "SELECT customer_id, max(COLUMNS('amoun.')) AS total FROM orders GROUP BY ALL",
        "SELECT a.customer_id, max(b.amount) AS total FROM orders a ASOF JOIN orders b ON "
        "a.customer_id = b.customer_id AND a.event_timestamp > b.event_timestamp GROUP BY ALL",
        "SELECT DISTINCT ON (customer_id) customer_id, sum(amount) OVER (PARTITION BY customer_id "
        "ORDER BY event_timestamp RANGE BETWEEN INTERVAL 7 DAY PRECEDING AND CURRENT ROW) AS "
        "total FROM orders ORDER BY customer_id, event_timestamp DESC",
        "SELECT customer_id, date_diff('day', max(event_timestamp), getvariable('as_of')) AS "
        "total FROM ORDERS GROUP BY ALL",
    ],
)
def test_natural_feature_sql_is_well_formed(tmp_path: Path, query: str) -> None:
    assert checked(tmp_path, (VIEW, f'"{query}"')) == ""


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (
            "SELECT customer_id, town AS total FROM orders",
            "column total is VARCHAR, declared float64",
        ),
        (
            "SELECT town AS customer_id, amount AS total FROM orders",
            "column customer_id is VARCHAR, declared int64",
        ),
        (
            "SELECT customer_id, amount AS total FROM nowhere",
            r"the query reads ['nowhere']; sources are ['orders', 'shops']",
        ),
        (
            "SELECT customer_id, amount AS total FROM __known_orders",
            r"the query reads ['__known_orders']",
        ),
        ("SELECT customer_id, amount AS total FROM 'x.csv'", r"the query reads ['x.csv']"),
        ("SELECT customer_id, amont AS total FROM orders", '"amont" not found'),
        (
            "SELECT customer_id, amount AS total FROM orders WHERE event_timestamp < current_date",
            "'current_date'",
        ),
        ("SELECT customer_id, age(event_timestamp) AS total FROM orders", "age() of one argument"),
    ],
)
def test_sql_that_a_stage_would_refuse_is_refused_with_its_line(
    tmp_path: Path, query: str, said: str
) -> None:
    told = checked(tmp_path, (VIEW, f'"{query}"'))
    assert said in told
    assert "line 24: features.spending.sql" in told


def test_types_are_compared_before_any_row_is_read(tmp_path: Path) -> None:
    label = "{source: orders, column: paid, label_time: event + 1d, delay: 1d}"
    sql = '{{sql: "SELECT {} FROM orders", delay: 1d}}'
    good = "customer_id, event_timestamp, created_timestamp AS label_timestamp, paid AS label"
    assert checked(tmp_path, (label, sql.format(good))) == ""
    assert "column customer_id is VARCHAR, declared int64" in checked(
        tmp_path, (label, sql.format(good.replace("customer_id", "town AS customer_id")))
    )
    assert "label_timestamp is VARCHAR and has to be a time" in checked(
        tmp_path, (label, sql.format(good.replace("created_timestamp", "town")))
    )
    assert "column label is VARCHAR; a label is 0, 1 or NULL" in checked(
        tmp_path, (label, sql.format(good.replace("paid", "town")))
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("customer_id: {type: int64}", "customer_id: {type: string}", "write type: string"),
        ('values: ["0", "1"]', 'values: ["0", "yes"]', "'yes' is no value of type int64"),
        ('values: ["0", "1"]', 'values: ["0", "1.5"]', "'1.5' is no value of type int64"),
        ("label_time: event + 1d", "label_time: town", "declare its column timestamp or date"),
        (
            "key: [order_id]",
            "key: [order_id]\n    event_time: ts\n    arrival: ts",
            "write arrival: event + 0s",
        ),
        ("key: [order_id]", "key: [order_id]\n    min_rows: 9\n    max_rows: 3", "swap them"),
        (
            "town: {type: string}\n",
            "town: {type: string}\n      Town: {type: string}\n",
            "in nothing but case",
        ),
        ("{source: orders, column: paid,", "{source: shops, column: size,", "shops is static"),
        (f"sql: {VIEW}", "source: shops\n    grain: event", "its rows have no moment"),
        ("delay: 1d}", "delay: 1d}\ntraining: {exclude: [total]}", "leaves no feature"),
        (
            "delay: 1d}",
            "delay: 1d}\ntraining: {split: {tune: 0.5, evaluation: 0.5}}",
            "leave nothing to train on",
        ),
        (
            "delay: 1d}",
            "delay: 1d}\ntraining:\n  params: {learning_rte: 0.1}",
            "line 22: training.params.learning_rte",
        ),
        ("delay: 1d}", "delay: 1d}\ntraining: {params: {num_leaves: 1}}", "num_leaves must be > 1"),
    ],
)
def test_what_a_later_stage_would_refuse_is_said_with_its_remedy(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert said in checked(tmp_path, (old, new))


def leaves(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Yield the path of every scalar of a document."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path


ODD = (
    "",
    "event_timestamp",
    "no such thing",
    -1,
    10**30,
    [],
    {"a": 1},
    None,
    "SELECT 1 AS customer_id",
    "Ω'; --",
    "0s",
    True,
)


def test_whatever_stands_in_a_use_case_the_check_ends_with_a_refusal_of_ours_or_none(
    tmp_path: Path,
) -> None:
    """Each scalar in turn is replaced by something odd: never a foreign exception, which would
    end as exit 70.
    """
    whole = yaml.safe_load(SHOP.replace("2026-01-01", '"2026-01-01"'))
    paths = list(leaves(whole))
    assert len(paths) > 20
    told = 0
    for number, path in enumerate(paths):
        for odd in (ODD[(number + step) % len(ODD)] for step in (0, 5)):
            made = copy.deepcopy(whole)
            inner = made
            for part in path[:-1]:
                inner = inner[part]
            inner[path[-1]] = odd
            (tmp_path / "shop.yaml").write_text(yaml.safe_dump(made, allow_unicode=True))
            try:
                check.check_file(tmp_path / "shop.yaml")
            except ConfigError:
                told += 1
    assert told > len(paths)


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ("{type: float64, sql: amount / costs}", "it may read order_id, customer_id, amount, town"),
        ("{type: int64, sql: amount}", "DOUBLE, declared int64; cast it, or declare what it is"),
        ("{type: date, sql: town}", "gives VARCHAR, declared date"),
        ("{type: float64, sql: sum(amount)}", "holds an aggregate"),
        ("{type: bool, sql: now() > event_timestamp}", "calls now(), which changes from run to"),
        ("{type: float64, sql: amount +}", "is not valid SQL"),
        ("{type: float64, sql: twice * 2}", "twice is computed itself: repeat its expression"),
    ],
)
def test_a_computed_column_is_named_with_its_line(tmp_path: Path, column: str, reason: str) -> None:
    twice = "      twice: {type: float64, sql: amount * 2}\n"
    said = checked(
        tmp_path,
        (
            "      town: {type: string}\n",
            f"      town: {{type: string}}\n{twice}      c: {column}\n",
        ),
    )
    assert "line 14: sources.orders.columns.c.sql: the expression " in said
    assert reason in said
    assert len(said.splitlines()) == 1


def test_a_snapshot_is_in_its_partition_and_divided_by_hash(tmp_path: Path) -> None:
    snapshot = ("    path: orders.csv\n", "    path: orders.csv\n    snapshot: 2026-01-05\n")
    assert checked(tmp_path, snapshot) == ""
    by = ("label:", "training: {split: {by: time}}\nlabel:")
    assert "training.split.by: all decisions are of one day (snapshot)" in checked(
        tmp_path, snapshot, by
    )
    assert "write by: hash" in checked(tmp_path, snapshot, by)
    outside = ("first: 2026-01-01", "first: 2026-01-01, last: 2026-01-01")
    assert "write history: {first: 2026-01-05, last: 2026-01-05}" in checked(
        tmp_path, snapshot, outside
    )
    cut_off = ("entity:", "cut_off: 1d\nentity:")
    assert "leave cut_off out" in checked(tmp_path, snapshot, cut_off)
