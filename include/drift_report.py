"""The drift report for people: Evidently's page over a bounded sample, under a table of the indices that decided.

Evidently puts values of the data into its page as they are, and breaks on infinities and on columns without a value:
so text is escaped, infinities are missing values, and empty columns stay out of its part.
"""

from __future__ import annotations

import html
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd

NUMERIC = ("int64", "float64")
LARGEST = 1e100  # what lies beyond, infinities among it, overflows the drawing's own sums

log = logging.getLogger(__name__)


def write(
    path: Path,
    title: str,
    reference: Mapping[str, pa.Table],
    current: Mapping[str, pa.Table],
    kinds: Mapping[str, str],
    features: Mapping[str, Mapping[str, Any]],
    *,
    rows: int,
) -> None:
    """Write the report of all views (`reference` and `current` by view) to `path`, at most `rows` rows a side."""
    pages = [_evidently(_frame(reference[view], kinds, rows), _frame(current[view], kinds, rows), kinds) for view in reference]
    top = _table(title, features)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    drawn = [page for page in pages if page is not None]
    if not drawn:
        temporary.write_text(
            f"<!doctype html><html><head><meta charset='utf-8'></head><body>{top}</body></html>", encoding="utf-8"
        )
    else:
        temporary.write_text(drawn[0].replace("<body>", f"<body>{top}", 1), encoding="utf-8")
    temporary.replace(path)
    for number, page in enumerate(drawn[1:], start=2):
        path.with_name(f"{path.stem}-{number}.html").write_text(page, encoding="utf-8")


def _evidently(reference: pd.DataFrame, current: pd.DataFrame, kinds: Mapping[str, str]) -> str | None:
    """Return Evidently's page, or None where no column has values on both sides."""
    names = [str(name) for name in reference.columns if name in current.columns]
    shared = [name for name in names if reference[name].notna().any() and current[name].notna().any()]
    if not shared:
        return None
    os.environ.setdefault("DO_NOT_TRACK", "1")
    try:
        return _drawn(reference[shared], current[shared], kinds)
    except Exception:
        log.warning("Evidently cannot draw %s; the report has the indices alone", ", ".join(shared), exc_info=True)
        return None


def _drawn(reference: pd.DataFrame, current: pd.DataFrame, kinds: Mapping[str, str]) -> str:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    shared = [str(name) for name in reference.columns]
    definition = DataDefinition(
        numerical_columns=[name for name in shared if kinds[name] in NUMERIC],
        categorical_columns=[name for name in shared if kinds[name] not in NUMERIC],
    )
    sides = [Dataset.from_pandas(side.copy(), data_definition=definition) for side in (current, reference)]
    snapshot = Report([DataDriftPreset(method="psi")]).run(*sides)
    return str(snapshot.get_html_str(as_iframe=False))


def _frame(rows: pa.Table, kinds: Mapping[str, str], limit: int) -> pd.DataFrame:
    """Return a sample that Evidently can draw: evenly spread rows, finite numbers, escaped text."""
    if len(rows) > limit:
        rows = rows.take(pa.array(np.linspace(0, len(rows) - 1, limit).astype(np.int64)))
    frame: pd.DataFrame = rows.to_pandas()
    for name in map(str, frame.columns):
        if kinds[name] in NUMERIC:
            values = frame[name].astype(float)
            frame[name] = values.where(values.abs() < LARGEST)
        else:
            frame[name] = frame[name].map(
                lambda value: None if value is None else html.escape(str(value))[:200], na_action="ignore"
            )
    return frame


def _table(title: str, features: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the indices as HTML, the largest first."""
    order = sorted(features, key=lambda name: -1.0 if features[name]["psi"] is None else -float(features[name]["psi"]))
    lines = [
        f"<tr><td>{html.escape(name)}</td><td>{_number(features[name]['psi'])}</td>"
        f"<td>{_number(features[name]['reference_missing'])}</td><td>{_number(features[name]['current_missing'])}</td>"
        f"<td>{html.escape(str(features[name]['note']))}</td></tr>"
        for name in order
    ]
    head = "<tr><th>feature</th><th>PSI</th><th>missing before</th><th>missing now</th><th></th></tr>"
    style = "font-family:sans-serif;padding:1em"
    return f"<div style='{style}'><h2>{html.escape(title)}</h2><table cellpadding=4>{head}{''.join(lines)}</table></div>"


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4f}"
