"""The profile page: what a person looks at before the first training, as data for its template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from include.config.use_case import UseCase
from include.onboarding.cohorts import Cohorts
from include.onboarding.frame_profile import MIN_CLASS, ColumnProfile, FrameProfile
from include.onboarding.header_words import sounds_late
from include.onboarding.try_data import Trial
from include.reports import charts
from include.reports.charts import Chart
from include.reports.page import NONE, Tile, number, percent, write_page

TEMPLATE = "profile.html"
NAME = "profile.html"
DRAWN = 200  # features whose values are drawn; of more the ones that tell most
COLUMN_HEIGHT = 210  # pixels
STEPS = 5  # of a coloured cell's depth
# How far an AUC has to be from 0.5 for the deepest colour.
DEEPEST = 0.25
NO_TIME = (
    "All decisions have one moment: there is no time in the data, and nothing here says how the "
    "model will do later."
)
Z95 = 1.96
SHARES = {"tickformat": ".0%", "rangemode": "tozero", "nticks": 5}

Kinds = Sequence[tuple[str, list[float], str]]  # name, share of each bar, colour


@dataclass(frozen=True)
class Cell:
    """A number in a table, with the class of its colour."""

    text: str
    colour: str


def write_profile(use_case: UseCase, trial: Trial, home: Path) -> Path:
    """Write the page of a trial under the home's reports, as a whole, and return its path.

    Raises:
        OSError: it cannot be written.
    """
    path = home / "reports" / use_case.name / NAME
    write_page(path, TEMPLATE, content(use_case, trial), reports=home / "reports")
    return path


def content(use_case: UseCase, trial: Trial) -> dict[str, Any]:
    """Return what the template shows of a trial."""
    profile, cohorts = trial.profile, trial.cohorts
    questions = [finding for finding in trial.found if finding.level == "question"]
    verdict, colour = "no problem found", "pass"
    if trial.problems:
        verdict, colour = _count(len(trial.problems), "problem"), "fail"
    elif questions:
        verdict, colour = _count(len(questions), "question"), "hold"
    timed = cohorts is not None and len(cohorts.periods) > 0
    return {
        "title": use_case.title or use_case.name,
        "key": trial.key,
        "verdict": verdict,
        "colour": colour,
        "about": f"The data of {use_case.name} before a first training, as known at the end of "
        f"partition {trial.key}",
        "reasons": _reasons(use_case, trial),
        "caveat": "" if timed or profile is None else NO_TIME,
        "tiles_shown": _tiles(trial),
        "findings": trial.found,
        "facts_shown": [fact for fact in trial.facts if fact[0] != "question"],
        "charts": [*_over_time(cohorts), *_maturity(cohorts)],
        "maturity": _maturity_table(cohorts) if cohorts and timed else None,
        "by_query": use_case.label.sql is not None,
        "ranked": _ranked(profile) if profile else None,
        "features": _features(profile) if profile else None,
        "missing": _missing(profile) if profile and timed else None,
        "columns": _columns(profile) if profile else [],
        "undrawn": max(0, len(profile.columns) - DRAWN) if profile else 0,
        "sampled": profile.rows if profile else 0,
        "min_class": MIN_CLASS,
    }


def _reasons(use_case: UseCase, trial: Trial) -> list[str]:
    """Return the problems; of those of the leak gate the evidence, since its card has the rest."""
    evidence = {str(finding): finding.evidence for finding in trial.found}
    plain = [problem.removeprefix(f"{use_case.name}: ") for problem in trial.problems]
    return [evidence.get(problem, problem) for problem in plain]


def _tiles(trial: Trial) -> list[Tile]:
    profile = trial.profile
    return [
        Tile("Mature decisions", number(trial.rows)),
        Tile("Share of outcome 1", percent(trial.rate)),
        Tile("Features", number(len(profile.columns) if profile else None)),
        Tile("Too young", number(trial.immature)),
        Tile("Without an outcome", number(trial.censored)),
        Tile("Findings", number(len(trial.found))),
    ]


def _over_time(cohorts: Cohorts | None) -> list[Chart]:
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


def _maturity(cohorts: Cohorts | None) -> list[Chart]:
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
            [_days(day, cohorts.delay), percent(share)]
            for day, share in zip(cohorts.days, cohorts.known, strict=True)
        ],
    )
    return [chart]


def _days(day: float, delay: float) -> str:
    shown = f"{day:,.6g}"
    return f"{shown} (delay)" if day == delay else shown


def _maturity_table(cohorts: Cohorts) -> dict[str, Any]:
    """Return the share of each period's outcomes that were known after so many days."""
    return {
        "heads": [_days(day, cohorts.delay) for day in cohorts.days],
        "rows": [
            (name, count.mature + count.censored + count.immature, [_share(one) for one in shares])
            for name, count, shares in zip(
                cohorts.periods.short_names, cohorts.counts, cohorts.known_by_period, strict=True
            )
        ],
    }


def _ranked(profile: FrameProfile) -> Chart:
    shown = _by_auc(profile.columns)[:15]
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


def _features(profile: FrameProfile) -> dict[str, Any]:
    """Return the table of features: what each holds, and what it tells, by period too."""
    drawn = {column.name for column in _by_auc(profile.columns)[:DRAWN]}
    return {
        "heads": profile.periods.short_names,
        "rows": [
            {
                "name": column.name,
                "link": f"column-{column.name}" if column.name in drawn else "",
                "kind": column.kind,
                "distinct": column.distinct,
                "missing": column.missing,
                "auc": _auc(column.auc),
                "late": sounds_late(column.name),
                "by_period": [_auc(value) for value in column.auc_by_period],
            }
            for column in _by_auc(profile.columns)
        ],
    }


def _missing(profile: FrameProfile) -> dict[str, Any]:
    """Return the share of missing values by period, of features that miss any."""
    gaps = sorted(
        (column for column in profile.columns if column.missing > 0),
        key=lambda column: (-column.missing, column.name),
    )
    return {
        "heads": profile.periods.short_names,
        "rows": [
            (
                column.name,
                _share(column.missing),
                [_share(share) for share in column.missing_by_period],
            )
            for column in gaps
        ],
        "whole": len(profile.columns) - len(gaps),
    }


def _columns(profile: FrameProfile) -> list[dict[str, Any]]:
    """Return the features that are drawn, what tells most first, with their charts."""
    zeros = profile.rows - profile.ones
    return [
        {
            "name": column.name,
            "kind": column.kind,
            "auc": column.auc,
            "missing": column.missing,
            "distinct": column.distinct,
            "chart": _values(column, place, zeros, profile.ones),
        }
        for place, column in enumerate(_by_auc(profile.columns)[:DRAWN])
    ]


def _values(column: ColumnProfile, place: int, zeros: int, ones: int) -> Chart:
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


def _by_auc(columns: Sequence[ColumnProfile]) -> list[ColumnProfile]:
    return sorted(columns, key=lambda column: (-column.auc, column.name))


def _share(value: float | None) -> Cell:
    """Return a share as a cell, the deeper the greater it is."""
    if value is None:
        return Cell(NONE, "")
    # What is not all, or not nothing, is never rounded to it.
    text = f"{value:.0%}" if 0.01 <= value <= 0.99 or value in (0, 1) else f"{value:.1%}"
    return Cell(text, f"more-{round(value * STEPS)}")


def _auc(value: float | None) -> Cell:
    """Return an AUC as a cell: one colour above 0.5, another below."""
    if value is None:
        return Cell(NONE, "")
    depth = min(STEPS, round(abs(value - 0.5) / DEEPEST * STEPS))
    return Cell(f"{value:.2f}", f"{'less' if value < 0.5 else 'more'}-{depth}")


def _count(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
