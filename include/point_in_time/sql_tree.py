"""A query as DuckDB parses it: what it reads, and what in it would answer otherwise another day.

Text alone cannot tell a call from a comment, or `"now"()` from `now()`; the parser's tree can
(`json_serialize_sql` is part of DuckDB's core build, nothing is fetched). What may be called is
DuckDB's own catalogue's word, `duckdb_functions().stability`. It is DuckDB's parser and not
SQLGlot's, since whoever runs a query should judge it: what two parsers read differently would pass
one and do another thing in the other.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import duckdb
import pyarrow as pa

from include.errors import ConfigError
from include.lake.sql import connect, quote

# What the stage sets for a query, and the functions that may stand in its FROM.
VARIABLES = ("as_of", "interval_start")
TABLE_FUNCTIONS = ("unnest", "range", "generate_series")
CLOCK_WORDS = ("current_date", "current_time", "current_timestamp", "localtime", "localtimestamp")
# The functions that the binder puts in the place of such a word where no relation has it as a
# column.
_CLOCK_FUNCTIONS = (
    "current_date",
    "get_current_time",
    "get_current_timestamp",
    "current_localtime",
    "current_localtimestamp",
)
# DuckDB's catalogue calls them consistent, and they read the clock.
_LISTED_AS_CONSISTENT = ("current_localtime", "current_localtimestamp")
# Overloads of these types depend on the session's time zone alone, which is locked to UTC.
_ZONED = {"TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"}
# The kinds of nodes that select; any other within WITH would write.
_QUERIES = ("SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE")
_OWN_SCHEMAS = ("main", "temp")
# Levels of JSON: DuckDB parses 1,000 levels of an expression, each of three or four in JSON.
_DEPTH = 10_000

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Function:
    """One overload in DuckDB's catalogue; a macro has its body as `json_serialize_sql` gives it."""

    kind: str
    stability: str | None
    types: frozenset[str]
    body: str
    parameters: frozenset[str]


@dataclass(frozen=True, slots=True)
class Query:
    """What is to be known of one SELECT."""

    tables: frozenset[str]
    variables: frozenset[str]
    unstable: tuple[str, ...]
    clock_words: frozenset[str]


@lru_cache(maxsize=512)
def parse_query(sql: str) -> Query:
    """Return what one SELECT reads and what in it is unstable.

    Raises:
        ConfigError: it is not valid SQL, or not one SELECT.
    """
    root = parse_tree(sql)
    nodes = list(walk(root))
    return Query(
        tables=frozenset(_tables(root)),
        variables=frozenset(name for node in nodes if (name := _variable(node)) is not None),
        unstable=tuple(dict.fromkeys(reason for reason in refusals(root) if reason)),
        clock_words=frozenset(word for node in nodes if (word := _word(node)) in CLOCK_WORDS),
    )


def reads_clock(sql: str, schemas: Mapping[str, pa.Schema]) -> str | None:
    """Return the first bare word such as `current_date` that is no column here, but the clock.

    Whose word it is, is for the binder to say: the query is bound once as it is and once where the
    clock answers nobody. A query that does not bind at all is left to whoever runs it.
    """
    words = parse_query(sql).clock_words
    if not words:
        return None
    with connect(alone=True) as con:
        for setting in ("enable_external_access", "python_enable_replacements"):
            con.execute(f"SET {setting} = false")  # to bind `FROM 'file.csv'` is to read the file
        for name, schema in schemas.items():
            con.register(f"__rows_{name}", schema.empty_table())
            con.execute(
                f"CREATE TEMP VIEW {quote(name)} AS SELECT * FROM {quote(f'__rows_{name}')}"
            )
        if not _binds(con, sql):
            return None
        # These macros are found before DuckDB's own functions, and fail without an argument.
        for function in _CLOCK_FUNCTIONS:
            con.execute(f"CREATE TEMP MACRO {function}(nothing) AS nothing")
        return None if _binds(con, sql) else sorted(words)[0]


@lru_cache(maxsize=2048)
def refusal_of(name: str, *, table: bool = False) -> str:
    """Return why a function may not be called, as a table where `table`; empty: it may."""
    return _refusal_of(name.lower(), table, frozenset())


def _refusal_of(name: str, table: bool, within: frozenset[str]) -> str:
    """Return why a function may not be called within the macros that are being looked at."""
    overloads = _catalogue().get(name, [])
    if not overloads:
        return f"calls {name}(), which DuckDB does not have; correct the name"
    if table and name in TABLE_FUNCTIONS:
        return ""
    macro_kind = "table_macro" if table else "macro"
    macros = [each for each in overloads if each.kind == macro_kind]
    functions = [
        each for each in overloads if not table and each.kind in ("scalar", "aggregate", "window")
    ]
    if not macros and not functions:
        if name == "unnest":  # a table function in the catalogue, a function of one row in a SELECT
            return ""
        return (
            f"reads {name}(...); a query reads the sources, and of functions that give tables "
            f"{', '.join(TABLE_FUNCTIONS)}"
        )
    changes = name in _LISTED_AS_CONSISTENT or any(
        each.stability != "CONSISTENT" for each in functions if not each.types & _ZONED
    )
    if changes or any(_changes(macro, within | {name}) for macro in macros):
        return (
            f"calls {name}(), which changes from run to run; use getvariable('as_of') for the "
            "time, hash(key) for chance"
        )
    return ""


def _changes(macro: _Function, within: frozenset[str]) -> bool:
    """Tell whether a macro's body is refused; its parameters hide words such as `current_date`."""
    body = _select(macro.body)
    words = {word for node in walk(body) if (word := _word(node)) is not None}
    return (
        bool(words & set(CLOCK_WORDS) - macro.parameters)
        or next(refusals(body, within), None) is not None
    )


@lru_cache(maxsize=1)
def _catalogue() -> dict[str, list[_Function]]:
    """Return DuckDB's functions by name, in small letters."""
    query = "if(function_type = 'macro', 'SELECT ', '') || macro_definition"
    body = f"CAST(json_serialize_sql({query}, skip_null := true, skip_empty := true) AS VARCHAR)"
    with connect() as con:
        rows = con.execute(
            "SELECT lower(function_name), function_type, stability, coalesce(parameter_types, "
            f"[]), coalesce(parameters, []), coalesce({body}, '') FROM duckdb_functions()"
        ).fetchall()
    overloads: dict[str, list[_Function]] = {}
    for name, kind, stability, types, parameters, text in rows:
        overloads.setdefault(name, []).append(
            _Function(kind, stability, frozenset(types), text, frozenset(parameters))
        )
    return overloads


def parse_tree(sql: str) -> Node:
    """Return the root of a query's tree, as DuckDB parses it."""
    try:
        with connect() as con:
            row = con.execute(
                "SELECT json_serialize_sql(?, skip_null := true, skip_empty := true)", [sql]
            ).fetchone()
    except (duckdb.Error, ValueError) as error:
        # Nested too deeply for the parser, or text that is no Unicode.
        raise ConfigError(f"cannot be parsed: {str(error).splitlines()[0]}; simplify it") from None
    return _select(row[0] if row else "{}", sql)


def _select(text: str, sql: str = "") -> Node:
    """Return the one SELECT of a serialized query."""
    before = sys.getrecursionlimit()
    try:
        # A sum of 400 columns nests deeper than Python's json goes by itself.
        sys.setrecursionlimit(max(before, _DEPTH))
        answer: dict[str, Any] = json.loads(text)
    except RecursionError:
        raise ConfigError("nests too deeply to be checked; split it into WITH parts") from None
    finally:
        sys.setrecursionlimit(before)
    if answer.get("error_type") == "parser":
        raise ConfigError(
            f"is not valid SQL: {answer['error_message']}{_place(sql, answer)}; correct it"
        )
    statements = answer.get("statements", [])
    if answer["error"] or len(statements) != 1:
        what_it_is = "it is of another kind" if answer["error"] else f"it holds {len(statements)}"
        raise ConfigError(f"must be one SELECT (or WITH ... SELECT); {what_it_is}")
    node: Node = statements[0]["node"]
    return node


def _place(sql: str, answer: Node) -> str:
    """Return the line of a parser's error, or an empty text where it names no position."""
    position = str(answer.get("position", ""))  # in bytes
    if not position.isdigit():
        return ""
    line = sql.encode()[: int(position)].count(b"\n") + 1
    return f" (line {line})"


def walk(root: Any) -> Iterator[Node]:
    """Yield every node of a tree; without recursion, since a long sum is a deep tree."""
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _tables(root: Node) -> Iterator[str]:
    """Yield the tables that no WITH of their own scope names.

    DuckDB compares names without case; ours are in small letters.
    """
    waiting: list[tuple[Any, frozenset[str]]] = [(root, frozenset())]
    while waiting:
        value, with_names = waiting.pop()
        if isinstance(value, list):
            waiting.extend((item, with_names) for item in value)
        if not isinstance(value, dict):
            continue
        if value.get("type") == "RECURSIVE_CTE_NODE":
            with_names |= {str(value["cte_name"]).lower()}
        # In order: a part of a WITH sees the parts before it, and not itself.
        for part in (value.get("cte_map") or {}).get("map", []):
            waiting.append((part["value"], with_names))
            with_names |= {str(part["key"]).lower()}
        waiting.extend((child, with_names) for name, child in value.items() if name != "cte_map")
        if value.get("type") == "BASE_TABLE":
            path = [str(part).lower() for part in value["qualified_name"]["path"]]
            yield from _table_of(path, with_names)


def _table_of(path: Sequence[str], with_names: frozenset[str]) -> Iterator[str]:
    """Yield the table of a dotted name, unless a WITH names it."""
    # `recurring.t` is the part of a WITH RECURSIVE ... USING KEY.
    if len(path) == 1 or path[0] == "recurring":
        if path[-1] not in with_names:
            yield path[-1]
    else:
        yield path[-1] if set(path[:-1]) <= set(_OWN_SCHEMAS) else ".".join(path)


def refusals(root: Node, within: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield what is refused in a tree, as ends of sentences whose subject is the query."""
    # By identity: the node of a call does not say that it stands in a FROM, its parent does.
    tables = {id(node["function"]) for node in walk(root) if node.get("type") == "TABLE_FUNCTION"}
    for node in walk(root):
        if node.get("sample") is not None:
            yield (
                "takes a sample (USING SAMPLE or TABLESAMPLE), another one each time; filter by "
                "a hash of the key instead"
            )
        kind = str(node.get("type", ""))
        if kind.endswith("_NODE") and kind not in _QUERIES:
            yield f"holds {kind.split('_', maxsplit=1)[0]} within WITH; a query only selects"
        if kind == "SHOW_REF":
            yield (
                "asks DESCRIBE, SHOW or SUMMARIZE, which tell of the session; select "
                "from the sources"
            )
        if node.get("class") in ("FUNCTION", "WINDOW") and "function_name" in node:
            yield from _reasons_of_call(node, id(node) in tables, within)


def _reasons_of_call(node: Node, table: bool, within: frozenset[str]) -> Iterator[str]:
    """Yield why a call is refused."""
    name = str(node["function_name"]).lower()
    if name == "getvariable":
        if _variable(node) not in VARIABLES:
            yield (
                "calls getvariable() of something else than "
                f"{' or '.join(map(repr, VARIABLES))}; the stage sets these two"
            )
    elif node.get("is_operator") and name not in _catalogue():
        return
    elif name == "age" and _arguments(node) < 2:
        yield (
            "calls age() of one argument, which counts from today; write "
            "age(getvariable('as_of'), ...)"
        )
    elif name in within:
        return  # a macro that calls itself is judged once
    elif reason := _refusal_of(name, table, within):
        yield reason


def _arguments(node: Node) -> int:
    """Return how many arguments a call has.

    In `ordered_at.age()` the parser takes the first one for a schema.
    """
    chained = len(node["qualified_name"]["path"]) > 1 and node["qualified_name"]["path"][
        -2
    ] not in (*_OWN_SCHEMAS, "pg_catalog")
    return len(node.get("arguments", [])) + chained


def _variable(node: Node) -> str | None:
    """Return the variable that a call of getvariable asks for; empty where it is no constant."""
    if node.get("class") != "FUNCTION" or str(node.get("function_name")).lower() != "getvariable":
        return None
    arguments = [argument.get("expression", {}) for argument in node.get("arguments", [])]
    if len(arguments) != 1 or arguments[0].get("class") != "CONSTANT":
        return ""
    return str(arguments[0].get("literal", {}).get("text", "")).lower()


def _word(node: Node) -> str | None:
    """Return the name of a column that is named without its table."""
    names: Sequence[str] = node.get("column_names", []) if node.get("class") == "COLUMN_REF" else []
    return str(names[0]).lower() if len(names) == 1 else None


def _binds(con: duckdb.DuckDBPyConnection, sql: str) -> bool:
    """Tell whether every name in a query means something here."""
    try:
        con.sql(f"DESCRIBE SELECT * FROM (\n{sql}\n)")
    except duckdb.Error:
        return False
    return True
