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
_TAIL = re.compile(r"[\s;]*;(?:\s|--[^\n]*|/\*(?:[^*]|\*(?!/))*\*/)*$")
_LITERALS = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"", re.DOTALL)


def resolve_sql(use_case: UseCase, text_or_file: str) -> str:
    """Return the query: the text itself, or that of a `.sql` file beside the YAML or under
    feature_repo/sql/.

    Raises: ConfigError: the file is not there, lies outside those folders, or the text is not one
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
    try:
        query = sql_tree.parsed(text)
    except ConfigError as error:
        raise ConfigError(f"{where} {error}") from None
    if query.unstable:
        raise ConfigError("\n".join(f"{where} {reason}" for reason in query.unstable))
    return _TAIL.sub("", text) if _TAIL.search(_LITERALS.sub(_blanks, text)) else text.strip()


def _blanks(literal: re.Match[str]) -> str:
    return literal[0] if literal[0].startswith(("--", "/*")) else " " * len(literal[0])


def tables_in(sql: str) -> frozenset[str]:
    """Return the names of the tables that a query reads, by its parse alone: no table has to be
    there.

    Raises:
        ConfigError: it is not one valid SELECT.
    """
    return sql_tree.parsed(sql).tables


def variables_in(sql: str) -> frozenset[str]:
    """Return the variables that a query asks for by getvariable."""
    return sql_tree.parsed(sql).variables


def _sql_file(use_case: UseCase, name: str) -> Path:
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
