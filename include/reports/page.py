"""What the reports for people have in common: one style, a header, tiles, cards.

Each is a whole page in one file.

Text is escaped here, wherever it comes from; what is called `content` is HTML already.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

NONE = "\u2013"
STYLE = """
:root { --ink:#1c2430; --soft:#667085; --line:#e3e7ee; --card:#ffffff; --page:#f5f7fa;
  --blue:#2563eb; --grey:#98a2b3;
  --pass:#157f3c; --fail:#b42318; --hold:#b25e09; }
@media (prefers-color-scheme: dark) { :root { --ink:#e6eaf0; --soft:#98a2b3; --line:#2c3442;
  --card:#171c24; --page:#0f1319;
  --blue:#6ea0ff; --grey:#667085; --pass:#4cc27a; --fail:#ff7a6e; --hold:#f0a350; } }
* { box-sizing: border-box; }
body { margin:0; background:var(--page); color:var(--ink);
  font:15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width:1040px; margin:0 auto; padding:32px 20px 48px; }
h1 { font-size:24px; margin:0; } h2 { font-size:16px; margin:0 0 12px; } p { margin:4px 0; }
.soft { color:var(--soft); } .mono, code { font-family: ui-monospace, monospace; font-size:13px;
  overflow-wrap:anywhere; }
.card { background:var(--card); border:1px solid var(--line); border-radius:12px; padding:20px;
  margin-top:16px; }
.row { display:grid; grid-template-columns:repeat(auto-fit, minmax(300px, 1fr)); gap:16px; }
  .row .card { margin-top:16px; }
.tiles { display:grid; grid-template-columns:repeat(auto-fit, minmax(150px, 1fr)); gap:12px;
  margin-top:16px; }
.tile { background:var(--card); border:1px solid var(--line); border-radius:12px;
  padding:12px 16px; }
.tile b { display:block; font-size:22px; font-variant-numeric:tabular-nums; }
.badge { display:inline-block; padding:2px 12px; border-radius:999px; color:#fff;
  font-weight:600; font-size:13px;
  text-transform:uppercase; }
.pass { background:var(--pass); } .fail { background:var(--fail); }
  .hold { background:var(--hold); }
table { border-collapse:collapse; width:100%; }
  th { text-align:left; font-weight:600; color:var(--soft); font-size:13px; }
td, th { padding:7px 10px 7px 0; border-bottom:1px solid var(--line); vertical-align:top; }
td.n, th.n { text-align:right; font-variant-numeric:tabular-nums; }
  tr:last-child td { border-bottom:0; }
svg { width:100%; height:auto; display:block; } svg text { fill:var(--soft); font-size:11px; }
.axis { stroke:var(--line); fill:none; } .mine { stroke:var(--blue); fill:none; stroke-width:2.2; }
.theirs { stroke:var(--grey); fill:none; stroke-width:1.8; stroke-dasharray:5 4; }
  .even { stroke:var(--line); stroke-width:1.2; }
.dot { fill:var(--blue); } .one { fill:var(--blue); opacity:.75; }
  .zero { fill:var(--grey); opacity:.75; }
.bar { height:10px; background:var(--blue); border-radius:4px; }
  ul { margin:8px 0 0; padding-left:20px; }
.track { position:relative; height:10px; background:var(--page); border-radius:4px;
  margin-top:6px; }
.track .bar.over { background:var(--fail); }
.track i { position:absolute; top:-4px; bottom:-4px; border-left:2px solid var(--ink); }
a { color:var(--blue); }
"""


def document(title: str, content: Iterable[str]) -> str:
    """Return a whole page."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(content)}</main></body></html>\n"
    )


def header(
    title: str, verdict: str, about: str, reasons: Sequence[str], *, colour: str = ""
) -> str:
    """Return the top of a page: what it is about, the verdict and its reasons."""
    listed = "".join(f"<li>{told(reason)}</li>" for reason in reasons)
    return (
        f"<h1>{escape(title)} {badge(verdict, colour or verdict)}</h1><p "
        f'class="soft">{escape(about)}</p>' + (f"<ul>{listed}</ul>" if listed else "")
    )


def told(text: object) -> str:
    """Return a sentence as HTML: what stands between backticks is code, as in the shell and the
    log.
    """
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(str(text)))


def badge(word: str, colour: str) -> str:
    """Return a word on a ground of its own; colours are `pass`, `fail` and `hold`."""
    return f'<span class="badge {escape(colour)}">{escape(word)}</span>'


def tiles(shown: Iterable[tuple[str, str]]) -> str:
    """Return the numbers that matter most, each with its name."""
    each = (
        f'<div class="tile"><span class="soft">{escape(name)}</span><b>{escape(value)}</b></div>'
        for name, value in shown
    )
    return f'<div class="tiles">{"".join(each)}</div>'


def card(title: str, content: str) -> str:
    """Return a part of the page with a title."""
    return f'<section class="card"><h2>{escape(title)}</h2>{content}</section>'


def facts(shown: Iterable[tuple[str, Any]]) -> str:
    """Return a table of names and what they stand for."""
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="mono">{escape(str(value))}</td></tr>'
        for name, value in shown
    )
    return f"<table>{rows}</table>"


def number(value: Any) -> str:
    """Return a number as a report shows it; a dash where there is none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NONE
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def write(path: Path, text: str) -> None:
    """Put a page in place as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
