"""Connections to DuckDB: one database a process, also in a forked one."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from include.errors import SourceError
from include.ingestion.text_columns import open_database
from include.lake import sql
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


@pytest.mark.parametrize("words", [3, 4, 5, 6, 40])
@pytest.mark.parametrize("kind", ["shared", "alone", "of a file"])
def test_rows_stay_in_their_order_however_many_words_they_are_compared_with(
    words: int, kind: str, tmp_path: Path
) -> None:
    rows = pa.table({"place": np.arange(500_000)})
    listed = ", ".join(map(str, range(words)))
    opened = open_database(str(tmp_path)) if kind == "of a file" else connect(alone=kind == "alone")
    with opened as con:
        con.register("rows", rows)
        for one in (f"place IN ({listed})", f"CASE WHEN place NOT IN ({listed}) THEN 1 END"):
            found = con.sql(f"SELECT place, {one} AS one FROM rows").to_arrow_table()
            assert np.array_equal(found["place"].to_numpy(), np.arange(500_000)), one


def test_a_forked_child_opens_its_own_database_and_ends_well() -> None:
    with connect() as con:
        # The parent's threads have started.
        con.execute("SELECT sum(range) FROM range(1000000)").fetchall()
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_sum_in_child)
    child.start()
    child.join(120)
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


def test_what_does_not_fit_into_memory_is_spilled_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also once a query may reach no file, as those of views and labels."""
    monkeypatch.setattr(sql, "_limits", {})
    monkeypatch.setattr(sql, "_shared", [])
    sql.limit_memory("60MB", tmp_path / "spill")
    with sql.connect(alone=True) as con:
        con.execute("CREATE TABLE t AS SELECT range AS a, 'x' || range AS b FROM range(2000000)")
        con.execute("SET enable_external_access = false")
        ordered = "SELECT *, row_number() OVER (ORDER BY hash(a)) AS n FROM t"
        (count,) = con.execute(f"SELECT count(b) FROM ({ordered}) WHERE n > 1").fetchall()[0]
        assert count == 1_999_999
        assert list((tmp_path / "spill" / str(os.getpid())).iterdir())
    assert not list((tmp_path / "spill").iterdir())
    with sql.connect() as con:
        assert con.execute("SELECT current_setting('memory_limit')").fetchall() == [("57.2 MiB",)]


def test_a_folder_that_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "_limits", {})
    monkeypatch.setattr(sql, "_shared", [])
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match=r"file/spill: cannot be made"):
        sql.limit_memory("60MB", tmp_path / "file" / "spill")


def test_what_killed_processes_have_spilled_is_removed_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what one that runs has spilled, or what is no spill folder."""
    monkeypatch.setattr(sql, "_limits", {})
    monkeypatch.setattr(sql, "_shared", [])
    spill = tmp_path / "spill"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        for name in (ended.pid, running.pid, os.getpid(), "notes"):
            (spill / str(name)).mkdir(parents=True)
            (spill / str(name) / "duckdb_temp_storage-0.tmp").write_bytes(b"rows")
        # Of a process that had this process's id before it.
        os.utime(spill / str(os.getpid()), (1, 1))
        sql.limit_memory("60MB", spill)
        assert {each.name for each in spill.iterdir()} == {str(running.pid), "notes"}
        running.kill()
