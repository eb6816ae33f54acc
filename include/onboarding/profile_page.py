"""The profile page: what a person looks at before the first training, as data for its template."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from include.config.use_case import UseCase
from include.onboarding.cohorts import Cohorts
from include.onboarding.frame_profile import MIN_CLASS, FrameProfile
from include.onboarding.header_words import sounds_late
from include.onboarding.profile_charts import (
    by_auc,
    draw_maturity,
    draw_over_time,
    draw_ranked,
    draw_values,
    shown_days,
)
from include.onboarding.try_data import Trial
from include.reports.page import NONE, Tile, number, percent, write_page

TEMPLATE = "profile.html"
NAME = "profile.html"
DRAWN = 200  # features whose values are drawn; of more the ones that tell most
STEPS = 5  # of a coloured cell's depth
# How far an AUC has to be from 0.5 for the deepest colour.
DEEPEST = 0.25
NO_TIME = (
    "All decisions have one moment: there is no time in the data, and nothing here says how the "
    "model will do later."
)


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
        "charts": [*draw_over_time(cohorts), *draw_maturity(cohorts)],
        "maturity": _maturity_table(cohorts) if cohorts and timed else None,
        "by_query": use_case.label.sql is not None,
        "ranked": draw_ranked(profile) if profile else None,
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


def _maturity_table(cohorts: Cohorts) -> dict[str, Any]:
    """Return the share of each period's outcomes that were known after so many days."""
    return {
        "heads": [shown_days(day, cohorts.delay) for day in cohorts.days],
        "rows": [
            (name, count.mature + count.censored + count.immature, [_share(one) for one in shares])
            for name, count, shares in zip(
                cohorts.periods.short_names, cohorts.counts, cohorts.known_by_period, strict=True
            )
        ],
    }


def _features(profile: FrameProfile) -> dict[str, Any]:
    """Return the table of features: what each holds, and what it tells, by period too."""
    drawn = {column.name for column in by_auc(profile.columns)[:DRAWN]}
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
            for column in by_auc(profile.columns)
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
            "chart": draw_values(column, place, zeros, profile.ones),
        }
        for place, column in enumerate(by_auc(profile.columns)[:DRAWN])
    ]


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
