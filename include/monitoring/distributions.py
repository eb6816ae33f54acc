"""The distributions of a view's features on both sides, as a page by Evidently.

Evidently puts values of the data into its page as they are, and breaks on infinities and on columns
without a value: so text is escaped, infinities are missing values, and empty columns stay out.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd

NUMERIC = ("int64", "float64")
LARGEST = 1e100  # what lies beyond, infinities among it, overflows the drawing's own sums
LONGEST_TEXT = 200  # characters

log = logging.getLogger(__name__)


def page(
    reference: pa.Table, current: pa.Table, types: Mapping[str, str], *, limit: int
) -> str | None:
    """Return Evidently's page of at most `limit` rows a side; None: it cannot be drawn."""
    before, now = _sample(reference, types, limit), _sample(current, types, limit)
    names = [str(name) for name in before.columns if name in now.columns]
    shared = [name for name in names if before[name].notna().any() and now[name].notna().any()]
    if not shared:
        return None
    os.environ.setdefault("DO_NOT_TRACK", "1")
    try:
        return _draw(before[shared], now[shared], types)
    # The page is a courtesy: whatever Evidently cannot bear changes no verdict.
    except Exception:
        log.warning(
            "Evidently cannot draw %s; the report has the indices alone",
            ", ".join(shared),
            exc_info=True,
        )
        return None


def _draw(reference: pd.DataFrame, current: pd.DataFrame, types: Mapping[str, str]) -> str:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    shared = [str(name) for name in reference.columns]
    definition = DataDefinition(
        numerical_columns=[name for name in shared if types[name] in NUMERIC],
        categorical_columns=[name for name in shared if types[name] not in NUMERIC],
    )
    sides = [
        Dataset.from_pandas(side.copy(), data_definition=definition)
        for side in (current, reference)
    ]
    snapshot = Report([DataDriftPreset(method="psi")]).run(*sides)
    return str(snapshot.get_html_str(as_iframe=False))


def _sample(rows: pa.Table, types: Mapping[str, str], limit: int) -> pd.DataFrame:
    """Return rows that Evidently can draw: evenly spread, finite numbers, escaped text."""
    if len(rows) > limit:
        rows = rows.take(pa.array(np.linspace(0, len(rows) - 1, limit).astype(np.int64)))
    frame: pd.DataFrame = rows.to_pandas()
    for name in map(str, frame.columns):
        if types[name] in NUMERIC:
            values = frame[name].astype(float)
            frame[name] = values.where(values.abs() < LARGEST)
        else:
            frame[name] = frame[name].map(_shown_text, na_action="ignore")
    return frame


def _shown_text(value: object) -> str | None:
    return None if value is None else escape(str(value))[:LONGEST_TEXT]
