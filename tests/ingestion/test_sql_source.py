"""A database's rows come as text, and no message says its password."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.errors import ConfigError, SourceError
from tests.ingestion.test_sources import TEXT, rows, texts

SQL = "sql: {{url_env: SHOP_DB, query: {query}}}"


def test_a_sqlite_table_comes_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "shop.db") as con:
        con.execute(
            'CREATE TABLE o (order_id INTEGER, "Amount (EUR)" REAL, event_timestamp TEXT, '
            "created_timestamp TEXT)"
        )
        con.execute(
            "INSERT INTO o VALUES (1, 2.5, '2026-01-01', '2026-01-01T10:00:00Z'), (2, "
            "NULL, NULL, 'x')"
        )
    con.close()
    monkeypatch.setenv("SHOP_DB", f"sqlite:///{tmp_path / 'shop.db'}")
    found = texts(rows(tmp_path, SQL.format(query="SELECT * FROM o")))
    assert found == [
        {**TEXT, "amount": "2.5"},
        {"order_id": "2", "amount": None, "event_timestamp": None, "created_timestamp": "x"},
    ]


def test_a_postgresql_table_comes_as_text_and_only_what_may_have_arrived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(postgres_url)
    with engine.begin() as link:
        link.exec_driver_sql("CREATE SEQUENCE s")
        link.exec_driver_sql(
            'CREATE TABLE o (order_id bigint, "Amount (EUR)" numeric, event_timestamp date, '
            "created_timestamp timestamptz)"
        )
        link.exec_driver_sql(
            "INSERT INTO o VALUES (1, 2.50, '2026-01-01', '2026-01-01 11:00+01'), (2, 1.1, "
            "'2026-03-01', '2026-03-01 11:00+01'), (3, 'NaN', 'infinity', NULL), (4, 1, "
            "'2026-01-01', 'infinity')"
        )
    engine.dispose()
    monkeypatch.setenv("SHOP_DB", postgres_url)
    found = texts(rows(tmp_path, SQL.format(query="SELECT * FROM o WHERE order_id < 100")))
    first = {**TEXT, "created_timestamp": "2026-01-01 10:00:00+00"}
    assert sorted(found, key=lambda row: row["order_id"]) == [
        first,
        {"order_id": "3", "amount": None, "event_timestamp": "infinity", "created_timestamp": None},
        {
            "order_id": "4",
            "amount": "1",
            "event_timestamp": "2026-01-01",
            "created_timestamp": "infinity",
        },
    ]
    later = texts(rows(tmp_path, SQL.format(query="SELECT * FROM o"), "2026-03-01"))
    assert sorted(row["order_id"] for row in later) == ["2", "3", "4"], (
        "a row without an arrival is never lost"
    )
    with pytest.raises(SourceError, match=r"refuses or does not answer.*nowhere"):
        rows(tmp_path, SQL.format(query="SELECT * FROM nowhere"))
    with pytest.raises(SourceError, match="read-only"):
        rows(tmp_path, SQL.format(query="SELECT nextval('s')"))


def test_a_database_that_is_away_is_told_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_DB", "postgresql+psycopg://me:s3cret@127.0.0.1:1/none")
    with pytest.raises(SourceError, match="database of SHOP_DB") as error:
        rows(tmp_path, SQL.format(query="SELECT 1"))
    assert "s3cret" not in str(error.value)
    monkeypatch.setenv("SHOP_DB", "nothing-like:a-url s3cret")
    with pytest.raises(ConfigError, match="no SQLAlchemy URL") as other:
        rows(tmp_path, SQL.format(query="SELECT 1"))
    assert "s3cret" not in str(other.value)
    monkeypatch.delenv("SHOP_DB")
    with pytest.raises(ConfigError, match="set SHOP_DB"):
        rows(tmp_path, SQL.format(query="SELECT 1"))
