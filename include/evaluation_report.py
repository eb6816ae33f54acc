"""The evaluation report: one self-contained HTML page with inline SVG. Every name that comes from data is escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from include import statistics
from include.statistics import Numbers
from include.usecase import UseCase

NONE = "\u2013"
SIZE, PAD = 300, 38
BINS = 20
_STYLE = """
:root { --ink:#1c2430; --soft:#667085; --line:#e3e7ee; --card:#ffffff; --page:#f5f7fa; --blue:#2563eb; --grey:#98a2b3;
  --pass:#157f3c; --fail:#b42318; --hold:#b25e09; }
@media (prefers-color-scheme: dark) { :root { --ink:#e6eaf0; --soft:#98a2b3; --line:#2c3442; --card:#171c24; --page:#0f1319;
  --blue:#6ea0ff; --grey:#667085; --pass:#4cc27a; --fail:#ff7a6e; --hold:#f0a350; } }
* { box-sizing: border-box; }
body { margin:0; background:var(--page); color:var(--ink); font:15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width:1040px; margin:0 auto; padding:32px 20px 48px; }
h1 { font-size:24px; margin:0; } h2 { font-size:16px; margin:0 0 12px; } p { margin:4px 0; }
.soft { color:var(--soft); } .mono { font-family: ui-monospace, monospace; font-size:13px; overflow-wrap:anywhere; }
.card { background:var(--card); border:1px solid var(--line); border-radius:12px; padding:20px; margin-top:16px; }
.row { display:grid; grid-template-columns:repeat(auto-fit, minmax(300px, 1fr)); gap:16px; } .row .card { margin-top:16px; }
.tiles { display:grid; grid-template-columns:repeat(auto-fit, minmax(150px, 1fr)); gap:12px; margin-top:16px; }
.tile { background:var(--card); border:1px solid var(--line); border-radius:12px; padding:12px 16px; }
.tile b { display:block; font-size:22px; font-variant-numeric:tabular-nums; }
.badge { display:inline-block; padding:2px 12px; border-radius:999px; color:#fff; font-weight:600; font-size:13px;
  text-transform:uppercase; }
.pass { background:var(--pass); } .fail { background:var(--fail); } .hold { background:var(--hold); }
table { border-collapse:collapse; width:100%; } th { text-align:left; font-weight:600; color:var(--soft); font-size:13px; }
td, th { padding:7px 10px 7px 0; border-bottom:1px solid var(--line); vertical-align:top; }
td.n, th.n { text-align:right; font-variant-numeric:tabular-nums; } tr:last-child td { border-bottom:0; }
svg { width:100%; height:auto; display:block; } svg text { fill:var(--soft); font-size:11px; }
.axis { stroke:var(--line); fill:none; } .mine { stroke:var(--blue); fill:none; stroke-width:2.2; }
.theirs { stroke:var(--grey); fill:none; stroke-width:1.8; stroke-dasharray:5 4; } .even { stroke:var(--line); stroke-width:1.2; }
.dot { fill:var(--blue); } .one { fill:var(--blue); opacity:.75; } .zero { fill:var(--grey); opacity:.75; }
.bar { height:10px; background:var(--blue); border-radius:4px; } ul { margin:8px 0 0; padding-left:20px; }
"""


def pictures(labels: Numbers, scores: Numbers, rival: Numbers | None) -> dict[str, Any]:
    """Return what the page draws: ROC of both, calibration, score distribution by outcome."""
    edges = np.linspace(0, 1, BINS + 1)
    usable = statistics.computable(labels, scores)
    return {
        "roc": statistics.roc(labels, scores),
        "rival": [] if rival is None else statistics.roc(labels, rival),
        "calibration": statistics.calibration_curve(labels, scores),
        "one": np.histogram(scores[labels == 1.0], edges)[0].tolist() if usable else [],
        "zero": np.histogram(scores[labels == 0.0], edges)[0].tolist() if usable else [],
    }


def page(
    use_case: UseCase, key: str, mode: str, outputs: Mapping[str, Any], manifest: Mapping[str, Any], drawn: Mapping[str, Any]
) -> str:
    """Return the report of one judgement."""
    verdict, version = str(outputs["verdict"]), outputs["version"]
    title = use_case.title or use_case.name
    subject = "no candidate" if version is None else f"version {version}"
    against = outputs["opponent"]
    reasons = "".join(f"<li>{escape(str(reason))}</li>" for reason in outputs["reasons"])
    head = (
        f'<h1>{escape(title)} <span class="badge {escape(verdict)}">{escape(verdict)}</span></h1>'
        f'<p class="soft">Judgement of {escape(subject)}, partition {escape(key)} ({escape(mode)}), '
        f"{'no opponent' if against is None else f'against version {int(against)}'}</p>"
        + (f"<ul>{reasons}</ul>" if reasons else "")
    )
    body = [head, _tiles(outputs["metrics"], manifest), _checks(outputs["checks"])]
    if drawn.get("roc"):
        body.append(
            f'<div class="row">{_card("ROC", _roc(drawn))}{_card("Calibration", _calibration(drawn["calibration"]))}'
            f"{_card('Scores by outcome', _scores(drawn))}</div>"
        )
    if manifest:
        body += [_features(manifest.get("feature_auc", {})), _provenance(manifest, outputs)]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)} {escape(key)}: {escape(verdict)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _tiles(metrics: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    counts = manifest.get("counts", {}).get("evaluation", {})
    shown = [
        ("AUC", _number(metrics.get("auc"))),
        ("Opponent AUC", _number(metrics.get("opponent_auc"))),
        ("Yardstick AUC", _number(metrics.get("yardstick_auc"))),
        ("Calibration error", _number(metrics.get("calibration_error"))),
        ("Evaluation rows", f"{counts.get('rows', 0):,}" if counts else NONE),
        ("Share of outcome 1", f"{counts['positive'] / counts['rows']:.1%}" if counts.get("rows") else NONE),
    ]
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><span class="soft">{n}</span><b>{v}</b></div>' for n, v in shown)
        + "</div>"
    )


def _checks(checks: Iterable[Mapping[str, Any]]) -> str:
    rows = []
    for check in checks:
        outcome = {True: "pass", False: "fail", None: "hold"}[check["passed"]]
        rows.append(
            f"<tr><td>{escape(str(check['name']))}</td><td class=n>{_number(check['value'])}</td>"
            f'<td class=n>{_number(check["limit"])}</td><td><span class="badge {outcome}">{outcome}</span></td>'
            f'<td class="soft">{escape(str(check.get("reason") or ""))}</td></tr>'
        )
    head = "<tr><th>Check</th><th class=n>Value</th><th class=n>Limit</th><th></th><th>Reason</th></tr>"
    return _card("Checks", f"<table>{head}{''.join(rows)}</table>")


def _features(alone: Mapping[str, float]) -> str:
    best = sorted(alone.items(), key=lambda item: (-item[1], item[0]))[:15]
    if not best:
        return ""
    rows = "".join(
        f'<tr><td class="mono">{escape(name)}</td><td style="width:50%">'
        f'<div class="bar" style="width:{max(2.0, (value - 0.5) * 200):.1f}%"></div></td><td class=n>{value:.3f}</td></tr>'
        for name, value in best
    )
    return _card("What each feature tells alone (AUC on the training rows)", f"<table>{rows}</table>")


def _provenance(manifest: Mapping[str, Any], outputs: Mapping[str, Any]) -> str:
    split, counts = manifest.get("split", {}), manifest.get("counts", {})
    facts = {
        "Model digest": outputs.get("model_digest"),
        "Training set": manifest.get("training_set", {}).get("digest"),
        "Known before (as_of)": manifest.get("as_of"),
        "Split": f"by {split.get('by')}",
        "Tune from": split.get("tune_from") or NONE,
        "Evaluation from": split.get("evaluation_from") or NONE,
        "Rows": ", ".join(f"{part} {counts[part]['rows']:,}" for part in ("train", "tune", "evaluation") if part in counts),
        "Not used": f"{counts.get('immature', 0):,} immature, {counts.get('censored', 0):,} censored",
        "Restated outcomes": f"{counts.get('restated', 0):,}",
        "Feature set": manifest.get("feature_set", {}).get("version"),
        "Rounds": manifest.get("rounds"),
        "Git commit": manifest.get("git_commit"),
    }
    rows = "".join(f'<tr><td>{escape(name)}</td><td class="mono">{escape(str(value))}</td></tr>' for name, value in facts.items())
    return _card("Where it comes from", f"<table>{rows}</table>")


def _roc(drawn: Mapping[str, Any]) -> str:
    lines = f'<line class="even" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>'
    if drawn["rival"]:
        lines += f'<polyline class="theirs" points="{_points(drawn["rival"])}"/>'
        lines += f'<text x="{_x(0.62)}" y="{_y(0.16)}">- - opponent</text>'
    lines += f'<polyline class="mine" points="{_points(drawn["roc"])}"/><text x="{_x(0.62)}" y="{_y(0.09)}">— candidate</text>'
    return _svg("ROC curve", lines, "false positive rate", "true positive rate")


def _calibration(curve: Sequence[Sequence[float]]) -> str:
    lines = f'<line class="even" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>'
    lines += f'<polyline class="mine" points="{_points([(point[0], point[1]) for point in curve])}"/>'
    lines += "".join(f'<circle class="dot" cx="{_x(score)}" cy="{_y(share)}" r="3.5"/>' for score, share, _ in curve)
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
        lines += _rect(name, float(_x(place)), PAD - 14, 9, 9) + f'<text x="{_x(place + 0.06)}" y="{PAD - 5}">{text}</text>'
    return _svg("Score distribution by outcome", lines, "score", "rows")


def _rect(name: str, left: float, top: float, width: float, height: float) -> str:
    return f'<rect class="{name}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _svg(name: str, content: str, x: str, y: str) -> str:
    ticks = "".join(
        f'<text x="{_x(t)}" y="{SIZE - PAD + 15}" text-anchor="middle">{t:g}</text>'
        + ("" if y == "rows" else f'<text x="{PAD - 6}" y="{float(_y(t)) + 4:.1f}" text-anchor="end">{t:g}</text>')
        for t in (0, 0.5, 1)
    )
    return (
        f'<svg viewBox="0 0 {SIZE} {SIZE}" role="img" aria-label="{escape(name)}"><rect class="axis" x="{PAD}" y="{PAD}" '
        f'width="{SIZE - 2 * PAD}" height="{SIZE - 2 * PAD}"/>{ticks}{content}'
        f'<text x="{SIZE / 2}" y="{SIZE - 4}" text-anchor="middle">{escape(x)}</text>'
        f'<text transform="translate(10 {SIZE / 2}) rotate(-90)" text-anchor="middle">{escape(y)}</text></svg>'
    )


def _points(pairs: Iterable[Sequence[float]]) -> str:
    return " ".join(f"{_x(x)},{_y(y)}" for x, y in pairs)


def _x(share: float) -> str:
    return f"{PAD + share * (SIZE - 2 * PAD):.1f}"


def _y(share: float) -> str:
    return f"{SIZE - PAD - share * (SIZE - 2 * PAD):.1f}"


def _card(title: str, content: str) -> str:
    return f'<section class="card"><h2>{escape(title)}</h2>{content}</section>'


def _number(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NONE
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
