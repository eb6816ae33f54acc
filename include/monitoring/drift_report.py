"""The drift report for people: the indices that decided, with a link to the distributions.

The distributions of each view are a page by Evidently, over a bounded sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa
from msgspec import UNSET

from include.artefacts.pages import page_address, put_page
from include.artefacts.store import ArtefactStore
from include.config.use_case import UseCase
from include.monitoring import distributions
from include.pipeline.drift_outputs import ComparedWith, DriftOutputs, FeatureStability
from include.reports import charts
from include.reports.charts import Chart
from include.reports.page import Tile, number

TEMPLATE = "drift.html"
COLOURS = {"pass": "pass", "drift": "fail", "hold": "hold"}
BARS = {"pass": charts.ACCENT, "drift": charts.ALARM}
MOST_BARS = 40  # the table below the chart has every feature


class FeatureLine(NamedTuple):
    """A line of the table of features; shares are None where the index is not computable."""

    name: str
    note: str
    psi: float | None
    reference_missing: float | None
    current_missing: float | None
    unseen: float | None
    verdict: str
    colour: str


class ViewLine(NamedTuple):
    """A line of the table of views; `page` is the address of its distributions."""

    name: str
    reference: int
    current: int
    lost: float | None
    page: str | None


def write_report(
    store: ArtefactStore,
    use_case: UseCase,
    key: str,
    mode: str,
    outputs: DriftOutputs,
    *,
    reference: Mapping[str, pa.Table],
    current: Mapping[str, pa.Table],
    types: Mapping[str, str],
) -> str:
    """Write the page of a verdict, and Evidently's page of each view beside it; return its address.

    `reference` and `current` are rows by view, `types` the declared type of each feature.

    Raises:
        Unavailable: a page cannot be written.
    """
    views = []
    for view, before in reference.items():
        beside = page_address(use_case.name, key, f"drift-{view}")
        drawn = distributions.page(
            before, current[view], types, limit=use_case.monitoring.report_rows
        )
        if drawn is None:
            store.forget(beside)
        else:
            store.write(beside, drawn)
        compared = None if outputs.views is UNSET else outputs.views.get(view)
        lost = None if compared is None else compared.lost
        address = None if drawn is None else beside.rpartition("/")[2]
        views.append(ViewLine(view, len(before), len(current[view]), lost, address))
    uri = page_address(use_case.name, key, "drift")
    put_page(store, uri, TEMPLATE, content(use_case, key, mode, outputs, views))
    return uri


def content(
    use_case: UseCase, key: str, mode: str, outputs: DriftOutputs, views: list[ViewLine]
) -> dict[str, Any]:
    """Return what the template shows of one comparison."""
    lines = [
        _feature_line(name, outputs.features[name], outputs.limit) for name in _in_order(outputs)
    ]
    return {
        "title": use_case.title or use_case.name,
        "key": key,
        "verdict": outputs.verdict,
        "colour": COLOURS[outputs.verdict],
        "about": (
            f"Drift of {use_case.name}, partition {key} ({mode}), {_against(outputs.reference)}"
        ),
        "caveat": use_case.caveat,
        "reasons": outputs.reasons,
        "tiles_shown": _tiles(outputs),
        "indices": _indices(lines, outputs.limit),
        "features": lines,
        "views": views,
    }


def _against(reference: ComparedWith | None) -> str:
    if reference is None:
        return "no reference"
    if reference.version is None:
        return f"against the partition before, {reference.partition}"
    return f"against the opponent, version {reference.version} of {reference.partition}"


def _tiles(outputs: DriftOutputs) -> list[Tile]:
    indices = [one.psi for one in outputs.features.values() if one.psi is not None]
    return [
        Tile("Features", str(len(outputs.features))),
        Tile("Above the limit", str(sum(psi > outputs.limit for psi in indices))),
        Tile("Not computable", str(len(outputs.features) - len(indices))),
        Tile("Largest PSI", number(max(indices, default=None))),
        Tile("Limit", f"{outputs.limit:g}"),
    ]


def _indices(lines: list[FeatureLine], limit: float) -> Chart | None:
    """Return the indices as bars against the limit; those that cannot be computed have none."""
    shown = [(line, line.psi) for line in lines if line.psi is not None][:MOST_BARS]
    if not shown:
        return None
    return Chart(
        id="indices",
        title="",
        figure=charts.ranked_bars(
            [line.name for line, _ in shown],
            [psi for _, psi in shown],
            axis="population stability index, and the limit",
            colours=[BARS[line.verdict] for line, _ in shown],
            limit=limit,
        ),
        description="Population stability index of features; the table below has the numbers",
        columns=[],
        rows=[],
    )


def _in_order(outputs: DriftOutputs) -> list[str]:
    """Return the features: what drifted most first, then what cannot be computed, then the rest."""

    def place(name: str) -> tuple[int, float, str]:
        psi = outputs.features[name].psi
        return (1, 0.0, name) if psi is None else (0 if psi > outputs.limit else 2, -psi, name)

    return sorted(outputs.features, key=place)


def _feature_line(name: str, feature: FeatureStability, limit: float) -> FeatureLine:
    psi = feature.psi
    verdict = "hold" if psi is None else "drift" if psi > limit else "pass"
    return FeatureLine(
        name,
        feature.note,
        psi,
        None if psi is None else feature.reference_missing,
        None if psi is None else feature.current_missing,
        None if psi is None else feature.unseen,
        verdict,
        COLOURS[verdict],
    )
