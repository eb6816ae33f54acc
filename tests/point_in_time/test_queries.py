"""The SQL of views: found in the text or beside the YAML, refused where it is not stable."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.config.use_case import UseCase
from include.config.use_case_file import parse
from include.errors import ConfigError
from include.point_in_time.queries import MAX_SQL_BYTES, resolve_sql, tables_in, variables_in
from tests.point_in_time.test_views import YAML


@pytest.fixture
def use_case(tmp_path: Path) -> UseCase:
    return parse(YAML, folder=tmp_path)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DROP TABLE orders", "must be one SELECT"),
        ("SELECT 1; DROP TABLE orders", "must be one SELECT"),
        ("COPY orders TO 'x.csv'", "must be one SELECT"),
        ("SELEC 1", "not valid SQL"),
        ("SELECT now()", "changes from run to run"),
        ("SELECT * FROM orders WHERE event_timestamp < current_date", "changes from run to run"),
        ("SELECT random()", "changes from run to run"),
        ("../secret.sql", "no SQL file name"),
        ("/etc/secret.sql", "no SQL file name"),
        ("..%2fsecret.sql", "no SQL file name"),
        ("missing.sql", "there is no missing.sql"),
    ],
)
def test_sql_that_is_no_single_stable_select_is_refused(
    use_case: UseCase, sql: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve_sql(use_case, sql)


def test_sql_comes_from_the_text_or_from_a_file_beside_the_yaml(
    tmp_path: Path, use_case: UseCase
) -> None:
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "a.sql").write_text(
        "WITH x AS (SELECT 'now()' AS a) SELECT * FROM x; -- now()\n"
    )
    assert resolve_sql(use_case, "views/a.sql") == "WITH x AS (SELECT 'now()' AS a) SELECT * FROM x"
    assert resolve_sql(use_case, "SELECT 1 AS a;") == "SELECT 1 AS a"
    assert resolve_sql(use_case, "SELECT ';--x' AS a") == "SELECT ';--x' AS a"
    (tmp_path / "out.sql").symlink_to("/etc/hostname")
    with pytest.raises(ConfigError, match="leaves"):
        resolve_sql(use_case, "out.sql")


def test_a_query_longer_than_a_page_is_refused(tmp_path: Path, use_case: UseCase) -> None:
    (tmp_path / "long.sql").write_text("SELECT 1 AS a -- " + "x" * MAX_SQL_BYTES)
    with pytest.raises(ConfigError, match="larger than 256 KB"):
        resolve_sql(use_case, "long.sql")


def test_a_semicolon_behind_a_comment_ends_the_query_and_one_in_a_name_does_not(
    use_case: UseCase,
) -> None:
    assert resolve_sql(use_case, "SELECT 1 AS a; /* over */ ;\n-- done") == "SELECT 1 AS a"
    for query in ('SELECT 1 AS "a;"', "SELECT ';--' AS a", 'SELECT 1 AS ";/*"'):
        assert resolve_sql(use_case, f"{query} ") == query
        assert resolve_sql(use_case, f"{query};") == query


def test_tables_and_variables_are_read_off_the_query_alone() -> None:
    sql = "WITH a AS (SELECT * FROM orders) SELECT getvariable('as_of') FROM a JOIN shops USING (x)"
    assert tables_in(sql) == {"orders", "shops"}
    assert variables_in(sql) == {"as_of"}
    with pytest.raises(ConfigError, match="must be one SELECT"):
        tables_in("DROP TABLE orders")
