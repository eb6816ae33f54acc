"""Draw the rooms of include/ from the imports of the code and the layers of pyproject.toml:
docs/pictures/rooms.svg.

`python -m docs.rooms` writes the picture; `python -m docs.generate --check` says whether it is out
of date.
"""

from __future__ import annotations

import ast
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from include.config.settings import ROOT
from include.pipeline.flow import ENTRY

PICTURE = ROOT / "docs" / "pictures" / "rooms.svg"
HOLDS = {
    "dags": "when, and in what order: one DAG a use case and stage",
    "cli": "the command line, evergreen ...",
    "backups": "backup, restore, and moves to other places",
    "doctor": "what an installation uses, with a verdict each",
    "installation": "everything on one machine: start, watch, stop, forget",
    "serving": "the node that answers requests",
    "orchestration": "all that knows Airflow: assets, waiting, healing",
    "packaging": "package_model: the Bento of a judged model",
    "deployment": "deploy_model: release and rollback",
    "monitoring": "check_drift: stability of the features",
    "retention": "collect_garbage: what no record needs goes",
    "evaluation": "evaluate_model: the gate and its verdict",
    "onboarding": "bring your own table: draft, check, try",
    "training": "train_model: leak gate, parts, one model",
    "scoring": "the scored table of all entities",
    "validation": "validate_data: contract, curated rows, labels",
    "features": "materialize_features: views, frames, online rows",
    "ingestion": "ingest_data: sources, as received",
    "pipeline": "how a stage runs: memo, lease, record, effects",
    "models": "a model's bytes and numbers; MLflow",
    "predictions": "the log of what was answered",
    "point_in_time": "what was known when: periods, join",
    "simulation": "the seeded example portfolio",
    "config": "settings and the typed use case",
    "records": "results, audit, leases, routing row",
    "lake": "versioned Delta tables, digests",
    "artefacts": "what stages leave, by address",
    "processes": "child processes",
    "alerts": "what people are told at once, and how",
    "reports": "the look of HTML reports",
    "object_stores": "stores by URI: options, errors in words",
    "clock": "the time now, for the edges to ask",
    "files": "files that are put in place at once",
    "rotating_log": "logs of bounded size that take what a process prints",
    "syntax": "code without its comments and docstrings",
    "errors": "the tree of errors",
}
STAGES = {entry.split(".")[1] for entry in ENTRY.values()}
WIDTH, MARGIN, GAP, LINE = 1120, 16, 12, 14
CHARACTER = 5.7  # of 10 px sans-serif, on the wide side


def layers() -> list[list[str]]:
    """Return the rooms as the import rule orders them, top to bottom; a later line may not
    import an earlier one.
    """
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "importlinter"
    ]["contracts"]
    lines: list[str] = next(one["layers"] for one in contracts if one["type"] == "layers")
    return [[name.strip().removeprefix("include.") for name in line.split("|")] for line in lines]


def imports() -> dict[str, set[str]]:
    """Return which rooms each room imports, anywhere in its modules."""
    modules = {
        _name(path): path
        for folder in ("include", "dags")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        named = {
            one
            for one in _imported(ast.parse(path.read_bytes()))
            if one in modules and one != "include"
        }
        found.setdefault(_room(name), set()).update({_room(one) for one in named} - {_room(name)})
    return found


def draw() -> str:
    """Return the picture.

    Raises: ValueError: a room of the import rule is not described in `HOLDS`, or a described one is
        gone.
    """
    lines, rooms = layers(), imports()
    named = {room for line in lines for room in line}
    if named != set(HOLDS):
        raise ValueError(
            f"docs/rooms.py, HOLDS: describe {sorted(named - set(HOLDS))}, remove "
            f"{sorted(set(HOLDS) - named)}"
        )
    body, top = list[str](), 58
    for line in lines:
        wide = (WIDTH - 2 * MARGIN - GAP * (len(line) - 1)) / len(line)
        texts = {room: _texts(room, rooms.get(room, set()), wide) for room in line}
        high = 30 + LINE * max(len(text) for text in texts.values())
        for place, room in enumerate(line):
            body += _box(room, texts[room], MARGIN + place * (wide + GAP), top, wide, high)
        top += high + GAP
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 4}" '
        'font-family="Helvetica, Arial, sans-serif">',
        "<title>The rooms of include/</title>",
        f'<rect width="{WIDTH}" height="{top + 4}" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="26" font-size="17" font-weight="bold" fill="#1b3a2b">The rooms of '
        "include/, and dags/</text>",
        f'<text x="{MARGIN}" y="45" font-size="12" fill="#555555">A room imports only rooms of '
        "lines below its own. "
        "In grey: what it does import. Yellow: the rooms of stages.</text>",
    ]
    return "\n".join([*head, *body, "</svg>"]) + "\n"


def _texts(room: str, below: set[str], wide: float) -> list[tuple[str, str]]:
    """Return the lines of a box under its name, each with its colour."""
    order = [name for line in layers() for name in line if name in below]
    told = f"imports {', '.join(order)}" if order else "imports no other room"
    width = int((wide - 16) / CHARACTER)
    return [
        *(("#222222", text) for text in textwrap.wrap(HOLDS[room], width)),
        *(("#777777", text) for text in textwrap.wrap(told, width, break_long_words=False)),
    ]


def _box(
    room: str, texts: Sequence[tuple[str, str]], x: float, y: float, wide: float, high: float
) -> Iterator[str]:
    fill = "#fff7df" if room in STAGES else "#f3f8f4"
    yield (
        f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{high}" rx="5" fill="{fill}" '
        'stroke="#5c8a6b"/>'
    )
    yield (
        f'<text x="{x + 8:.1f}" y="{y + 18}" font-size="13" font-weight="bold" '
        f'fill="#1b3a2b">{escape(room)}</text>'
    )
    for number, (colour, text) in enumerate(texts):
        yield (
            f'<text x="{x + 8:.1f}" y="{y + 34 + LINE * number}" font-size="10" '
            f'fill="{colour}">{escape(text)}</text>'
        )


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[0] if parts[0] != "include" or len(parts) == 1 else parts[1]


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    sys.stdout.write(f"written: {PICTURE.relative_to(ROOT)}\n")
