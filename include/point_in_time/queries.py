"""The SQL of views and labels: found, bounded, and checked for what it may read."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from include.config.settings import ROOT
from include.config.use_case import UseCase
from include.errors import ConfigError
from include.point_in_time import sql_tree
from include.point_in_time.curated import curated_schema

SQL_FOLDER = ROOT / "feature_repo" / "sql"
MAX_SQL_BYTES = 256 * 1024
# Comments, texts and quoted names: a semicolon in one of them ends nothing.
_LITERALS = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"", re.DOTALL)


def resolve_sql(use_case: UseCase, text_or_file: str) -> str:
    """Return the query: the text itself, or that of a `.sql` file.

    The file lies beside the YAML or under feature_repo/sql/.

    Raises:
        ConfigError: the file is not there, lies outside those folders, or the text is not one
            SELECT that gives the same answer whenever it is asked.
    """
    text, where = text_or_file, f"{use_case.name}: the query"
    if text_or_file.strip().endswith(".sql"):
        path = _sql_file(use_case, text_or_file.strip())
        text, where = path.read_text(encoding="utf-8"), str(path)
    sql = _checked(text, where)
    word = sql_tree.reads_clock(
        sql, {name: curated_schema(source) for name, source in use_case.sources.items()}
    )
    if word is not None:
        raise ConfigError(
            f"{where} reads {word!r}, which is no column here but the clock and changes from run "
            "to run; use getvariable('as_of')"
        )
    return sql


@lru_cache(maxsize=256)
def _checked(text: str, where: str) -> str:
    """Return a query without the semicolon at its end, once it is checked."""
    try:
        query = sql_tree.parse_query(text)
    except ConfigError as error:
        raise ConfigError(f"{where} {error}") from None
    if query.unstable:
        raise ConfigError("\n".join(f"{where} {reason}" for reason in query.unstable))
    return _without_end(text)


def _without_end(text: str) -> str:
    """Return a query without the semicolons at its end, and without the comments behind them.

    It is put into other queries, where a semicolon would end those.
    """
    # Every place stays as it is: comments become blanks, texts and names become letters.
    masked = _LITERALS.sub(
        lambda literal: (" " if literal[0].startswith(("--", "/*")) else "x") * len(literal[0]),
        text,
    )
    body = masked.replace(";", " ").rstrip()
    end = masked.find(";", len(body))
    return text.strip() if end < 0 else text[:end].rstrip()


def tables_in(sql: str) -> frozenset[str]:
    """Return the names of the tables that a query reads; none of them has to exist.

    Raises:
        ConfigError: it is not one valid SELECT.
    """
    return sql_tree.parse_query(sql).tables


def variables_in(sql: str) -> frozenset[str]:
    """Return the variables that a query asks for by getvariable."""
    return sql_tree.parse_query(sql).variables


def _sql_file(use_case: UseCase, name: str) -> Path:
    """Return the path of a SQL file, or refuse a name that could lead elsewhere."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_./-]*\.sql", name) or ".." in name.split("/"):
        raise ConfigError(
            f"{use_case.name}: {name!r} is no SQL file name; use letters, digits, _, -, / and the "
            "ending .sql"
        )
    for folder in (use_case.folder, SQL_FOLDER):
        path = (folder / name).resolve()
        if path.is_file():
            if not path.is_relative_to(folder.resolve()):
                raise ConfigError(
                    f"{use_case.name}: {name} is a link that leaves {folder}; keep the file "
                    "itself there"
                )
            if path.stat().st_size > MAX_SQL_BYTES:
                raise ConfigError(
                    f"{path} is larger than {MAX_SQL_BYTES // 1024} KB; a query is a page of SQL"
                )
            return path
    raise ConfigError(f"{use_case.name}: there is no {name} in {use_case.folder} or {SQL_FOLDER}")
