"""Which queries fall into groups of rows that answer each for itself."""

from __future__ import annotations

import pytest

from include.point_in_time.sql_groups import groups_of

COLUMNS = ("customer_id", "ordered_at", "amount", "event_timestamp", "created_timestamp")
CARRIED = ("customer_id", "event_timestamp")
AS_OF = "getvariable('as_of')"
OF_TWO = "SELECT customer_id, ordered_at AS event_timestamp, max(amount) AS m FROM orders"


def by(sql: str) -> tuple[str, ...] | None:
    groups = groups_of(sql, "orders", COLUMNS, CARRIED)
    return None if groups is None else groups.by


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        (f"{OF_TWO} GROUP BY customer_id, ordered_at", ("customer_id", "ordered_at")),
        (f"{OF_TWO} GROUP BY 1, 2 HAVING max(amount) > 1", ("customer_id", "ordered_at")),
        ("SELECT customer_id, max(amount) FROM orders GROUP BY customer_id", ("customer_id",)),
        (
            "SELECT o.customer_id, event_timestamp FROM orders AS o",
            ("customer_id", "event_timestamp"),
        ),
        (
            "SELECT *, row_number() OVER (PARTITION BY customer_id ORDER BY amount) AS n "
            "FROM orders QUALIFY n = 1",
            ("customer_id",),
        ),
        (
            "WITH a AS (SELECT *, amount AS x FROM orders), b AS (SELECT customer_id, sum(x) AS s "
            "FROM (SELECT * FROM a WHERE x > 0) GROUP BY customer_id), unread AS (SELECT 1 AS one "
            "FROM orders LIMIT 1) SELECT customer_id, s FROM b",
            ("customer_id",),
        ),
    ],
)
def test_a_query_falls_into_groups_by_the_columns_that_every_step_keeps_apart(
    sql: str, columns: tuple[str, ...]
) -> None:
    assert by(sql) == columns


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sum(amount) AS s, max(customer_id) AS customer_id FROM orders",
        "SELECT customer_id, geomean(amount) FROM orders",  # a macro that holds aggregates
        "SELECT customer_id FROM orders HAVING sum(amount) > 1",
        f"{OF_TWO} GROUP BY ALL",
        f"{OF_TWO} GROUP BY ROLLUP (customer_id, ordered_at)",
        "SELECT max(customer_id) AS customer_id FROM orders GROUP BY amount",
        "SELECT customer_id, row_number() OVER (ORDER BY amount) FROM orders",
        "SELECT customer_id FROM orders ORDER BY amount LIMIT 3",
        "SELECT DISTINCT customer_id FROM orders",
        "SELECT customer_id FROM orders WHERE amount > (SELECT avg(amount) FROM orders)",
        "SELECT customer_id FROM orders UNION ALL SELECT customer_id FROM orders",
        "SELECT a.customer_id FROM orders AS a JOIN orders AS b USING (customer_id)",
        "SELECT customer_id FROM orders, range(2)",
        "SELECT c AS customer_id FROM orders AS o(c)",
        "SELECT customer_id FROM orders TABLESAMPLE 10%",
        "SELECT customer_id FROM main.orders",
        "WITH orders AS (SELECT * FROM orders LIMIT 1) SELECT customer_id FROM orders",
        "WITH a(customer_id, n) AS (SELECT amount, customer_id FROM orders) "
        "SELECT customer_id FROM a",
        "WITH a AS (SELECT * FROM orders LIMIT 1) SELECT customer_id FROM a",
        "SELECT customer_id + 1 AS customer_id FROM orders",
        "SELECT customer_id, amount AS customer_id FROM orders",
        "SELECT * EXCLUDE (amount) FROM orders",
        "SELECT customer_id, hash(o) AS h FROM orders AS o",
        "SELECT * REPLACE (1 AS customer_id) FROM orders",
        "SELECT unnest([customer_id, 1]) AS customer_id FROM orders",
        "SELECT customer_id, " + " + ".join(["amount"] * 900) + " FROM orders",
        # What depends on the time in another way than by a comparison of one row with it.
        f"SELECT customer_id, date_diff('day', ordered_at, {AS_OF}) AS d FROM orders",
        f"SELECT customer_id FROM orders GROUP BY 1 HAVING max(ordered_at) < {AS_OF}",
        f"SELECT customer_id FROM (SELECT *, ordered_at + INTERVAL 1 DAY AS d FROM orders) WHERE "
        f"d < {AS_OF}",
    ],
)
def test_a_query_that_may_mix_rows_of_several_groups_is_asked_whole(sql: str) -> None:
    assert by(sql) is None


def test_what_a_comparison_with_the_time_reads_is_named_as_the_source_names_it() -> None:
    sql = (
        "WITH a AS (SELECT customer_id, ordered_at AS t FROM orders AS o) SELECT customer_id, "
        f"count(*) FILTER (WHERE a.t < {AS_OF} - INTERVAL '3 days') FROM a GROUP BY customer_id"
    )
    groups = groups_of(sql, "orders", COLUMNS, CARRIED)
    assert groups is not None
    ((now, before),) = groups.comparisons
    assert now == "(ordered_at < (getvariable('as_of') - CAST('3 days' AS INTERVAL)))"
    assert before == now.replace("as_of", "interval_start")


def test_what_a_query_reads_is_what_it_names_or_all() -> None:
    of_two = groups_of(f"{OF_TWO} GROUP BY 1, 2", "orders", COLUMNS, CARRIED)
    whole = groups_of("SELECT * FROM orders", "orders", COLUMNS, CARRIED)
    assert of_two is not None
    assert whole is not None
    assert of_two.reads == ("customer_id", "ordered_at", "amount")
    assert whole.reads == COLUMNS
