"""Rows with ten honest features, and features that know the outcome in one way or another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from include.config.use_case import UseCase
from include.config.use_case_file import parse
from include.training import leaks
from include.training.leak_findings import Findings

TYPES = {pa.int64(): "int64", pa.float64(): "float64", pa.bool_(): "bool", pa.string(): "string"}
Columns = dict[str, Any]


def case(table: pa.Table, training: str = "{}") -> UseCase:
    """Return a use case whose features are all columns but key and label."""
    return parse(yaml_of(table, training))


def yaml_of(table: pa.Table, training: str = "{}") -> str:
    """Return the file of that use case."""
    kinds = {
        name: TYPES[table.schema.field(name).type]
        for name in table.column_names
        if name not in ("key", "label")
    }
    listed = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
    columns = ", ".join(f"{name}: {{type: {kind}}}" for name, kind in kinds.items())
    return f"""name: rows
history: {{first: 2026-01-01}}
entity: {{name: thing, key: key}}
sources:
  rows: {{path: x.csv, key: [key, event_timestamp], columns: {{key: {{type: int64}},
      came: {{type: int64}}, {columns}}}}}
label: {{source: rows, column: came, delay: 2d}}
features:
  facts: {{grain: event, source: rows, columns: {{{listed}}}}}
training: {training}
"""


def made(
    change: Callable[[Columns, Any, Any], None] = lambda *_: None, rows: int = 3000
) -> pa.Table:
    """Return rows with ten honest features; `change` gets the columns, the outcomes and a
    generator.
    """
    generator = np.random.default_rng(5)
    values = generator.normal(size=(rows, 8))
    chance = 1 / (1 + np.exp(-values @ np.array([0.9, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.0])))
    labels = (generator.random(rows) < chance).astype(float)
    columns: Columns = {f"x{number}": values[:, number] for number in range(8)}
    columns["channel"] = np.array(["shop", "web", "phone"])[generator.integers(0, 3, rows)]
    columns["count"] = pa.array(generator.integers(0, 9, rows), pa.int64())
    change(columns, labels, generator)
    return pa.table({"key": pa.array(range(rows), pa.int64()), "label": labels, **columns})


def check(table: pa.Table, training: str = "{}") -> Findings:
    return leaks.check(table, case(table, training))


def put(name: str, make: Callable[[Any, Any], Any]) -> Callable[[Columns, Any, Any], None]:
    return lambda columns, labels, generator: columns.update({name: make(labels, generator)})


def some(labels: Any, generator: Any, share: float) -> Any:
    """Return which rows of outcome 1 are marked, so many of them."""
    return (labels == 1) & (generator.random(len(labels)) < share)


def closed(labels: Any, generator: Any) -> pa.Array:
    return pa.array(np.where(some(labels, generator, 0.3), 5.0, np.nan), from_pandas=True)


def lost(labels: Any, generator: Any) -> pa.Array:
    return pa.array(np.where(some(labels, generator, 0.3), np.nan, 5.0), from_pandas=True)


def recovered(labels: Any, generator: Any) -> Any:
    return np.where(some(labels, generator, 0.3), generator.random(len(labels)), 0.0)


def cut(labels: Any, generator: Any) -> Any:
    """Values all over the place, but between 40 and 60 for outcome 1 alone."""
    usual = generator.random(len(labels)) * 100
    usual = np.where((usual > 40) & (usual < 60), usual / 3, usual)
    return np.where(some(labels, generator, 0.25), 41 + 18 * generator.random(len(labels)), usual)


def status(labels: Any, generator: Any) -> Any:
    return np.where(
        some(labels, generator, 0.3),
        "settled",
        np.array(["a", "b"])[generator.integers(0, 2, len(labels))],
    )
