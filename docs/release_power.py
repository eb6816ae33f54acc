"""Draw how soon simulated releases find a worse model: docs/pictures/release-power.svg.

`evergreen release simulate --json > FILE`, then `python -m docs.release_power FILE`. A panel a
step, a line a challenger: the part of the releases that was rolled back by so many requests.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any

from include.config.settings import ROOT
from include.files import write_text

PICTURE = ROOT / "docs" / "pictures" / "release-power.svg"
COLOURS = ("#1b3a2b", "#b5651d", "#2a6fb0", "#7a3b8f")
WIDE, HIGH, LEFT, TOP, GAP = 300, 190, 46, 70, 26
REQUESTS = 2_000  # on the axis; what is found later counts to the last of them


def draw(rows: list[dict[str, Any]]) -> str:
    """Return the picture of what the command found."""
    equal = rows[0]
    worse = [row for row in rows if row["bound"] is None]
    steps = list(dict.fromkeys(row["step"] for row in worse))
    names = list(dict.fromkeys(row["challenger"] for row in worse))
    width = LEFT + len(steps) * (WIDE + GAP)
    height = TOP + HIGH + 40 + 18 * len(names)
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="Helvetica, Arial, sans-serif">',
        "<title>How soon a worse model is found</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(LEFT, 24, "Part of simulated releases that is rolled back, by requests of the "
              "challenger", size=15, weight="bold"),
        _text(LEFT, 44, f"Of equal models {equal['rolled_back']} of {equal['releases']:,} over all "
              f"steps, at most {equal['bound']:.2%} by the upper 99 % bound; 5 % is promised."),
    ]  # fmt: skip
    for place, step in enumerate(steps):
        found = {row["challenger"]: row for row in worse if row["step"] == step}
        body += _panel(LEFT + place * (WIDE + GAP), step, [found.get(name) for name in names])
    for number, name in enumerate(names):
        y = TOP + HIGH + 50 + 18 * number
        body.append(_line([(LEFT, y - 4), (LEFT + 26, y - 4)], COLOURS[number % 4], 2.5))
        body.append(_text(LEFT + 34, y, f"{name}, {worse[0]['releases']} releases a step"))
    return "\n".join([*body, "</svg>"]) + "\n"


def _panel(left: float, step: str, rows: list[dict[str, Any] | None]) -> list[str]:
    """Return one step: its axes, the line of .9, and a line a challenger."""
    bottom, right = TOP + HIGH, left + WIDE
    name = step if step == "shadow" else f"{step} of the entities"
    body = [_text(left + 6, TOP - 6, name, weight="bold")]
    for part in (0.0, 0.5, 0.9, 1.0):
        y = bottom - part * HIGH
        dash = ' stroke-dasharray="4 3"' if part == 0.9 else ""
        body.append(_line([(left, y), (right, y)], "#bbbbbb", 1, dash))
        if left == LEFT:
            body.append(_text(left - 6, y + 4, f"{part:g}", anchor="end"))
    for asked in (0, 500, 1000, 1500, 2000):
        x = left + asked / REQUESTS * WIDE
        body.append(_text(x, bottom + 16, f"{asked:,}", anchor="middle"))
    for number, row in enumerate(rows):
        if row is None:  # that was not simulated
            continue
        points, share = [(left, float(bottom))], 1 / row["releases"]
        for count, after in enumerate(map(int, (row["after"] or "").split())):
            x = left + min(after, REQUESTS) / REQUESTS * WIDE
            points += [(x, points[-1][1]), (x, bottom - (count + 1) * share * HIGH)]
        points.append((right, points[-1][1]))
        body.append(_line(points, COLOURS[number % 4], 2))
    return body


def _line(points: list[tuple[float, float]], colour: str, width: float, more: str = "") -> str:
    at = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="{width}"{more}/>'


def _text(
    x: float, y: float, text: str, *, size: int = 12, weight: str = "normal", anchor: str = "start"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}" fill="#333333">{escape(text)}</text>'
    )


if __name__ == "__main__":
    write_text(PICTURE, draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
