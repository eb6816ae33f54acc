"""A query that falls into groups: what it gives of some rows follows from these rows alone.

`SELECT k, max(x) FROM t GROUP BY k` answers for every k from the rows of this k. Where no row of a
group has changed, and no comparison with `as_of` comes out otherwise, its answer is the same as
before and need not be asked for. Only what is known to keep groups apart is taken for such a query:
one event source, no join, no subquery in an expression, no limit. All others are asked whole.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from include.errors import ConfigError
from include.lake.sql import connect
from include.point_in_time.sql_tree import Node, parse_tree, walk

_SELECT = {
    "type",
    "cte_map",
    "select_list",
    "from_table",
    "where_clause",
    "group_expressions",
    "group_sets",
    "aggregate_handling",
    "having",
    "qualify",
}
_PLACE = {"type", "query_location", "query_location_length", "alias"}
_EXPRESSIONS = {
    "BETWEEN",
    "CASE",
    "CAST",
    "COLUMN_REF",
    "COMPARISON",
    "CONJUNCTION",
    "CONSTANT",
    "FUNCTION",
    "OPERATOR",
    "TYPE",
    "WINDOW",
}
_CLAUSES = ("select_list", "where_clause", "group_expressions", "having", "qualify")


class _NotApartError(Exception):
    """The query does, or may, mix groups."""


@dataclass(frozen=True, slots=True)
class Groups:
    """How a query falls into groups: by columns of its source that its own columns hold as they
    are.

    `by` are those columns, `reads` all that it may read, and `comparisons` its comparisons of a row
    with `as_of`, each as SQL with `as_of` and with `interval_start` in its place.
    """

    source: str
    by: tuple[str, ...]
    reads: tuple[str, ...]
    comparisons: tuple[tuple[str, str], ...]


@dataclass
class _Relation:
    """What a FROM gives: its name, and of each column that of the source which it holds as it is.

    `kept_apart` are the columns by which every step on the way keeps rows apart.
    """

    source: str
    name: str
    columns: Mapping[str, str | None]
    kept_apart: list[frozenset[str]] = field(default_factory=list)
    comparisons: list[Node] = field(default_factory=list)


@lru_cache(maxsize=64)
def groups_of(
    sql: str, source: str, columns: tuple[str, ...], carried: tuple[str, ...]
) -> Groups | None:
    """Return how a query of one source falls into groups by what its columns `carried` hold.

    `columns` are those of the source. None: it does not, or nobody can tell.
    """
    base = _Relation(source, source, {name.lower(): name for name in columns})
    try:
        tree = parse_tree(sql)
        relation = _selected(tree, {source.lower(): base})
    except (_NotApartError, ConfigError, RecursionError):  # the last one of a very long sum
        return None
    by = {held for name in carried if (held := relation.columns.get(name.lower())) is not None}
    for columns_apart in relation.kept_apart:
        by &= columns_apart
    if not by:
        return None
    comparisons = {(_text(each), _text(_at_start(each))) for each in relation.comparisons}
    nodes = list(walk(tree))
    named = {str(each["column_names"][-1]).lower() for each in nodes if "column_names" in each}
    is_whole = any(each.get("class") == "STAR" for each in nodes)
    reads = tuple(name for name in columns if is_whole or name.lower() in named)
    return Groups(source, tuple(sorted(by)), reads, tuple(sorted(comparisons)))


def _selected(node: Node, scope: Mapping[str, _Relation]) -> _Relation:
    """Return the relation that a SELECT gives."""
    if node.get("type") != "SELECT_NODE" or node.keys() - _SELECT:
        raise _NotApartError
    known = dict(scope)
    for part in (node.get("cte_map") or {}).get("map", []):
        name = str(part["key"]).lower()
        if name in scope or "aliases" in part["value"]:
            raise _NotApartError
        try:
            known[name] = _selected(part["value"]["query_node"], known)
        except _NotApartError:
            known.pop(name, None)  # no matter, unless the query reads it
    rows = _from(node["from_table"], known)
    grouped = node.get("group_expressions", [])
    if node.get("aggregate_handling") != "STANDARD_HANDLING" or (
        len(node.get("group_sets", [])) > 1 or ("having" in node and not grouped)
    ):
        raise _NotApartError
    _check_having(node, rows)
    expressions = [each for each in node["select_list"] if not _is_whole_row(each)]
    for clause in (*_CLAUSES[1:], expressions):
        for each in walk(node.get(clause) if isinstance(clause, str) else clause):
            _check_expression(each, rows, is_grouped=bool(grouped))
    if grouped:
        chosen = [_chosen(each, node["select_list"]) for each in grouped]
        rows.kept_apart.append(_held(chosen, rows))
    for clause in _CLAUSES:
        rows.comparisons += _comparisons(node.get(clause), rows)
    columns: dict[str, str | None] = {}
    for each in node["select_list"]:
        names = each.get("column_names", [""])
        given = (
            rows.columns
            if _is_whole_row(each)
            else {str(each.get("alias") or names[-1]).lower(): _column(each, rows)}
        )
        # Of two columns of one name nobody can tell which one is meant.
        columns |= {name: None if name in columns else held for name, held in given.items()}
    return _Relation(rows.source, "", columns, rows.kept_apart, rows.comparisons)


def _from(node: Node, scope: Mapping[str, _Relation]) -> _Relation:
    """Return the one relation of a FROM."""
    if node["type"] == "SUBQUERY" and not node.keys() - _PLACE - {"subquery"}:
        read, name = _selected(node["subquery"]["node"], scope), ""
    elif node["type"] == "BASE_TABLE" and not (
        node.keys() - _PLACE - {"table_name", "qualified_name"}
    ):
        path = [str(part).lower() for part in node["qualified_name"]["path"]]
        if len(path) != 1 or path[0] not in scope:
            raise _NotApartError
        read, name = scope[path[0]], path[0]
    else:
        raise _NotApartError
    return _Relation(
        read.source,
        str(node.get("alias") or name).lower(),
        read.columns,
        list(read.kept_apart),
        list(read.comparisons),
    )


def _check_expression(node: Node, rows: _Relation, *, is_grouped: bool) -> None:
    """Refuse a node that may look at the rows of several groups.

    Raises:
        _NotApartError: it may.
    """
    kind = node.get("class")
    if kind is None:
        return
    if kind not in _EXPRESSIONS:
        raise _NotApartError
    if kind == "COLUMN_REF":
        (*table, name) = (str(part).lower() for part in node["column_names"])
        if not table and name == rows.name and name not in rows.columns:
            raise _NotApartError  # the whole row as one value
    if kind == "WINDOW":
        rows.kept_apart.append(_held(node.get("partitions", []), rows))
    # Without GROUP BY an aggregate is one of all rows; a macro may hold one.
    if kind == "FUNCTION" and not is_grouped and not _is_of_one_row(node):
        raise _NotApartError


def _check_having(node: Node, rows: _Relation) -> None:
    """Refuse a HAVING with a name that is another value's in the SELECT: there it means this one.

    Everywhere else DuckDB looks for a column first, as this module does.

    Raises:
        _NotApartError: it has such a name.
    """
    others = {
        alias
        for each in node["select_list"]
        if (alias := str(each.get("alias", "")).lower()) in rows.columns
        and _column(each, rows) != rows.columns[alias]
    }
    for each in walk(node.get("having")):
        names = each.get("column_names", [])
        if len(names) == 1 and str(names[0]).lower() in others:
            raise _NotApartError


def _comparisons(node: Any, rows: _Relation) -> Iterator[Node]:
    """Yield the comparisons of a source's row with the variables, in the source's columns.

    Raises:
        _NotApartError: a variable is asked for in another way.
    """
    if isinstance(node, list):
        for each in node:
            yield from _comparisons(each, rows)
    if not isinstance(node, dict):
        return
    if node.get("class") in ("COMPARISON", "BETWEEN") and (moved := _of_source(node, rows)):
        if any(map(_is_variable, walk(moved))):
            yield moved
        return
    if _is_variable(node):
        raise _NotApartError
    for child in node.values():
        yield from _comparisons(child, rows)


def _of_source(node: Node, rows: _Relation) -> Node | None:
    """Return an expression in the columns of the source; None where it is not of one row of it."""
    moved: Node = deepcopy(dict(node))
    for each in walk(moved):
        kind = each.get("class")
        if kind == "WINDOW" or (kind == "FUNCTION" and not _is_of_one_row(each)):
            return None
        if kind == "COLUMN_REF":
            held = _column(each, rows)
            if held is None:
                return None
            assert isinstance(each, dict)
            each["column_names"] = [held]
    return moved


def _at_start(node: Node) -> Node:
    """Return a comparison with the start of the interval in the place of `as_of`."""
    moved: Node = deepcopy(dict(node))
    for each in walk(moved):
        if _is_variable(each):
            each["arguments"][0]["expression"]["literal"]["text"] = "interval_start"
    return moved


def _text(expression: Node) -> str:
    """Return an expression of a tree as SQL."""
    select = {
        "type": "SELECT_NODE",
        "cte_map": {},
        "select_list": [expression],
        "from_table": {"type": "EMPTY"},
        "aggregate_handling": "STANDARD_HANDLING",
    }
    tree = json.dumps({"error": False, "statements": [{"node": select}]})
    with connect() as con:
        row = con.execute("SELECT json_deserialize_sql(CAST(? AS JSON))", [tree]).fetchone()
    return str(row[0] if row else "").removeprefix("SELECT ")


def _held(expressions: Iterable[Node], rows: _Relation) -> frozenset[str]:
    """Return the columns of the source that some expressions are."""
    return frozenset(held for each in expressions if (held := _column(each, rows)) is not None)


def _chosen(expression: Node, selected: Collection[Node]) -> Node:
    """Return the column that `GROUP BY 1` means, or the expression itself."""
    literal = expression.get("literal", {})
    if expression.get("class") == "CONSTANT" and literal.get("kind") == "INTEGER":
        place = int(literal["text"]) - 1
        return [*selected][place] if 0 <= place < len(selected) else expression
    return expression


def _column(node: Node, rows: _Relation) -> str | None:
    """Return the column of the source that an expression is, or None."""
    if node.get("class") != "COLUMN_REF":
        return None
    *table, name = [str(part).lower() for part in node["column_names"]]
    if table and (table != [rows.name] or rows.name in rows.columns):
        return None  # a field of a column, or of something else
    return rows.columns.get(name)


def _is_whole_row(node: Node) -> bool:
    """Tell whether a selected expression is a plain `*`."""
    return (
        node.get("class") == "STAR"
        and node.keys() <= {*_PLACE, "class", "columns"}
        and (not node.get("columns"))
    )


def _is_variable(node: Node) -> bool:
    return node.get("class") == "FUNCTION" and node.get("function_name") == "getvariable"


def _is_of_one_row(node: Node) -> bool:
    """Tell whether a function answers for each row from the row alone."""
    return _kinds().get(str(node["function_name"]).lower()) == {"scalar"}


@lru_cache(maxsize=1)
def _kinds() -> dict[str, set[str]]:
    """Return the kinds that DuckDB's functions of a name have."""
    kinds: dict[str, set[str]] = {}
    with connect() as con:
        query = "SELECT DISTINCT lower(function_name), function_type FROM duckdb_functions()"
        for name, kind in con.execute(query).fetchall():
            kinds.setdefault(name, set()).add(kind)
    return kinds
