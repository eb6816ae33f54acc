"""One SQL expression over the columns of a row: whether it may be asked, and what it gives.

The rules are those of a query (`sql_tree`), and it looks at its own row alone: no aggregate, no
window, no subquery, no variable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import duckdb
import pyarrow as pa

from include.errors import ConfigError
from include.lake.sql import connect, quote
from include.point_in_time import sql_tree
from include.point_in_time.sql_tree import Node

_ROWS = "__row"  # the relation that an expression is bound to; no source has such a name
_BEFORE = "SELECT ("  # on the text's first line, so that a message counts its lines
_SAME = "a column of a row is the same whenever it is read"
_SHOWN = 30  # columns that a message names


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that may be put into a query, DuckDB's type of it, and the columns it reads."""

    sql: str
    type: str
    columns: tuple[str, ...]


@lru_cache(maxsize=512)
def parse_expression(text: str, schema: pa.Schema) -> Expression:
    """Return an expression over rows of some columns, checked.

    Raises:
        ConfigError: it is not one expression, reads what is no column, or holds what is refused;
            the message is the end of a sentence whose subject is the expression.
    """
    try:
        tree = _one_expression(text)
    except ConfigError as error:
        raise ConfigError(f"{error}{_to_quote(text, schema)}") from None
    unstable = (
        # To queries it says that as_of is the time to ask for; here no time is.
        f"{reason.split('; ')[0]}; {_SAME}" if "getvariable" in reason else reason
        for reason in sql_tree.refusals(tree)
        if not reason.startswith("calls getvariable()")
    )
    if reasons := list(dict.fromkeys([*_beyond_the_row(tree), *unstable])):
        raise ConfigError("; it ".join(reasons))
    query = f"{_BEFORE}{text}\n) FROM {_ROWS}"
    if (word := sql_tree.reads_clock(query, {_ROWS: schema})) is not None:
        raise ConfigError(f"reads {word!r}, which is no column here but the clock; {_SAME}")
    # DuckDB moves a date by INTEGER days and refuses BIGINT ones, which whole numbers of a source
    # are: where that is what stops it, the columns that are added or subtracted become INTEGER.
    days = _with_days(text, tree, [field.name for field in schema if field.type == pa.int64()])
    candidates = [text] if days == text else [text, days]
    errors: list[str] = []
    for candidate in candidates:
        try:
            return Expression(candidate, _type(candidate, schema), _columns(tree, schema))
        except duckdb.Error as error:
            errors.append(str(error))
    raise ConfigError(_unbound(errors[0], schema))


def _one_expression(text: str) -> Node:
    """Return the tree of `SELECT (text)`, or refuse what is more, or less, than an expression."""
    tree = sql_tree.parse_tree(f"{_BEFORE}{text}\n)")
    # `a) + (b` and `1), (2` are well formed in parentheses and not in brackets, whatever stands
    # there: what is one element in both is one expression that ends where the text does.
    beside = sql_tree.parse_tree(f"SELECT [{text}\n]")
    for node in (tree, beside):
        if (
            node.get("type") != "SELECT_NODE"
            or len(node["select_list"]) != 1
            or node["from_table"].get("type") != "EMPTY"
            or node.get("modifiers")
            or any(
                node.get(clause)
                for clause in ("where_clause", "group_expressions", "having", "qualify", "sample")
            )
        ):
            raise ConfigError("is no expression; write one, such as amount / income")
    if len(beside["select_list"][0].get("arguments", [])) != 1:
        raise ConfigError("is not one expression; write one that gives one value")
    return tree


def _to_quote(text: str, schema: pa.Schema) -> str:
    """Return which columns of a text that is no expression have to be quoted, as words of SQL."""
    words = {word.lower() for word in re.findall(r"\w+", text)}
    named = [name for name in schema.names if name.lower() in words]
    with connect() as con:
        keywords = con.execute(
            "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'"
        ).fetchall()
    reserved = [name for name in named if (name.lower(),) in keywords]
    if not reserved:
        return ""
    listed = ", ".join(map(quote, reserved))
    return f" (names that are words of SQL stand in double quotes: {listed})"


def _beyond_the_row(tree: Node) -> Iterator[str]:
    """Yield what an expression holds that looks beyond its row."""
    for node in sql_tree.walk(tree):
        kind = str(node.get("class", ""))
        if kind == "SUBQUERY":
            yield "holds a subquery; use the row's own columns alone"
        elif kind == "WINDOW":
            yield "holds a window function, which looks at other rows; make that a feature"
        elif kind == "STAR":
            yield "holds * or COLUMNS(...); name each column"
        elif kind == "PARAMETER":
            yield "holds a parameter (? or $1); write its value"
        elif kind == "FUNCTION" and str(node.get("function_name")).lower() == "getvariable":
            yield f"calls getvariable(); {_SAME}"


def _type(text: str, schema: pa.Schema) -> str:
    """Return DuckDB's type of an expression.

    In a WHERE, where it is bound first, DuckDB takes no aggregate, not even in a macro.

    Raises:
        duckdb.Error: DuckDB does not take the expression.
    """
    with connect(alone=True) as con:
        for setting in ("enable_external_access", "python_enable_replacements"):
            con.execute(f"SET {setting} = false")
        con.register("__empty", schema.empty_table())
        con.execute(f"CREATE TEMP VIEW {_ROWS} AS SELECT * FROM __empty")
        con.sql(f"SELECT 1 FROM {_ROWS} WHERE (\n{text}\n) IS NULL")
        ((_, kind, *_),) = con.execute(
            f"DESCRIBE SELECT TRY(\n{text}\n) AS value FROM {_ROWS}"
        ).fetchall()
    return str(kind).strip('"')


def _unbound(message: str, schema: pa.Schema) -> str:
    """Return in words why DuckDB does not take an expression."""
    reason = message.splitlines()[0].partition(": ")[2] or message
    names = schema.names
    listed = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    if "Referenced column" in message:
        return (
            f"reads what is no delivered column ({reason.split('!')[0]}); it may read {listed}. "
            "Declare the column, or correct the name"
        )
    if "aggregate" in message.lower() or "GROUPING" in message:
        return f"holds an aggregate ({reason}); use the row's own columns alone"
    if "UNNEST" in message:
        return "calls unnest(), which makes several rows of one; it has to give one value"
    if "-(DATE" in message or "+(DATE" in message or ", DATE)" in message:
        return f"does not fit DuckDB ({reason}); a date is moved by CAST(days AS INTEGER)"
    return f"does not fit DuckDB ({reason}); correct it"


def _columns(tree: Node, schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns that an expression reads, in their order."""
    read = {
        str(name).lower()
        for node in sql_tree.walk(tree)
        if node.get("class") == "COLUMN_REF"
        for name in node["column_names"]
    }
    return tuple(name for name in schema.names if name.lower() in read)


def _with_days(text: str, tree: Node, whole: Sequence[str]) -> str:
    """Return an expression whose whole columns that are added or subtracted are INTEGER."""
    names = {name.lower() for name in whole}
    places: set[tuple[int, int]] = set()
    for node in sql_tree.walk(tree):
        if node.get("is_operator") and node.get("function_name") in ("+", "-"):
            operands: Sequence[Any] = [
                argument["expression"] for argument in node.get("arguments", [])
            ]
            places |= {
                (each["query_location"] - len(_BEFORE), each["query_location_length"])
                for each in operands
                if each.get("class") == "COLUMN_REF" and each["column_names"][-1].lower() in names
            }
    raw = text.encode()  # the parser counts bytes
    for start, length in sorted(places, reverse=True):
        name = raw[start : start + length]
        raw = raw[:start] + b"CAST(" + name + b" AS INTEGER)" + raw[start + length :]
    return raw.decode()
