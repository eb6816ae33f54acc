"""Figures: such as Plotly knows them, with names that cannot be markup and no NaN."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import plotly.graph_objects as go

from include.reports import charts


def known_to_plotly(figure: dict[str, Any]) -> go.Figure:
    """The figure as Plotly's classes take it, which refuse properties that they do not know."""
    text = json.dumps(figure, allow_nan=False)
    return go.Figure(json.loads(re.sub(r'"--[a-z]+"', '"red"', text)))


def test_lines_and_bars_are_figures_that_plotly_knows() -> None:
    points = [(0.0, 0.123456789, 7), (1.0, math.nan, 7)]
    line = charts.line("a", points, dash="dash", markers=True)
    assert line["y"] == [0.12346, None], "what is no number is a gap"
    assert line["x"] == [0.0, 1.0]
    bars = charts.bars("b", [0.1, 0.2], [3, 4], colour=charts.NEUTRAL, across=False)
    figure = charts.figure(
        [charts.diagonal("even"), line, bars], x="<x>", y="y", xaxis=charts.SHARE, barmode="group"
    )
    assert len(known_to_plotly(figure).data) == 3
    axis = figure["layout"]["xaxis"]
    assert axis["title"]["text"] == "&lt;x&gt;"
    assert axis["tickformat"] == ".1f", "what is given is added to what all axes have"
    assert axis["gridcolor"] == charts.LINE


def test_ranked_bars_begin_where_they_say_nothing_and_mark_the_limit() -> None:
    figure = charts.ranked_bars(
        ["<b>one</b>", "2026-01-01"],
        [0.9, 0.6],
        axis="AUC",
        colours=[charts.ALARM, charts.ACCENT],
        limit=0.8,
        start=0.5,
    )
    known_to_plotly(figure)
    (bars,) = figure["data"]
    assert bars["y"] == ["&lt;b&gt;one&lt;/b&gt;", "2026-01-01"]
    assert (bars["base"], bars["x"]) == (0.5, [0.4, 0.1])
    assert figure["layout"]["yaxis"]["type"] == "category", "a name may look like a date"
    assert [mark["x0"] for mark in figure["layout"]["shapes"]] == [0.8]
    assert (
        figure["layout"]["height"]
        > charts.ranked_bars(["a"], [0.9], axis="AUC", colours=[charts.ALARM])["layout"]["height"]
    )


def test_a_limit_beyond_all_bars_is_in_sight() -> None:
    figure = charts.ranked_bars(["a"], [0.01], axis="PSI", colours=["--accent"], limit=0.2)
    assert figure["layout"]["xaxis"]["range"][1] > 0.2
