"""Tables of databases: drafted as SQL sources, without a password, from a sample that is said."""

from __future__ import annotations

import importlib.util
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.config import use_case_file
from include.config.settings import Settings
from include.errors import ConfigError, SourceError
from include.onboarding import check, database
from include.onboarding.database import is_address, parse_address, read_database
from include.onboarding.draft import draft_table
from include.onboarding.try_data import try_data

ROWS = [(n, n % 20, f"2025-01-{1 + n % 28:02}", n * 7 % 50 + 0.5, n % 2) for n in range(300)]
COLUMNS = "visit_id, customer_id, visited, amount, returned"


def test_an_address_says_database_and_table_and_its_password_is_kept_apart() -> None:
    address = parse_address("postgresql://me:s3cret@db.example/shop/sales.orders")
    assert address == database.Address(
        "postgresql+psycopg://me@db.example/shop", "s3cret", ("sales", "orders"), "SHOP_URL"
    )
    assert is_address("sqlite:////a/b.db/t")
    assert not is_address("C/orders.csv")
    for text in ("postgresql://me:s3cret@host/shop", "postgresql://host/shop/a.b.c", "x+://::/"):
        with pytest.raises(ConfigError) as raised:
            parse_address(text)
        assert "s3cret" not in str(raised.value)


def test_an_object_store_is_no_database_and_what_to_do_is_said() -> None:
    with pytest.raises(ConfigError, match=r"copy one of its files here .* `path: s3://shop/in/\*`"):
        parse_address("s3://shop/in/*")


def test_a_password_in_the_query_of_an_address_is_kept_apart_and_never_shown() -> None:
    address = parse_address("mysql://me@db.example/shop/orders?charset=utf8mb4&Password=s3cret")
    assert address == database.Address(
        "mysql+pymysql://me@db.example/shop?charset=utf8mb4", "s3cret", ("orders",), "SHOP_URL"
    )
    with pytest.raises(ConfigError) as raised:
        parse_address("postgresql://me@host/shop?password=s3cret")
    assert "s3cret" not in str(raised.value)
    if importlib.util.find_spec("pymysql") is None:
        with pytest.raises(ConfigError, match=r"mysql\+pymysql cannot.*pip install PyMySQL"):
            read_database(address)


def test_a_table_of_sqlite_is_drafted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as link:
        link.execute(f'CREATE TABLE "the orders" ({COLUMNS})')
        link.executemany('INSERT INTO "the orders" VALUES (?, ?, ?, ?, ?)', ROWS)
    address = parse_address(f"sqlite:///{tmp_path}/shop.db/the orders")
    drafted = draft_table(read_database(address))
    case = use_case_file.parse(drafted.text, folder=tmp_path)
    assert list(check.find_problems(case)) == []
    source = case.sources["rows"].sql
    assert source is not None
    assert (source.url_env, source.query) == ("SHOP_DB_URL", 'SELECT * FROM "the orders"')
    assert (drafted.name, case.label.column) == ("the_orders", "returned")
    monkeypatch.setattr(database, "MOST", 100)
    assert "only the first 100 rows" in draft_table(read_database(address)).text
    with pytest.raises(SourceError, match="the database refuses or does not answer"):
        read_database(parse_address(f"sqlite:///{tmp_path}/shop.db/nothing"))


def test_a_table_of_postgresql_is_drafted_in_its_schema(postgres_url: str, tmp_path: Path) -> None:
    import psycopg

    with psycopg.connect(postgres_url.replace("+psycopg", "")) as link:
        link.execute("CREATE SCHEMA sales")
        link.execute(
            "CREATE TABLE sales.orders (visit_id bigint, customer_id int, visited date, amount "
            "numeric(9, 2), returned boolean)"
        )
        link.cursor().executemany(
            "INSERT INTO sales.orders VALUES (%s, %s, %s, %s, %s::int::boolean)", ROWS
        )
    drafted = draft_table(read_database(parse_address(f"{postgres_url}/sales.orders")))
    case = use_case_file.parse(drafted.text, folder=tmp_path)
    assert case.sources["rows"].sql is not None
    assert case.sources["rows"].sql.query == "SELECT * FROM sales.orders"
    assert case.sources["rows"].columns["returned"].type == "bool"
    assert case.feature_types == {"amount": "float64"}


def test_a_table_of_mariadb_is_drafted_and_its_rows_are_those_that_a_run_reads(
    mariadb_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what the driver gives as objects of its own: decimals, flags, clocks, 100 % signs."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(mariadb_url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as link:
        link.exec_driver_sql(
            "CREATE TABLE `the orders` (visit_id bigint unsigned, customer_id int, visited "
            "datetime(3), amount decimal(9, 2), share varchar(9), began time, express bit(1), "
            "raw varbinary(4), returned tinyint(1))"
        )
        link.exec_driver_sql(
            "INSERT INTO `the orders` VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (2**63 + n, who, f"{day} 10:00:00.250", amount, f"{n % 9}%", "07:05:00", *rest)
                for n, who, day, amount, returned in ROWS
                for rest in [(n % 2 == 0, b"ab", returned)]
            ],
        )
    url = mariadb_url.replace("root@", "root:@")
    address = parse_address(f"{url}/the orders".replace("mariadb+pymysql", "mysql"))
    table = read_database(address)
    first = table.rows_of("SELECT * FROM given ORDER BY visit_id LIMIT 1")[0]
    assert first == (
        *(
            str(2**63),
            "0",
            "2025-01-01 10:00:00.25+00",
            "0.5",
            "0.0",
            "07:05:00",
            "1",
            "ab",
            "0",
        ),
    )
    drafted = draft_table(table)
    case = use_case_file.parse(drafted.text, folder=tmp_path)
    assert list(check.find_problems(case)) == []
    source = case.sources["rows"].sql
    assert source is not None
    assert source.query == "SELECT * FROM `the orders`"
    assert case.sources["rows"].columns["visit_id"].type == "string"  # more than an int64 holds
    monkeypatch.setenv(source.url_env, mariadb_url)
    (tmp_path / "the_orders.yaml").write_text(drafted.text)
    trial = try_data(case, Settings(home=tmp_path / "var"))
    assert trial.rows == len(ROWS)
    # Made by a rule, and so it is too good: that is all there is to say.
    assert [problem for problem in trial.problems if "leaks through amount" not in problem] == []
    wrong = address.url.replace("root", "nobody")
    with pytest.raises(SourceError, match="the database refuses") as refused:
        read_database(replace(address, url=wrong, password="s3cret"))
    assert "s3cret" not in str(refused.value)


def test_moments_of_mariadb_are_those_of_a_run_wherever_its_server_is(mariadb_url: str) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(mariadb_url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as link:
        link.exec_driver_sql("SET time_zone = '+00:00'")
        link.exec_driver_sql("CREATE TABLE o (at timestamp NULL)")
        link.exec_driver_sql("INSERT INTO o VALUES ('2026-01-01 00:30:00')")
    url = f"{mariadb_url}/o?init_command=SET time_zone='-05:00'"
    table = read_database(parse_address(url))
    assert table.moments("at")[0] == datetime(2026, 1, 1, 0, 30, tzinfo=UTC)
