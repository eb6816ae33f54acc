"""The evaluation report: what the page of one judgement shows, as plain data for its template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from include.config.use_case import UseCase
from include.models import metrics as statistics
from include.models.metrics import Numbers
from include.pipeline.evaluation_outputs import EvaluationOutputs
from include.pipeline.outputs import optional
from include.pipeline.training_outputs import Counts, Manifest
from include.reports import charts
from include.reports.charts import Chart
from include.reports.page import NONE, Tile, number, percent, render

TEMPLATE = "evaluation.html"
BINS = 20  # of scores, all of one width
SHOWN_FEATURES = 15
# False positive rates at which the table beside the ROC curve reads it.
ROC_READ_AT = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5)
FAR_ABOVE = 0.05  # of the random split over the newest decisions: honest drift looks the same

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curves:
    """What is drawn of the scores; everything is empty where they are not computable.

    ROC curves are (false, true positive rate); the opponent's is over the rows that it has not
    seen. Calibration is (mean score, share of outcome 1, rows) by bin. `ones` and `zeros` count
    the rows of each outcome by score, in BINS bins from 0 to 1.
    """

    roc: Points
    opponent_roc: Points
    calibration: list[tuple[float, float, int]]
    ones: list[int]
    zeros: list[int]


NO_CURVES = Curves([], [], [], [], [])


def curves(labels: Numbers, scores: Numbers, opponent: tuple[Numbers, Numbers] | None) -> Curves:
    """Return the curves of a model's scores; `opponent` is its labels and scores."""
    if not statistics.computable(labels, scores):
        return NO_CURVES
    edges = np.linspace(0, 1, BINS + 1)
    return Curves(
        roc=statistics.roc(labels, scores),
        opponent_roc=[] if opponent is None else statistics.roc(*opponent),
        calibration=statistics.calibration_curve(labels, scores),
        ones=np.histogram(scores[labels == 1.0], edges)[0].tolist(),
        zeros=np.histogram(scores[labels == 0.0], edges)[0].tolist(),
    )


def page(
    use_case: UseCase,
    key: str,
    mode: str,
    outputs: EvaluationOutputs,
    manifest: Manifest,
    drawn: Curves,
) -> str:
    """Return the report of one judgement, without the scripts that draw its charts."""
    return render(TEMPLATE, content(use_case, key, mode, outputs, manifest, drawn))


def content(
    use_case: UseCase,
    key: str,
    mode: str,
    outputs: EvaluationOutputs,
    manifest: Manifest,
    drawn: Curves,
) -> dict[str, Any]:
    """Return what the template shows of one judgement."""
    metrics = optional(outputs.metrics) or {}
    subject = f"version {outputs.version}" if outputs.version else "no candidate"
    against = f"against version {outputs.opponent}" if outputs.opponent else "no opponent"
    return {
        "title": use_case.title or use_case.name,
        "key": key,
        "verdict": outputs.verdict,
        "colour": outputs.verdict,
        "about": f"Judgement of {subject}, partition {key} ({mode}), {against}",
        "caveat": use_case.caveat,
        "reasons": outputs.reasons,
        "tiles_shown": _tiles(metrics, manifest.counts),
        "checks": optional(outputs.checks) or [],
        "charts": _charts(drawn) if drawn.roc else [],
        "questions": questions(manifest, metrics),
        "features": _features(manifest),
        "provenance": _provenance(manifest, outputs) if manifest.counts != Counts() else [],
    }


def questions(manifest: Manifest, metrics: Mapping[str, float | None]) -> list[str]:
    """Return what a person should ask of the features; no number can tell a leak for certain."""
    leaks, auc = manifest.leaks, metrics.get("auc")
    asked = [
        f"{finding.evidence}. {finding.remedy}"
        for finding in leaks.found
        if finding.level == "question"
    ]
    by_time = manifest.split is not None and manifest.split.by == "time"
    mixed = leaks.random_auc
    if by_time and mixed is not None and auc is not None and mixed - auc > FAR_ABOVE:
        asked.append(
            "On entities drawn at random from the training rows a small model has AUC "
            f"{mixed:.3f}, on the newest decisions this one has {auc:.3f}. Either the world "
            "changed, or a feature tells of its time and not of its decision"
        )
    return asked


def _tiles(metrics: Mapping[str, float | None], counts: Counts) -> list[Tile]:
    part = counts.evaluation
    share = part.positive / part.rows if part is not None and part.rows else None
    return [
        Tile(f"AUC{_interval(metrics)}", number(metrics.get("auc"))),
        Tile("Opponent AUC", number(metrics.get("opponent_auc"))),
        Tile("Baseline AUC", number(metrics.get("yardstick_auc"))),
        Tile("Calibration error", number(metrics.get("calibration_error"))),
        Tile("Evaluation rows", number(None if part is None else part.rows)),
        Tile("Share of outcome 1", percent(share)),
    ]


def _interval(metrics: Mapping[str, float | None]) -> str:
    """Return the interval of the AUC as a part of its name; empty where the record has none."""
    low, high = metrics.get("auc_low"), metrics.get("auc_high")
    return "" if low is None or high is None else f" (95 %: {low:.3f} to {high:.3f})"


def _charts(drawn: Curves) -> list[Chart]:
    return [_roc(drawn), _calibration(drawn), _scores(drawn)]


def _roc(drawn: Curves) -> Chart:
    points = {"candidate": drawn.roc}
    traces = [charts.diagonal("by chance"), charts.line("candidate", drawn.roc)]
    if drawn.opponent_roc:
        points["opponent"] = drawn.opponent_roc
        traces.append(charts.line("opponent", drawn.opponent_roc, colour=charts.SOFT, dash="dash"))
    return Chart(
        id="roc",
        title="ROC",
        figure=charts.figure(
            traces,
            x="false positive rate",
            y="true positive rate",
            xaxis=charts.SHARE,
            yaxis=charts.SHARE,
        ),
        description=f"ROC curve of the {' and the '.join(points)}; the table below reads it",
        columns=["False positive rate", *(f"True positive rate, {name}" for name in points)],
        rows=[
            [f"{rate:.0%}", *(percent(_read_at(curve, rate)) for curve in points.values())]
            for rate in ROC_READ_AT
        ],
    )


def _read_at(curve: Points, rate: float) -> float:
    """Return the true positive rate of a ROC curve at a false positive rate."""
    false, true = np.array(curve).T
    return float(np.interp(rate, false, true))


def _calibration(drawn: Curves) -> Chart:
    return Chart(
        id="calibration",
        title="Calibration",
        figure=charts.figure(
            [
                charts.diagonal("scores are chances"),
                charts.line("candidate", drawn.calibration, markers=True),
            ],
            x="mean score of a bin",
            y="share of outcome 1",
            xaxis=charts.SHARE,
            yaxis=charts.SHARE,
        ),
        description="Share of outcome 1 by the mean score of bins; the table below has each bin",
        columns=["Mean score", "Share of outcome 1", "Rows"],
        rows=[
            [f"{score:.3f}", percent(share), number(rows)]
            for score, share, rows in drawn.calibration
        ],
    )


def _scores(drawn: Curves) -> Chart:
    width = 1 / BINS
    middles = [(place + 0.5) * width for place in range(BINS)]
    return Chart(
        id="scores",
        title="Scores by outcome",
        figure=charts.figure(
            [
                charts.bars("outcome 0", middles, drawn.zeros, colour=charts.NEUTRAL, across=False),
                charts.bars("outcome 1", middles, drawn.ones, colour=charts.ACCENT, across=False),
            ],
            x="score",
            y="rows",
            xaxis={"range": [0, 1]},
            barmode="group",
            bargap=0.1,
        ),
        description="Rows of each outcome by score; the table below has the counts",
        columns=["Score", "Outcome 0", "Outcome 1"],
        rows=[
            [f"{place * width:.2f} to {(place + 1) * width:.2f}", number(zeros), number(ones)]
            for place, (zeros, ones) in enumerate(zip(drawn.zeros, drawn.ones, strict=True))
            if zeros or ones
        ],
    )


def _features(manifest: Manifest) -> Chart | None:
    """Return the features that tell the most: by what is lost without them, then by themselves."""
    gains = manifest.leaks.gains
    own = {name: 0.5 if auc is None else auc for name, auc in manifest.feature_auc.items()}
    if not own:
        return None
    names = sorted(own, key=lambda name: (-(gains.get(name) or 0.0), -own[name], name))
    names = names[:SHOWN_FEATURES]
    return Chart(
        id="features",
        title="What each feature tells (on the training rows)",
        figure=charts.ranked_bars(
            names,
            [own[name] for name in names],
            axis="AUC of the feature by itself",
            colours=[charts.ACCENT] * len(names),
            start=0.5,
        ),
        description="AUC of each feature by itself; the table below has the numbers",
        columns=["Feature", "AUC by itself", "AUC lost without it"],
        rows=[[name, f"{own[name]:.3f}", number(gains.get(name))] for name in names],
    )


def _provenance(manifest: Manifest, outputs: EvaluationOutputs) -> list[tuple[str, str]]:
    """Return where the model, its rows and its numbers come from, as names and what they say."""
    split, counts = manifest.split, manifest.counts
    parts = {name: getattr(counts, name) for name in ("train", "tune", "evaluation")}
    unused = {name: getattr(counts, name) or 0 for name in ("immature", "censored", "embargoed")}
    by_hash = split is not None and split.by == "hash"
    gap = duration(None if split is None else split.gap_when_judged)
    shown: dict[str, object] = {
        "Model digest": outputs.model_digest or None,
        "Training set": manifest.training_set and manifest.training_set.digest,
        "Known before (as_of)": manifest.as_of,
        "Split": split and f"by {split.by}",
        "Tune from": split and split.tune_from,
        "Evaluation from": split and split.evaluation_from,
        "Gap when judged": f"{NONE} (by hash, no embargo)" if by_hash else gap,
        "Gap when serving": duration(None if split is None else split.gap_when_serving),
        "Rows": ", ".join(f"{name} {part.rows:,}" for name, part in parts.items() if part),
        "Not used": ", ".join(f"{count:,} {name}" for name, count in unused.items()),
        "Without an outcome (censored)": _shares(counts, "censored"),
        "Restated outcomes": _shares(counts, "restated"),
        "Left out of the comparison": _left_out(outputs),
        "Tune AUC of the first model (fitted on train alone)": number(
            manifest.metrics.get("first_model_tune_auc")
        ),
        "Feature set": manifest.feature_set.get("version"),
        "Rounds": manifest.rounds,
        "Git commit": manifest.git_commit,
    }
    return [(name, str(value) if value else NONE) for name, value in shown.items()]


def duration(seconds: float | None) -> str:
    """Return a duration as people say it: days and hours, or what is shorter."""
    if seconds is None:
        return NONE
    days, rest = divmod(round(seconds), 86_400)
    hours, rest = divmod(rest, 3600)
    if days:
        return f"{days:,} d {hours} h"
    return f"{hours} h {rest // 60} min" if hours or rest >= 60 else f"{seconds:.3g} s"


def _shares(counts: Counts, name: str) -> str:
    """Return how many decisions of the window, and of those judged, were censored or restated."""
    share = getattr(counts, f"{name}_share")
    if share is None:
        return NONE
    window = f"window {getattr(counts, name):,} of {counts.decisions:,} ({share:.1%})"
    if not counts.decisions_judged:
        return window
    return (
        f"{window}; judged {getattr(counts, f'{name}_judged'):,} of {counts.decisions_judged:,} "
        f"({getattr(counts, f'{name}_share_judged'):.1%})"
    )


def _left_out(outputs: EvaluationOutputs) -> str:
    left_out, compared = optional(outputs.left_out), optional(outputs.compared)
    if left_out is None:
        return NONE
    return f"{left_out:,} rows that the opponent was trained or tuned on, {compared:,} compared"
