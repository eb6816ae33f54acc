"""Drift of many columns at size, a bare numpy index and Evidently's preset beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = 20
TYPES = {f"f{number}": "int64" if number % 4 == 3 else "float64" for number in range(COLUMNS)}


def prepare(folder: Path, rows: int) -> None:
    """Write both sides: so many rows of 20 columns, one of four whole numbers."""
    for side, shift in (("reference", 0.0), ("current", 0.05)):
        path, random = folder / f"{side}.parquet", np.random.default_rng(int(shift > 0))
        if not path.exists():
            columns = {
                name: random.integers(0, 50, rows)
                if kind == "int64"
                else random.normal(shift, 1, rows)
                for name, kind in TYPES.items()
            }
            pq.write_table(pa.table(columns), path)


def bare(folder: Path) -> Callable[[], Any]:
    """Return the floor: deciles of the reference and shares of both sides, by numpy alone."""
    reference, current = _sides(folder)
    before = {name: reference.column(name).to_numpy() for name in TYPES}
    now = {name: current.column(name).to_numpy() for name in TYPES}

    def act() -> Any:
        indices = []
        for name in TYPES:
            edges = np.unique(np.quantile(before[name], np.linspace(0, 1, 11)[1:-1]))
            p, q = (
                np.maximum(
                    np.bincount(
                        np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1
                    )
                    / len(values),
                    1e-4,
                )
                for values in (before[name], now[name])
            )
            indices.append(float(np.sum((q - p) * np.log(q / p))))
        return round(max(indices), 4)

    return act


def ours(folder: Path) -> Callable[[], Any]:
    """Return our index, from Arrow, with bins for heavy, missing and unseen values."""
    from include.monitoring import psi

    reference, current = _sides(folder)

    def act() -> Any:
        found = psi.stability(reference, current, TYPES)
        return round(max(one.psi or 0.0 for one in found.values()), 4)

    return act


def evidently(folder: Path) -> Callable[[], Any]:
    """Return the peer: Evidently's preset by the same index, without its page."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    definition = DataDefinition(numerical_columns=list(TYPES))
    reference, current = (
        Dataset.from_pandas(side.to_pandas(), data_definition=definition) for side in _sides(folder)
    )

    def act() -> Any:
        snapshot = Report([DataDriftPreset(method="psi")]).run(current, reference)
        return len(snapshot.dict()["metrics"])

    return act


def _sides(folder: Path) -> tuple[pa.Table, pa.Table]:
    return (pq.read_table(folder / "reference.parquet"), pq.read_table(folder / "current.parquet"))
