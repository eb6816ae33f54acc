"""Charts of reports: each is a figure for plotly.js, and the same numbers as a table.

Figures are plain data, as plotly.js reads them. Plotly's Python classes would give the same JSON,
but cost a tenth of a second a task; a test builds them from our figures, so a property that Plotly
does not know is found there.

Colours are names of the style sheet's variables (`--accent`); the script looks them up when it
draws, so one figure serves the light page and the dark one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

ACCENT, NEUTRAL, ALARM, CAUTION, INK, SOFT, LINE = (
    "--accent",
    "--neutral",
    "--fail",
    "--hold",
    "--ink",
    "--soft",
    "--line",
)
CLEAR = "rgba(0,0,0,0)"
SHARE = {"range": [-0.02, 1.02], "tickformat": ".1f"}  # an axis from 0 to 1, its lines whole
HEIGHT = 320  # pixels
BAR_HEIGHT, AROUND_BARS = 26, 60  # pixels of a bar, and of titles and axis together
DIGITS = 5  # of a coordinate: a pixel is wider


@dataclass(frozen=True)
class Chart:
    """A drawing, what it shows in a sentence, and its numbers as rows of text for its table."""

    id: str
    title: str
    figure: Mapping[str, Any]
    description: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def line(
    name: str,
    points: Iterable[Sequence[float]],
    *,
    colour: str = ACCENT,
    dash: str = "solid",
    markers: bool = False,
) -> dict[str, Any]:
    """Return a trace through points, each x, y and what else is not drawn."""
    drawn = list(points)
    return {
        "type": "scatter",
        "mode": "lines+markers" if markers else "lines",
        "name": label(name),
        "x": [coordinate(point[0]) for point in drawn],
        "y": [coordinate(point[1]) for point in drawn],
        "line": {"color": colour, "width": 2, "dash": dash},
        "marker": {"color": colour, "size": 7},
    }


def diagonal(name: str) -> dict[str, Any]:
    """Return the line from (0, 0) to (1, 1), by which curves of shares are read."""
    trace = line(name, [(0, 0), (1, 1)], colour=NEUTRAL, dash="dot")
    return trace | {"line": {"color": NEUTRAL, "width": 1, "dash": "dot"}, "hoverinfo": "skip"}


def bars(
    name: str, x: Sequence[Any], y: Sequence[Any], *, colour: str | Sequence[str], across: bool
) -> dict[str, Any]:
    """Return bars; `across` from left to right (y are names), else upwards (x are places)."""
    return {
        "type": "bar",
        "name": label(name),
        "orientation": "h" if across else "v",
        "x": [coordinate(value) for value in x],
        "y": [label(value) for value in y] if across else [coordinate(value) for value in y],
        "marker": {"color": colour if isinstance(colour, str) else list(colour)},
    }


def figure(traces: Sequence[Mapping[str, Any]], *, x: str, y: str, **layout: Any) -> dict[str, Any]:
    """Return a figure with titled axes; `layout` changes what all charts have in common."""
    axis = {"gridcolor": LINE, "zerolinecolor": LINE, "linecolor": LINE, "fixedrange": True}
    common: dict[str, Any] = {
        "height": HEIGHT,
        "margin": {"l": 48, "r": 12, "t": 8, "b": 44},
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": SOFT},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "xaxis": {**axis, "title": {"text": label(x), "standoff": 8}},
        "yaxis": {**axis, "title": {"text": label(y), "standoff": 8}, "automargin": True},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hoverlabel": {"font": {"family": "system-ui, sans-serif"}},
    }
    for name, value in layout.items():
        # Axes and the like are added to, other properties replaced.
        common[name] = {**common.get(name, {}), **value} if isinstance(value, dict) else value
    return {"data": list(traces), "layout": common}


def ranked_bars(
    names: Sequence[str],
    values: Sequence[float],
    *,
    axis: str,
    colours: Sequence[str],
    limit: float | None = None,
    start: float = 0.0,
) -> dict[str, Any]:
    """Return bars from left to right, the first on top, with a mark at `limit`.

    The axis begins at `start`: where a number says nothing, as an AUC of 0.5 does.
    """
    lengths = [value - start for value in values]
    trace = bars(axis, lengths, names, colour=colours, across=True) | {
        "base": start,
        "hovertemplate": "%{y}: %{x:.4f}<extra></extra>",
    }
    largest = max([*values, *([] if limit is None else [limit])], default=start)
    marks = []
    if limit is not None:
        marks = [
            {
                "type": "line",
                "x0": limit,
                "x1": limit,
                "y0": 0,
                "y1": 1,
                "yref": "paper",
                "line": {"color": INK, "width": 2},
            }
        ]
    return figure(
        [trace],
        x=axis,
        y="",
        height=AROUND_BARS + BAR_HEIGHT * len(names),
        showlegend=False,
        bargap=0.35,
        shapes=marks,
        xaxis={"range": [start, start + 1.05 * (largest - start)]},
        # Plotly counts upwards; names that look like numbers or dates are names.
        yaxis={"autorange": "reversed", "type": "category", "showgrid": False},
    )


def label(text: object) -> str:
    """Return text as plotly.js shows it as it is: it takes some tags for markup."""
    return escape(str(text), quote=False)


def coordinate(value: Any) -> Any:
    """Return a number as a figure holds it; what is not finite is a gap."""
    if isinstance(value, float):
        return round(value, DIGITS) if math.isfinite(value) else None
    return value
