"""Which features tell who somebody is, as columns and views of a use case mark them."""

from __future__ import annotations

from collections.abc import Iterator

from include.config.use_case import UseCase
from include.point_in_time.queries import resolve_sql
from include.point_in_time.sql_tree import parse_tree, walk


def pii_features(use_case: UseCase) -> list[str]:
    """Return the features that the prediction log is written without, in order of the views.

    Where a view does not list them they are those with the name of a marked column. What SQL makes
    of a marked column may have another name, so of a view whose SQL reads one all features count,
    until its `pii` says which.

    Raises:
        ConfigError: the SQL of a view cannot be read.
    """
    marked = {
        name
        for source in use_case.sources.values()
        for name, column in source.columns.items()
        if column.pii == "value"
    }
    found: list[str] = []
    for view in use_case.features.values():
        if view.pii is not None:
            found += [name for name in view.columns if name in view.pii]
            continue
        reads = marked and view.sql and _reads_any(resolve_sql(use_case, view.sql), marked)
        found += [name for name in view.columns if reads or name in marked]
    return found


def describe_log(use_case: UseCase) -> Iterator[tuple[str, str]]:
    """Yield a sentence for people about what the prediction log is written without, if anything."""
    cut, parts = pii_features(use_case), []
    if cut:
        parts.append(f"without {', '.join(cut)}")
    if use_case.hashes_entity:
        parts.append(f"{use_case.entity.key} as a keyed hash")
    if parts:
        yield "prediction log", "; ".join(parts)


def _reads_any(sql: str, columns: set[str]) -> bool:
    """Tell whether a query reads one of the columns: by its name, by a star, or as a whole row."""
    nodes = list(walk(parse_tree(sql)))
    rows = {
        str(node.get(field, "")).lower()
        for node in nodes
        if "class" not in node  # of a relation, not of an expression
        for field in ("alias", "table_name")
    } - {""}
    wanted = {name.lower() for name in columns}
    for node in nodes:
        if node.get("class") == "STAR":
            return True
        names = [str(name).lower() for name in node.get("column_names", ())]
        if wanted.intersection(names) or (len(names) == 1 and names[0] in rows - wanted):
            return True
    return False
