"""The charts of the profile page: decisions over time, how soon outcomes come, values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from include.onboarding.cohorts import Cohorts
from include.onboarding.frame_profile import ColumnProfile, FrameProfile
from include.reports import charts
from include.reports.charts import Chart
from include.reports.page import number, percent

COLUMN_HEIGHT = 210  # pixels
Z95 = 1.96
SHARES = {"tickformat": ".0%", "rangemode": "tozero", "nticks": 5}
Kinds = Sequence[tuple[str, list[float], str]]  # name, share of each bar, colour


def draw_over_time(cohorts: Cohorts | None) -> list[Chart]:
    """Return the label's rate and the decisions by period."""
    if cohorts is None or not len(cohorts.periods):
        return []
    names, counts = cohorts.periods.short_names, cohorts.counts
    rates = [count.ones / count.mature if count.mature else None for count in counts]
    spans = [_interval(count.ones, count.mature) for count in counts]
    axis = {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": names,
        "automargin": True,
    }
    ends = list(zip(rates, spans, strict=True))
    trace = charts.line("share of outcome 1", [], markers=True) | {
        "x": names,
        "y": [charts.coordinate(rate) for rate in rates],
        "error_y": {
            "symmetric": False,
            "array": [None if rate is None else high - rate for rate, (_, high) in ends],
            "arrayminus": [None if rate is None else rate - low for rate, (low, _) in ends],
            "color": charts.SOFT,
            "thickness": 1,
        },
    }
    unit = cohorts.periods.unit
    kinds = (
        ("with an outcome", [count.mature for count in counts], charts.ACCENT),
        ("without (censored)", [count.censored for count in counts], charts.CAUTION),
        ("too young", [count.immature for count in counts], charts.NEUTRAL),
    )
    return [
        Chart(
            id="rate",
            title=f"Share of outcome 1 by {unit} of the decision",
            figure=charts.figure(
                [trace],
                x="",
                y="share of outcome 1",
                showlegend=False,
                xaxis=axis,
                yaxis={"rangemode": "tozero", "tickformat": ".1%"},
            ),
            description=f"Share of outcome 1 by {unit}, with 95 % intervals; the table has it",
            columns=["From", "Share of outcome 1", "By chance from", "to", "Decisions"],
            rows=[
                [
                    name,
                    percent(rate),
                    *(percent(end if count.mature else None) for end in span),
                    number(count.mature),
                ]
                for name, rate, span, count in zip(names, rates, spans, counts, strict=True)
            ],
        ),
        Chart(
            id="decisions",
            title=f"Decisions by {unit}, and what became of them",
            figure=charts.figure(
                [
                    charts.bars(name, names, values, colour=colour, across=False)
                    for name, values, colour in kinds
                ],
                x="",
                y="decisions",
                barmode="stack",
                bargap=0.2,
                xaxis=axis,
            ),
            description=f"Decisions by {unit}: with an outcome, censored, too young",
            columns=["From", *(name for name, _, _ in kinds)],
            rows=[
                [name, number(count.mature), number(count.censored), number(count.immature)]
                for name, count in zip(names, counts, strict=True)
            ],
        ),
    ]


def _interval(ones: int, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share: what chance alone may make of it."""
    if not count:
        return 0.0, 1.0
    share, weight = ones / count, Z95**2 / count
    middle = (share + weight / 2) / (1 + weight)
    half = Z95 / (1 + weight) * (share * (1 - share) / count + weight / (4 * count)) ** 0.5
    # Rounding may leave the share itself outside, by the last digit.
    return min(share, middle - half), max(share, middle + half)


def draw_maturity(cohorts: Cohorts | None) -> list[Chart]:
    """Return how soon outcomes are known, unless they all are at once."""
    if cohorts is None or len(cohorts.days) == 1:
        return []
    points = [
        (day, share)
        for day, share in zip(cohorts.days, cohorts.known, strict=True)
        if share is not None
    ]
    chart = Chart(
        id="maturity",
        title="How soon outcomes are known",
        figure=charts.figure(
            [
                charts.line("known", points, markers=True)
                | {"hovertemplate": "after %{x} days: %{y:.1%}<extra></extra>"}
            ],
            x="days (the upright line: label.delay)",
            y="share of mature decisions",
            showlegend=False,
            yaxis={"range": [-0.02, 1.04], "tickformat": ".0%"},
            xaxis={"rangemode": "tozero"},
            shapes=[
                {
                    "type": "line",
                    "x0": cohorts.delay,
                    "x1": cohorts.delay,
                    "y0": 0,
                    "y1": 1,
                    "yref": "paper",
                    "line": {"color": charts.INK, "width": 2},
                }
            ],
        ),
        description="Share of the mature decisions whose outcome was known so many days later",
        columns=["Days after the decision", "Outcome known"],
        rows=[
            [shown_days(day, cohorts.delay), percent(share)]
            for day, share in zip(cohorts.days, cohorts.known, strict=True)
        ],
    )
    return [chart]


def shown_days(day: float, delay: float) -> str:
    shown = f"{day:,.6g}"
    return f"{shown} (delay)" if day == delay else shown


def draw_ranked(profile: FrameProfile) -> Chart:
    shown = by_auc(profile.columns)[:15]
    return Chart(
        id="association",
        title="What tells most by itself",
        figure=charts.ranked_bars(
            [column.name for column in shown],
            [column.auc for column in shown],
            axis="AUC of the feature by itself",
            colours=[charts.ACCENT] * len(shown),
            start=0.5,
        ),
        description="AUC of each feature by itself; the table below has them all",
        columns=[],
        rows=[],  # the card's own table has them
    )


def draw_values(column: ColumnProfile, place: int, zeros: int, ones: int) -> Chart:
    """Return the values of a feature, as shares of the rows of each outcome."""
    kinds = (
        ("outcome 0", [bar.zeros / max(1, zeros) for bar in column.bars], charts.NEUTRAL),
        ("outcome 1", [bar.ones / max(1, ones) for bar in column.bars], charts.ACCENT),
    )
    draw = _ranges if column.edges else _named
    return Chart(
        id=f"values-{place}",
        title=column.name,
        figure=draw(column, kinds),
        description=f"Values of {column.name} by outcome, as shares of its rows",
        columns=["Value", "Rows", "Outcome 1"],
        rows=[
            [bar.name, number(bar.zeros + bar.ones), percent(bar.ones / (bar.zeros + bar.ones))]
            for bar in column.bars
            if bar.zeros + bar.ones
        ],
    )


def _ranges(column: ColumnProfile, kinds: Kinds) -> dict[str, Any]:
    """Return the figure of a number in ranges: bars upwards, their edges on the axis."""
    edges, bars = column.edges, len(column.edges) - 1
    # What is missing stands apart.
    x = [place + (place >= bars) for place in range(len(column.bars))]
    step = max(1, -(-bars // 4))
    whole = (edges[0] - 0.5).is_integer() and edges[1] - edges[0] == 1  # a bar a whole number
    ticks = (
        {place: f"{edges[place] + 0.5:.4g}" for place in range(0, bars, step)}
        if whole
        else {place - 0.5: f"{edges[place]:.4g}" for place in range(0, bars + 1, step)}
    )
    ticks |= {place: bar.name for place, bar in zip(x, column.bars, strict=True) if place > bars}
    names = [charts.label(bar.name) for bar in column.bars]
    return charts.figure(
        [
            charts.bars(name, x, shares, colour=colour, across=False)
            | {"hovertext": names, "hovertemplate": "%{hovertext}: %{y:.1%}<extra></extra>"}
            for name, shares, colour in kinds
        ],
        x="",
        y="",
        height=COLUMN_HEIGHT,
        margin={"l": 40, "r": 8, "t": 4, "b": 28},
        showlegend=False,
        bargap=0.08,
        xaxis={
            "tickvals": list(ticks),
            "ticktext": list(ticks.values()),
            "tickangle": 0,
            "showgrid": False,
            "zeroline": False,
        },
        yaxis=SHARES,
    )


def _named(column: ColumnProfile, kinds: Kinds) -> dict[str, Any]:
    """Return the figure of values that have names: bars from left to right."""
    names = [bar.name for bar in column.bars]
    return charts.figure(
        [
            charts.bars(name, shares, names, colour=colour, across=True)
            | {"hovertemplate": "%{y}: %{x:.1%}<extra></extra>"}
            for name, shares, colour in kinds
        ],
        x="",
        y="",
        height=COLUMN_HEIGHT,
        margin={"l": 8, "r": 8, "t": 4, "b": 28},
        showlegend=False,
        bargap=0.25,
        xaxis=SHARES,
        # Names that look like numbers or dates are names.
        yaxis={"type": "category", "autorange": "reversed", "showgrid": False},
    )


def by_auc(columns: Sequence[ColumnProfile]) -> list[ColumnProfile]:
    return sorted(columns, key=lambda column: (-column.auc, column.name))
