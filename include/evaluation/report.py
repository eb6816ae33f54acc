"""The evaluation report: one self-contained HTML page with inline SVG.

Every name that comes from data is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from include.config.use_case import UseCase
from include.models import metrics as statistics
from include.models.metrics import Numbers
from include.reports.page import NONE, badge, card, document, facts, header, number, tiles, told

SIZE, PAD = 300, 38
BINS = 20
FAR_ABOVE = 0.05  # of the random split over the newest decisions: honest drift looks the same


def pictures(
    labels: Numbers, scores: Numbers, rival: tuple[Numbers, Numbers] | None
) -> dict[str, Any]:
    """Return what the page draws: ROC of both, calibration, score distribution by outcome.

    `rival` is the opponent's labels and scores on the rows that it has not seen.
    """
    edges = np.linspace(0, 1, BINS + 1)
    usable = statistics.computable(labels, scores)
    return {
        "roc": statistics.roc(labels, scores),
        "rival": [] if rival is None else statistics.roc(*rival),
        "calibration": statistics.calibration_curve(labels, scores),
        "one": np.histogram(scores[labels == 1.0], edges)[0].tolist() if usable else [],
        "zero": np.histogram(scores[labels == 0.0], edges)[0].tolist() if usable else [],
    }


def page(
    use_case: UseCase,
    key: str,
    mode: str,
    outputs: Mapping[str, Any],
    manifest: Mapping[str, Any],
    drawn: Mapping[str, Any],
) -> str:
    """Return the report of one judgement."""
    verdict, version = str(outputs["verdict"]), outputs["version"]
    title = use_case.title or use_case.name
    subject = "no candidate" if version is None else f"version {version}"
    against = outputs["opponent"]
    rival = "no opponent" if against is None else f"against version {int(against)}"
    about = f"Judgement of {subject}, partition {key} ({mode}), {rival}"
    body = [
        header(title, verdict, about, outputs["reasons"]),
        _tiles(outputs["metrics"], manifest),
        _checks(outputs["checks"]),
    ]
    if drawn.get("roc"):
        drawings = (
            card("ROC", _roc(drawn)),
            card("Calibration", _calibration(drawn["calibration"])),
            card("Scores by outcome", _scores(drawn)),
        )
        body.append(f'<div class="row">{"".join(drawings)}</div>')
    if manifest:
        body += [
            _questions(manifest, outputs["metrics"]),
            _features(manifest),
            _provenance(manifest, outputs),
        ]
    return document(f"{title} {key}: {verdict}", body)


def _tiles(metrics: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    counts = manifest.get("counts", {}).get("evaluation", {})
    return tiles(
        [
            ("AUC", number(metrics.get("auc"))),
            ("Opponent AUC", number(metrics.get("opponent_auc"))),
            ("Baseline AUC", number(metrics.get("yardstick_auc"))),
            ("Calibration error", number(metrics.get("calibration_error"))),
            ("Evaluation rows", f"{counts.get('rows', 0):,}" if counts else NONE),
            (
                "Share of outcome 1",
                f"{counts['positive'] / counts['rows']:.1%}" if counts.get("rows") else NONE,
            ),
        ]
    )


def _checks(checks: Iterable[Mapping[str, Any]]) -> str:
    rows = []
    for check in checks:
        outcome = {True: "pass", False: "fail", None: "hold"}[check["passed"]]
        rows.append(
            f"<tr><td>{escape(str(check['name']))}</td><td class=n>{number(check['value'])}</td>"
            f"<td class=n>{number(check['limit'])}</td><td>{badge(outcome, outcome)}</td>"
            f'<td class="soft">{told(check.get("reason") or "")}</td></tr>'
        )
    head = (
        "<tr><th>Check</th><th class=n>Value</th><th "
        "class=n>Limit</th><th></th><th>Reason</th></tr>"
    )
    return card("Checks", f"<table>{head}{''.join(rows)}</table>")


def questions(manifest: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    """Return what a person should ask of the features, since no number can tell a leak from an
    honest one.
    """
    leaks = manifest.get("leaks", {})
    asked = [
        f"{one['evidence']}. {one['remedy']}"
        for one in leaks.get("found", [])
        if one["level"] == "question"
    ]
    mixed, judged = leaks.get("random_auc"), metrics.get("auc")
    by_time = manifest.get("split", {}).get("by") == "time"
    if by_time and mixed is not None and judged is not None and mixed - judged > FAR_ABOVE:
        asked.append(
            "On entities drawn at random from the training rows a small model has AUC "
            f"{mixed:.3f}, on the newest decisions this one has {judged:.3f}. Either the world "
            "changed, or a feature tells of its time and not of its decision"
        )
    return asked


def _questions(manifest: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    asked = questions(manifest, metrics)
    if not asked:
        return ""
    return card(
        "Questions for a person", f"<ul>{''.join(f'<li>{told(one)}</li>' for one in asked)}</ul>"
    )


def _features(manifest: Mapping[str, Any]) -> str:
    alone, gains = manifest.get("feature_auc", {}), manifest.get("leaks", {}).get("gains", {})
    best = sorted(alone.items(), key=lambda item: (-gains.get(item[0], 0.0), -item[1], item[0]))[
        :15
    ]
    if not best:
        return ""
    rows = "".join(
        f'<tr><td class="mono">{escape(name)}</td><td style="width:40%">'
        f'<div class="bar" style="width:{max(2.0, (value - 0.5) * 200):.1f}%"></div></td><td '
        f"class=n>{value:.3f}</td>"
        f"<td class=n>{number(gains.get(name))}</td></tr>"
        for name, value in best
    )
    head = (
        "<tr><th>Feature</th><th></th><th class=n>AUC alone</th><th class=n>AUC lost without "
        "it</th></tr>"
    )
    return card("What each feature tells (on the training rows)", f"<table>{head}{rows}</table>")


def _provenance(manifest: Mapping[str, Any], outputs: Mapping[str, Any]) -> str:
    split, counts = manifest.get("split", {}), manifest.get("counts", {})
    by_time = split.get("by") == "time"
    shown = {
        "Model digest": outputs.get("model_digest") or NONE,
        "Training set": manifest.get("training_set", {}).get("digest") or NONE,
        "Known before (as_of)": manifest.get("as_of") or NONE,
        "Split": f"by {split['by']}" if split.get("by") else NONE,
        "Tune from": split.get("tune_from") or NONE,
        "Evaluation from": split.get("evaluation_from") or NONE,
        "Gap when judged": _span(split.get("gap_when_judged"))
        if by_time or not split
        else f"{NONE} (by hash, no embargo)",
        "Gap when serving": _span(split.get("gap_when_serving")),
        "Rows": ", ".join(
            f"{part} {counts[part]['rows']:,}"
            for part in ("train", "tune", "evaluation")
            if part in counts
        ),
        "Not used": ", ".join(
            f"{counts.get(name, 0):,} {name}" for name in ("immature", "censored", "embargoed")
        ),
        "Without an outcome (censored)": _shares(counts, "censored"),
        "Restated outcomes": _shares(counts, "restated"),
        "Left out of the comparison": _left_out(outputs),
        "Tune AUC of the first model (fitted on train alone)": number(
            manifest.get("metrics", {}).get("first_model_tune_auc")
        ),
        "Feature set": manifest.get("feature_set", {}).get("version") or NONE,
        "Rounds": manifest.get("rounds") or NONE,
        "Git commit": manifest.get("git_commit") or NONE,
    }
    note = (
        '<p class="soft">The gaps say how much older the newest trained decision is than the '
        "first that is judged, and than"
        " what is served from as_of on. Shares are of the decisions past their delay: of the "
        "training window, and of those"
        " from the evaluation part's first on (by hash: of its entities).</p>"
    )
    return card("Where it comes from", facts(shown.items()) + note)


def _span(seconds: float | None) -> str:
    """Return a duration as people say it: days and hours, or what is shorter."""
    if seconds is None:
        return NONE
    days, rest = divmod(round(seconds), 86_400)
    hours, rest = divmod(rest, 3600)
    if days:
        return f"{days:,} d {hours} h"
    return f"{hours} h {rest // 60} min" if hours or rest >= 60 else f"{seconds:.3g} s"


def _shares(counts: Mapping[str, Any], name: str) -> str:
    """Return how many decisions of the window, and of the judged ones, were censored or
    restated.
    """
    if counts.get(f"{name}_share") is None:
        return NONE
    judged = ""
    if counts.get("decisions_judged"):
        judged = (
            f"; judged {counts[f'{name}_judged']:,} of {counts['decisions_judged']:,} "
            f"({counts[f'{name}_share_judged']:.1%})"
        )
    return (
        f"window {counts[name]:,} of {counts['decisions']:,} "
        f"({counts[f'{name}_share']:.1%}){judged}"
    )


def _left_out(outputs: Mapping[str, Any]) -> str:
    if outputs.get("left_out") is None:
        return NONE
    return (
        f"{outputs['left_out']:,} rows that the opponent was trained or tuned on, "
        f"{outputs['compared']:,} compared"
    )


def _roc(drawn: Mapping[str, Any]) -> str:
    lines = f'<line class="even" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>'
    if drawn["rival"]:
        lines += f'<polyline class="theirs" points="{_points(drawn["rival"])}"/>'
        lines += f'<text x="{_x(0.62)}" y="{_y(0.16)}">- - opponent</text>'
    lines += (
        f'<polyline class="mine" points="{_points(drawn["roc"])}"/><text x="{_x(0.62)}" '
        f'y="{_y(0.09)}">— candidate</text>'
    )
    return _svg("ROC curve", lines, "false positive rate", "true positive rate")


def _calibration(curve: Sequence[Sequence[float]]) -> str:
    lines = f'<line class="even" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>'
    lines += (
        f'<polyline class="mine" points="{_points([(point[0], point[1]) for point in curve])}"/>'
    )
    lines += "".join(
        f'<circle class="dot" cx="{_x(score)}" cy="{_y(share)}" r="3.5"/>'
        for score, share, _ in curve
    )
    return _svg("Calibration curve", lines, "mean score of a tenth", "share of outcome 1")


def _scores(drawn: Mapping[str, Any]) -> str:
    top = max([*drawn["one"], *drawn["zero"], 1])
    width = (SIZE - 2 * PAD) / BINS / 2
    lines = ""
    for index, (one, zero) in enumerate(zip(drawn["one"], drawn["zero"], strict=True)):
        for offset, (name, count) in enumerate((("zero", zero), ("one", one))):
            height = count / top * (SIZE - 2 * PAD)
            left = PAD + (2 * index + offset) * width
            lines += _rect(name, left, SIZE - PAD - height, width * 0.9, height)
    for place, (name, text) in ((0.05, ("one", "outcome 1")), (0.45, ("zero", "outcome 0"))):
        lines += (
            _rect(name, float(_x(place)), PAD - 14, 9, 9)
            + f'<text x="{_x(place + 0.06)}" y="{PAD - 5}">{text}</text>'
        )
    return _svg("Score distribution by outcome", lines, "score", "rows")


def _rect(name: str, left: float, top: float, width: float, height: float) -> str:
    return (
        f'<rect class="{name}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}"/>'
    )


def _svg(name: str, content: str, x: str, y: str) -> str:
    ticks = "".join(
        f'<text x="{_x(t)}" y="{SIZE - PAD + 15}" text-anchor="middle">{t:g}</text>'
        + (
            ""
            if y == "rows"
            else f'<text x="{PAD - 6}" y="{float(_y(t)) + 4:.1f}" text-anchor="end">{t:g}</text>'
        )
        for t in (0, 0.5, 1)
    )
    return (
        f'<svg viewBox="0 0 {SIZE} {SIZE}" role="img" aria-label="{escape(name)}"><rect '
        f'class="axis" x="{PAD}" y="{PAD}" width="{SIZE - 2 * PAD}" '
        f'height="{SIZE - 2 * PAD}"/>{ticks}{content}<text x="{SIZE / 2}" y="{SIZE - 4}" '
        f'text-anchor="middle">{escape(x)}</text><text transform="translate(10 {SIZE / 2}) '
        f'rotate(-90)" text-anchor="middle">{escape(y)}</text></svg>'
    )


def _points(pairs: Iterable[Sequence[float]]) -> str:
    return " ".join(f"{_x(x)},{_y(y)}" for x, y in pairs)


def _x(share: float) -> str:
    return f"{PAD + share * (SIZE - 2 * PAD):.1f}"


def _y(share: float) -> str:
    return f"{SIZE - PAD - share * (SIZE - 2 * PAD):.1f}"
