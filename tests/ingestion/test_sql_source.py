"""A database's rows come as text, and no message says its password."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from include.config.use_case_file import parse
from include.errors import ConfigError, SourceError
from include.ingestion import sql_source
from include.point_in_time import partitions
from tests.builders.cut_link import CutLink
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
    with pytest.raises(SourceError, match=r"gives a column twice among .*; name them apart"):
        rows(tmp_path, SQL.format(query="'SELECT *, 1 AS order_id FROM o'"))


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
    monkeypatch.setattr(sql_source, "PAUSE", 0.01)
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


MYSQL_ROWS = (
    "INSERT INTO o VALUES (1, 2.50, '2026-01-01', '2026-01-01 10:00:00'), "
    "(2, 1.1, '2026-03-01', '2026-03-01 10:00:00'), (3, 3, NULL, NULL)"
)


def test_mariadb_gives_only_what_may_have_arrived_in_utc_and_takes_no_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mariadb_url: str
) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(mariadb_url)
    with engine.begin() as link:
        link.exec_driver_sql("SET time_zone = '+00:00'")
        link.exec_driver_sql(
            "CREATE TABLE o (order_id bigint, `Amount (EUR)` decimal(10, 2), event_timestamp date, "
            "created_timestamp timestamp NULL)"
        )
        link.exec_driver_sql(MYSQL_ROWS)
        link.exec_driver_sql("CREATE SEQUENCE s")
    engine.dispose()
    # A session of a server elsewhere: its times are told in its own zone.
    monkeypatch.setenv("SHOP_DB", f"{mariadb_url}?init_command=SET time_zone='%2B05:30'")
    found = texts(rows(tmp_path, SQL.format(query="SELECT * FROM o WHERE order_id < 100")))
    assert sorted(found, key=lambda row: row["order_id"]) == [
        {**TEXT, "created_timestamp": "2026-01-01 10:00:00"},
        {"order_id": "3", "amount": "3.00", "event_timestamp": None, "created_timestamp": None},
    ]
    later = texts(rows(tmp_path, SQL.format(query="SELECT * FROM o"), "2026-03-01"))
    assert sorted(row["order_id"] for row in later) == ["2", "3"]
    with pytest.raises(SourceError, match="READ ONLY"):
        rows(tmp_path, SQL.format(query="SELECT NEXT VALUE FOR s AS order_id"))


@pytest.mark.parametrize("database", ["postgres_url", "mariadb_url"])
def test_a_day_that_stands_for_no_arrival_is_delivered_as_a_null_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    database: str,
) -> None:
    """Such rows belong to the first partition; the database left them out as too old."""
    import sqlalchemy

    url = request.getfixturevalue(database)
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as link:
        link.exec_driver_sql(
            "CREATE TABLE o (order_id bigint, event_timestamp date, created_timestamp timestamp(3))"
        )
        link.exec_driver_sql(
            "INSERT INTO o VALUES (1, '2026-01-01', '2026-01-01 10:00:00'), "
            "(2, '2026-01-01', '1980-01-01 00:00:00'), (3, '2026-01-01', '1990-01-01 00:00:00')"
        )
    engine.dispose()
    monkeypatch.setenv("SHOP_DB", url)
    source = SQL.format(query="'SELECT * FROM o -- all'")
    for tokens, ids in (("[none, ' 1980-01-01 00:00:00']", ["1", "2"]), ("[none]", ["1"])):
        found = rows(tmp_path, f"{source}\n    null_values: {tokens}")
        assert sorted(row["order_id"] for row in found) == ids


ODD_ROWS = (
    "INSERT INTO o VALUES (1, b'00110000', 0, '2026-01-01 10:00:00.25', "
    "'2026-01-01 11:00:00'), (2, b'0', 1.5, '0000-00-00', '2026-01-01 12:00:00.5'), "
    "(3, NULL, 0.00000001, NULL, '2026-01-01 13:00:00')"
)


def test_mariadb_gives_bits_decimals_and_times_beside_a_zero_date_as_a_csv_holds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mariadb_url: str
) -> None:
    """Bits of 48 and of 0 were both `0`, no amount `0E-8`; a moment was read as a local time."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(mariadb_url)
    with engine.begin() as link:
        link.exec_driver_sql("SET sql_mode = ''")
        link.exec_driver_sql("SET time_zone = '+00:00'")
        link.exec_driver_sql(
            "CREATE TABLE o (order_id int, flags bit(8), paid decimal(20, 8), seen datetime(2), "
            "`at` timestamp(1) NULL)"
        )
        link.exec_driver_sql(ODD_ROWS)
    engine.dispose()
    monkeypatch.setenv("SHOP_DB", mariadb_url)
    yaml = """
name: shop
history: {{first: 2026-01-01}}
entity: {{name: o, key: order_id}}
sources:
  rows:
    sql: {{url_env: SHOP_DB, query: SELECT * FROM o}}
    event_time: at
    arrival: event + 0s
    timezone: {zone}
    key: [order_id]
    columns: {{order_id: {{type: int64}}, flags: {{type: int64}}, paid: {{type: float64}},
      seen: {{type: string}}}}
label: {{source: rows, column: flags, delay: 1d}}
features: {{v: {{sql: SELECT 1, columns: {{total: float64}}}}}}
"""
    for zone, ending in (("UTC", ""), ("Europe/Berlin", "+00")):
        case = parse(yaml.format(zone=zone), folder=tmp_path)
        found = sql_source.read_sql("rows", case, [partitions.period(case, "2026-01-01")])
        assert [tuple(row.values()) for row in found.to_pylist()] == [
            ("1", "48", "0.00000000", "2026-01-01 10:00:00.25", f"2026-01-01 11:00:00{ending}"),
            ("2", "0", "1.50000000", "0000-00-00 00:00:00.00", f"2026-01-01 12:00:00.5{ending}"),
            ("3", None, "0.00000001", None, f"2026-01-01 13:00:00{ending}"),
        ]


def test_sqlite_takes_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "shop.db") as con:
        con.execute("CREATE TABLE o (order_id INTEGER)")
    con.close()
    monkeypatch.setenv("SHOP_DB", f"sqlite:///{tmp_path / 'shop.db'}")
    with pytest.raises(SourceError, match="readonly"):
        rows(tmp_path, SQL.format(query="INSERT INTO o VALUES (9) RETURNING *"))


@pytest.fixture(params=["postgres_url", "mariadb_url"])
def cut_off(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[CutLink]:
    """A table of 900 rows of 4,000 bytes, behind a link that can be cut."""
    import sqlalchemy

    url = sqlalchemy.make_url(request.getfixturevalue(request.param))
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as link:
        link.exec_driver_sql(
            "CREATE TABLE o AS WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n "
            "WHERE i < 900) SELECT i AS order_id, CAST('2026-01-01' AS date) AS event_timestamp, "
            "CAST('2026-01-01 10:00:00' AS {}) AS created_timestamp, repeat('x', 4000) AS words "
            "FROM n".format("datetime" if request.param == "mariadb_url" else "timestamp")
        )
    engine.dispose()
    monkeypatch.setattr(sql_source, "PAUSE", 0.05)
    monkeypatch.setattr(sql_source, "BATCH", 50)
    with CutLink(url.host or "127.0.0.1", url.port or 5432) as through:
        shown = url.set(host="127.0.0.1", port=through.port).update_query_dict(
            {"sslmode": "disable"} if request.param == "postgres_url" else {}
        )
        monkeypatch.setenv("SHOP_DB", shown.render_as_string(hide_password=False))
        yield through


def test_a_read_that_loses_its_database_is_begun_anew_and_gives_each_row_once(
    tmp_path: Path, cut_off: CutLink
) -> None:
    cut_off.cut_after(1_000_000, times=2)  # bytes of its answers: in the middle of the rows
    found = rows(tmp_path, SQL.format(query="SELECT * FROM o"))
    assert cut_off.cuts == 2
    assert sorted(int(row["order_id"]) for row in found) == list(range(1, 901))


def test_a_database_that_stays_away_ends_the_read_in_a_clear_error(
    tmp_path: Path, cut_off: CutLink
) -> None:
    cut_off.cut_after(1_000_000, times=100)
    with pytest.raises(SourceError, match="database of SHOP_DB refuses or does not answer"):
        rows(tmp_path, SQL.format(query="SELECT * FROM o"))
    assert cut_off.cuts == sql_source.ATTEMPTS
