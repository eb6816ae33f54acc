from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from include.config import use_case_file
from include.config.settings import ROOT
from include.errors import ConfigError
from include.lake.sql import connect
from include.lake.tables import Lake
from include.point_in_time import sql_tree
from include.point_in_time.queries import SQL_FOLDER, resolve_sql, tables_in
from include.point_in_time.views import AsOfViews

SHOPS = {"shops": pa.schema([("id", pa.int64())])}


def catalogue() -> list[tuple[str, str, str | None, list[str]]]:
    with connect() as con:
        return con.execute(
            "SELECT lower(function_name), function_type, stability, coalesce(parameter_types, []) "
            "FROM duckdb_functions()"
        ).fetchall()


def test_every_function_of_duckdb_has_a_verdict_and_changing_ones_are_refused() -> None:
    zoned = {"TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"}
    refused, changing, called = set[str](), set[str](), set[str]()
    for name, kind, stability, types in catalogue():
        if kind in ("scalar", "aggregate", "window", "macro"):
            called.add(name)
            refused |= {name} if sql_tree.refusal_of(name) else set()
        if kind in ("table", "table_macro"):
            assert (sql_tree.refusal_of(name, table=True) == "") is (
                name in ("unnest", "range", "generate_series")
            ), name
        if (
            kind in ("scalar", "aggregate", "window")
            and stability != "CONSISTENT"
            and not set(types) & zoned
        ):
            changing.add(name)
    assert changing <= refused
    assert {
        "now",
        "today",
        "random",
        "uuid",
        "txid_current",
        "current_setting",
        "nextval",
        "getvariable",
    } <= changing
    assert {
        "ago",
        "current_localtimestamp",
        "current_localtime",
        "pg_conf_load_time",
        "current_catalog",
    } <= refused - changing
    assert {
        "date_trunc",
        "age",
        "+",
        "~~",
        "sum",
        "lag",
        "row_number",
        "nullif",
        "list_sum",
        "date_add",
        "hash",
    } <= called - refused
    assert len(called) > 900


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ('SELECT "now"() FROM orders', "now"),
        ("SELECT main.now()", "now"),
        ("SELECT system.main.NOW()", "now"),
        ("SELECT age(ts) FROM orders", "age"),
        ("SELECT ts.age() FROM orders", "age"),
        ("SELECT age(COLUMNS('ts')) FROM orders", "age"),
        ("SELECT * FROM orders USING SAMPLE 10 PERCENT", "sample"),
        ("SELECT * FROM orders TABLESAMPLE 10%", "sample"),
        ("SELECT * FROM (SELECT * FROM orders TABLESAMPLE reservoir(5))", "sample"),
        ("SELECT txid_current()", "txid_current"),
        ("SELECT ago(INTERVAL 1 DAY)", "ago"),
        ("SELECT list_transform([1], lambda x: random())", "random"),
        ("SELECT sum(id) FILTER (WHERE ts < today()) FROM orders", "today"),
        ("SELECT count(*) OVER (ORDER BY uuid()) FROM orders", "uuid"),
        ("SELECT id FROM orders ORDER BY random()", "random"),
        ("SELECT * FROM orders, LATERAL (SELECT gen_random_uuid())", "gen_random_uuid"),
        ("WITH a AS (SELECT now() AS n) SELECT * FROM a", "now"),
        (
            "SELECT (SELECT max(id) FROM orders WHERE ts < get_current_timestamp())",
            "get_current_timestamp",
        ),
        ("PIVOT orders ON id IN (1, 2) USING first(random())", "random"),
        ("SELECT current_localtimestamp()", "current_localtimestamp"),
        ("SELECT * FROM read_csv('/etc/passwd')", "read_csv"),
        ("SELECT * FROM glob('*')", "glob"),
        ("SELECT * FROM query('SELECT now()')", "query"),
        ("SELECT * FROM query_table('orders')", "query_table"),
        ("SELECT * FROM duckdb_settings()", "duckdb_settings"),
        ("SELECT getenv('HOME')", "getenv"),
        ("SELECT current_setting('TimeZone')", "current_setting"),
        ("SELECT getvariable('threads')", "getvariable"),
        ("SELECT getvariable(id) FROM orders", "getvariable"),
        ("WITH x AS (DELETE FROM orders RETURNING *) SELECT * FROM x", "DELETE"),
        ("WITH x AS (INSERT INTO orders VALUES (1) RETURNING *) SELECT * FROM x", "INSERT"),
        (
            "WITH x AS (UPDATE orders SET id = 1 RETURNING *) SELECT * FROM (SELECT * FROM x)",
            "UPDATE",
        ),
        ("WITH x AS (COPY orders TO 'x.csv') SELECT 1", "COPY"),
        ("SUMMARIZE orders", "SUMMARIZE"),
        ("SELECT * FROM (SHOW TABLES)", "SHOW"),
    ],
)
def test_what_reads_clock_chance_session_or_files_is_refused(sql: str, named: str) -> None:
    assert any(named in reason for reason in sql_tree.parse_query(sql).unstable)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id, 'now()' AS \"random()\" FROM orders -- today()",
        "SELECT age(getvariable('as_of'), ts), age(ts, ts), ts.age(ts) FROM orders",
        "SELECT date_trunc('month', getvariable('interval_start')), extract(year FROM ts), ts AT "
        "TIME ZONE 'UTC' FROM orders",
        "SELECT * FROM unnest([1]), range(3), generate_series(1, 2), LATERAL (SELECT unnest([1]))",
        "SELECT coalesce(id, 1), ifnull(id, 2), nullif(id, 3), id IN (1, 2), id BETWEEN 1 AND 2, "
        "NOT id = 1, -id FROM orders",
        "SELECT list_filter([1], x -> x > 0), [x + 1 for x in [1]], {'a': 1}.a, MAP {'a': 1}, [1, "
        "2][1:2], list_aggr([1], 'sum')",
        "SELECT lag(id IGNORE NULLS) OVER w, ntile(4) OVER w FROM orders WINDOW w AS (PARTITION "
        "BY id ORDER BY ts)",
        "SELECT mode() WITHIN GROUP (ORDER BY id), arg_max(id, ts) FILTER (id > 1), "
        "count(DISTINCT id) FROM orders GROUP BY ALL",
        "SELECT 'a' LIKE 'b', 'a' ILIKE 'b', 'a' SIMILAR TO 'b', 'a' GLOB 'b', 'a' || 'b', "
        "'{}'->'$.a', '{}'->>'$.a'",
        "SELECT " + " + ".join(["id"] * 900) + " FROM orders",
    ],
)
def test_what_gives_one_answer_passes(sql: str) -> None:
    assert sql_tree.parse_query(sql).unstable == ()


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("SELECT * FROM orders JOIN shops USING (id)", {"orders", "shops"}),
        ("SELECT * FROM orders NATURAL JOIN shops", {"orders", "shops"}),
        ("SELECT * FROM orders ASOF JOIN shops ON orders.ts >= shops.at", {"orders", "shops"}),
        ("SELECT COLUMNS('a.*') FROM ORDERS", {"orders"}),
        (
            "SELECT sum(a) OVER (ORDER BY ts RANGE BETWEEN INTERVAL 7 DAY PRECEDING AND CURRENT "
            "ROW) FROM orders",
            {"orders"},
        ),
        ("WITH a AS (SELECT * FROM orders), b AS (SELECT * FROM A) SELECT * FROM b", {"orders"}),
        ("WITH orders AS (SELECT * FROM orders) SELECT * FROM orders", {"orders"}),
        ("WITH orders AS (SELECT 1) SELECT * FROM (SELECT * FROM orders)", set[str]()),
        ("WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a", {"b"}),
        ("SELECT * FROM (WITH a AS (SELECT 1) SELECT * FROM a), a", {"a"}),
        (
            "WITH RECURSIVE t AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM t WHERE i < 3) SELECT "
            "* FROM t, orders",
            {"orders"},
        ),
        ("FROM orders UNION FROM shops", {"orders", "shops"}),
        ("SELECT * FROM orders WHERE id IN (SELECT id FROM shops)", {"orders", "shops"}),
        ("SELECT * FROM main.orders, temp.main.shops", {"orders", "shops"}),
        ("SELECT * FROM information_schema.tables", {"information_schema.tables"}),
        ("SELECT * FROM 'file.csv'", {"file.csv"}),
        ("PIVOT orders ON id IN (1, 2) USING sum(id)", {"orders"}),
    ],
)
def test_the_tables_of_a_query_are_those_that_no_with_in_scope_names(
    sql: str, tables: set[str]
) -> None:
    assert tables_in(sql) == tables


def test_variables_are_those_that_are_asked_for_and_not_those_of_a_comment() -> None:
    sql = (
        "SELECT 'interval_start' AS interval_start, getvariable('AS_OF') FROM orders -- "
        "getvariable('interval_start')"
    )
    assert sql_tree.parse_query(sql).variables == {"as_of"}
    assert sql_tree.parse_query("SELECT getvariable('interval_start')").variables == {
        "interval_start"
    }


@pytest.mark.parametrize("word", sql_tree.CLOCK_WORDS)
def test_a_bare_word_is_the_clock_where_no_relation_has_it_as_a_column(word: str) -> None:
    schemas = {"orders": pa.schema([("id", pa.int64()), (word, pa.date32())]), **SHOPS}
    assert (
        sql_tree.reads_clock(f'SELECT {word}, orders.{word}, "{word}" FROM orders', schemas) is None
    )
    assert (
        sql_tree.reads_clock(f'SELECT id FROM shops WHERE "{word.upper()}" IS NOT NULL', schemas)
        == word
    )


@pytest.mark.parametrize(
    ("sql", "clock"),
    [
        ("SELECT current_date FROM (SELECT 1 AS current_date)", False),
        ("SELECT list_transform([1], lambda current_date: current_date + 1)", False),
        ("SELECT current_date", True),
        ("SELECT current_date FROM (SELECT id FROM orders)", True),
        ("SELECT id FROM (SELECT id, current_date AS unused FROM shops)", True),
        # It does not bind: whoever runs it says so.
        ("SELECT nothing_there, current_date FROM shops", False),
    ],
)
def test_whose_word_it_is_goes_by_what_the_relations_in_reach_hold(sql: str, clock: bool) -> None:
    schemas = {"orders": pa.schema([("id", pa.int64()), ("current_date", pa.date32())]), **SHOPS}
    assert (sql_tree.reads_clock(sql, schemas) == "current_date") is clock


def test_the_shipped_queries_pass() -> None:
    files = sorted(SQL_FOLDER.rglob("*.sql"))
    assert len(files) > 4
    for name in ("repayment", "credit_default"):
        use_case = use_case_file.load(ROOT / "include" / "usecases" / f"{name}.yaml")
        for text in [use_case.label.sql, *(view.sql for view in use_case.features.values())]:
            if text is not None:
                assert tables_in(resolve_sql(use_case, text)) <= set(use_case.sources)


@pytest.mark.parametrize(
    ("sql", "said"), [("SELEC 1", "line 1"), ("SELECT 1;\n\nSELEC 2", "line 3"), ("", "holds 0")]
)
def test_what_cannot_be_parsed_says_where(sql: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        sql_tree.parse_query(sql)


def test_the_parser_is_built_in_and_nothing_is_fetched() -> None:
    with connect() as con:
        found = con.execute(
            "SELECT install_mode FROM duckdb_extensions() WHERE extension_name = 'json' AND loaded"
        ).fetchall()
    assert found == [("STATICALLY_LINKED",)]


def test_the_time_zone_of_a_query_is_utc_and_locked(tmp_path: Path) -> None:
    use_case = use_case_file.load(ROOT / "include" / "usecases" / "repayment.yaml")
    con = connect(alone=True)
    with AsOfViews(con, Lake(str(tmp_path)), use_case, keys=[], sources=[]):
        assert con.execute(
            "SELECT CAST(TIMESTAMPTZ '2026-01-01 23:30:00+00' AS DATE)::VARCHAR"
        ).fetchone() == ("2026-01-01",)
        with pytest.raises(duckdb.InvalidInputException, match="locked"):
            con.execute("SET TimeZone = 'Pacific/Auckland'")
