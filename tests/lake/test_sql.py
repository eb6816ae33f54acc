"""Connections to DuckDB: one database a process, also in a forked one."""

from __future__ import annotations

import gc
import multiprocessing

import duckdb
import pyarrow as pa
import pytest

from include.lake.sql import connect, quote, text_literal


def test_connections_share_a_database_and_neither_tables_nor_settings() -> None:
    with connect() as one, connect() as other, connect(alone=True) as alone:
        one.register("rows", pa.table({"a": [1]}))
        one.execute("CREATE TEMP TABLE stored AS SELECT * FROM rows")
        for name in ("rows", "stored"):
            with pytest.raises(duckdb.CatalogException):
                other.execute(f"SELECT * FROM {name}")
        with pytest.raises(duckdb.InvalidInputException, match="locked"):
            one.execute("SET threads = 1")
        alone.execute("SET threads = 1")
        assert other.execute(
            "SELECT current_setting('threads'), current_setting('TimeZone')"
        ).fetchall() == [(2, "UTC")]


def test_a_forked_child_opens_its_own_database_and_ends_well() -> None:
    with connect() as con:
        # The parent's threads have started.
        con.execute("SELECT sum(range) FROM range(1000000)").fetchall()
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_sum_in_child)
    child.start()
    child.join(30)
    assert child.exitcode == 0


def _sum_in_child() -> None:
    with connect() as con:
        assert con.execute("SELECT sum(range) FROM range(1000000)").fetchall() == [(499999500000,)]
    gc.collect()  # what the parent opened must not be closed here, either


def test_names_and_texts_with_quotes_stay_one_name_and_one_text() -> None:
    name, text = 'a "b"; DROP TABLE x', "it's '' --"
    with connect() as con:
        con.execute(f"CREATE TEMP TABLE t AS SELECT {text_literal(text)} AS {quote(name)}")
        assert con.execute(f"SELECT {quote(name)} FROM t").fetchall() == [(text,)]
        assert [row[0] for row in con.execute("DESCRIBE t").fetchall()] == [name]
