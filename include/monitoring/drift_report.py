"""The drift report for people: the indices that decided, with a link to Evidently's page over a
bounded sample of each view.

Evidently puts values of the data into its page as they are, and breaks on infinities and on columns
without a value: so text is escaped, infinities are missing values, and empty columns stay out of
its part.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from include.config.use_case import UseCase
from include.reports.page import NONE, badge, card, document, header, number, tiles, write

if TYPE_CHECKING:
    import pandas as pd

NUMERIC = ("int64", "float64")
LARGEST = 1e100  # what lies beyond, infinities among it, overflows the drawing's own sums
COLOURS = {"pass": "pass", "drift": "fail", "hold": "hold"}

log = logging.getLogger(__name__)


def write_report(
    path: Path,
    use_case: UseCase,
    key: str,
    mode: str,
    outputs: Mapping[str, Any],
    *,
    reference: Mapping[str, pa.Table],
    current: Mapping[str, pa.Table],
    kinds: Mapping[str, str],
) -> None:
    """Write the page of a verdict to `path`, and Evidently's page of each view (`reference` and
    `current` by view) beside it.
    """
    drawn: dict[str, str | None] = {}
    limit = use_case.monitoring.report_rows
    for view in reference:
        beside = path.with_name(f"{path.stem}-{view}.html")
        text = _evidently(
            _frame(reference[view], kinds, limit), _frame(current[view], kinds, limit), kinds
        )
        if text is None:
            beside.unlink(missing_ok=True)
        else:
            write(beside, text)
        drawn[view] = None if text is None else beside.name
    rows = {view: (len(reference[view]), len(current[view])) for view in reference}
    write(path, page(use_case, key, mode, outputs, rows, drawn))


def page(
    use_case: UseCase,
    key: str,
    mode: str,
    outputs: Mapping[str, Any],
    rows: Mapping[str, tuple[int, int]],
    drawn: Mapping[str, str | None],
) -> str:
    """Return the page; `rows` are those of the reference and of the partition by view, `drawn`
    the files of Evidently's pages.
    """
    title, verdict = use_case.title or use_case.name, str(outputs["verdict"])
    about = f"Drift of {use_case.name}, partition {key} ({mode}), {_against(outputs['reference'])}"
    features, limit = outputs["features"], float(outputs["limit"])
    body = [header(title, verdict, about, outputs["reasons"], colour=COLOURS.get(verdict, "hold"))]
    if features:
        body += [_tiles(features, limit), _indices(features, limit)]
    if rows:
        body.append(_views(rows, drawn, outputs.get("views", {})))
    return document(f"{title} {key}: {verdict}", body)


def _against(reference: Mapping[str, Any] | None) -> str:
    if reference is None:
        return "no reference"
    if reference["version"] is None:
        return f"against the partition before, {reference['partition']}"
    return f"against the opponent, version {reference['version']} of {reference['partition']}"


def _tiles(features: Mapping[str, Mapping[str, Any]], limit: float) -> str:
    known = [float(one["psi"]) for one in features.values() if one["psi"] is not None]
    return tiles(
        [
            ("Features", str(len(features))),
            ("Above the limit", str(sum(value > limit for value in known))),
            ("Not computable", str(len(features) - len(known))),
            ("Largest PSI", number(max(known, default=None))),
            ("Limit", f"{limit:g}"),
        ]
    )


def _indices(features: Mapping[str, Mapping[str, Any]], limit: float) -> str:
    """Return the indices as bars against the limit: what drifted first, then what cannot be
    computed, then the rest.
    """
    largest = max(
        [2 * limit, *(float(one["psi"]) for one in features.values() if one["psi"] is not None)]
    )
    mark = f'<i style="left:{100 * limit / largest:.1f}%"></i>'
    rows = [_index(name, features[name], limit, largest, mark) for name in _order(features, limit)]
    head = (
        "<tr><th>Feature</th><th>Index, and the limit</th><th class=n>PSI</th><th class=n>Missing "
        "before</th><th class=n>Missing now</th><th class=n>Never seen before</th><th></th></tr>"
    )
    return card("Population stability of each feature", f"<table>{head}{''.join(rows)}</table>")


def _order(features: Mapping[str, Mapping[str, Any]], limit: float) -> list[str]:
    def place(name: str) -> tuple[int, float, str]:
        psi = features[name]["psi"]
        return (1, 0.0, name) if psi is None else (0 if psi > limit else 2, -float(psi), name)

    return sorted(features, key=place)


def _index(name: str, one: Mapping[str, Any], limit: float, largest: float, mark: str) -> str:
    psi = one["psi"]
    verdict = "hold" if psi is None else "drift" if psi > limit else "pass"
    width = 0.0 if psi is None else max(0.5, 100 * float(psi) / largest)
    kind = "bar over" if verdict == "drift" else "bar"
    bar = f'<div class="track"><div class="{kind}" style="width:{width:.1f}%"></div>{mark}</div>'
    parts = ("reference_missing", "current_missing", "unseen")
    shares = "".join(
        f"<td class=n>{_share(None if psi is None else one.get(part))}</td>" for part in parts
    )
    note = f'<div class="soft">{escape(str(one["note"]))}</div>' if one["note"] else ""
    return (
        f'<tr><td style="width:28%"><span class="mono">{escape(name)}</span>{note}</td><td '
        f'style="width:28%">{bar}</td>'
        f"<td class=n>{number(psi)}</td>{shares}<td "
        f"class=n>{badge(verdict, COLOURS[verdict])}</td></tr>"
    )


def _views(
    rows: Mapping[str, tuple[int, int]],
    drawn: Mapping[str, str | None],
    told: Mapping[str, Mapping[str, Any]],
) -> str:
    lines = "".join(
        f'<tr><td class="mono">{escape(view)}</td><td class=n>{before:,}</td><td '
        f"class=n>{now:,}</td>"
        f"<td class=n>{_share(told.get(view, {}).get('lost'))}</td>"
        f"<td>{_link(drawn.get(view))}</td></tr>"
        for view, (before, now) in rows.items()
    )
    head = (
        "<tr><th>View</th><th class=n>Rows before</th><th class=n>Rows now</th>"
        "<th class=n>Left since then</th><th>Distributions, by Evidently</th></tr>"
    )
    return card("What was compared", f"<table>{head}{lines}</table>")


def _link(name: str | None) -> str:
    if name is None:
        return '<span class="soft">could not be drawn; the indices stand</span>'
    return f'<a href="{escape(name)}">open</a>'


def _share(value: Any) -> str:
    return NONE if value is None else f"{value:.1%}"


def _evidently(
    reference: pd.DataFrame, current: pd.DataFrame, kinds: Mapping[str, str]
) -> str | None:
    """Return Evidently's page, or None where no column has values on both sides."""
    names = [str(name) for name in reference.columns if name in current.columns]
    shared = [
        name for name in names if reference[name].notna().any() and current[name].notna().any()
    ]
    if not shared:
        return None
    os.environ.setdefault("DO_NOT_TRACK", "1")
    try:
        return _drawn(reference[shared], current[shared], kinds)
    except Exception:
        log.warning(
            "Evidently cannot draw %s; the report has the indices alone",
            ", ".join(shared),
            exc_info=True,
        )
        return None


def _drawn(reference: pd.DataFrame, current: pd.DataFrame, kinds: Mapping[str, str]) -> str:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    shared = [str(name) for name in reference.columns]
    definition = DataDefinition(
        numerical_columns=[name for name in shared if kinds[name] in NUMERIC],
        categorical_columns=[name for name in shared if kinds[name] not in NUMERIC],
    )
    sides = [
        Dataset.from_pandas(side.copy(), data_definition=definition)
        for side in (current, reference)
    ]
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
                lambda value: None if value is None else escape(str(value))[:200],
                na_action="ignore",
            )
    return frame
