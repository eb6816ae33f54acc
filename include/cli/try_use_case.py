"""The command `try`: from a file to a judged model, without Airflow."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.cli.context import Partition, actor, checked_key, current_settings, open_records
from include.cli.output import print_line, print_table
from include.pipeline.outputs import optional

if TYPE_CHECKING:
    from include.installation.try_use_case import Progress, Tried

EXIT_CODES = {"pass": 0, "fail": 10, "hold": 11}
"""What the command ends with, by verdict; a refusal before it has the code of its error."""
TOP = 8  # features that are shown
PARTS = ("train", "tune", "evaluation")
KEYS = (
    "use_case",
    "partition",
    "verdict",
    "reasons",
    "auc",
    "auc_low",
    "auc_high",
    "baseline_auc",
    "rows",
    "features",
    "seconds_gap_when_judged",
    "seconds_gap_when_serving",
    "stages",
    "reused",
    "notes",
    "model_version",
    "report",
)


def try_use_case(
    name_or_file: Annotated[
        str,
        typer.Argument(metavar="NAME|FILE", help="Name of a use case, or the path of its file."),
    ],
    partition: Partition = None,
    json: Annotated[
        bool, typer.Option("--json", help=f"Print one JSON object instead, with {', '.join(KEYS)}.")
    ] = False,
) -> None:
    """Train and judge a model of a use case file, without Airflow; nothing is released.

    Checks the file, loads what a training on the newest partition looks back on, trains, judges,
    and tells what to change. Ends with 0 on a pass, 10 on a fail, 11 on a hold. What it made stays
    in this installation; `evergreen reset NAME` undoes it.
    """
    from include.cli.use_case import file_of
    from include.installation import try_use_case as trying
    from include.onboarding.check import check_file

    settings = current_settings()
    began = time.monotonic()
    file = file_of(name_or_file, settings)
    use_case = check_file(file)
    settings = trying.with_folder_of(settings, file)
    key = None if partition is None else checked_key(use_case, partition)
    open_records(settings)
    checked = trying.StageTime("check", 0, 0, time.monotonic() - began)
    with _progress() as progress:
        tried = trying.try_use_case(
            use_case, settings, partition=key, actor=actor(), progress=progress
        )
    tried.stages.insert(0, checked)
    if json:
        import json as json_library

        print_line(json_library.dumps(_as_json(tried), indent=2, allow_nan=False))
    else:
        _show(tried, file)
    raise typer.Exit(EXIT_CODES[tried.evaluation.verdict])


@contextmanager
def _progress() -> Iterator[Progress]:
    """Show each stage as it goes, in a terminal alone; nothing of it stays."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, wanted: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=wanted)
            bar.update(tasks[stage], completed=done, total=wanted)

        yield show


def _show(tried: Tried, file: Path) -> None:
    """Print what a trial came to, the verdict last."""
    print_line(f"{tried.use_case}: trial of partition {tried.key}; nothing is released")
    for note in tried.notes:
        print_line(f"  {note}")
    if tried.reused:
        print_line("  all of it was on record already, and nothing has changed: nothing was run")
    print_line()
    print_table(
        ("stage", "partitions", "from the record", "seconds"),
        [
            (stage.stage, stage.partitions or "", stage.reused or "", f"{stage.seconds:.1f}")
            for stage in tried.stages
        ],
    )
    print_line()
    print_table(("what", "value"), list(_facts(tried)))
    features = list(_features(tried))
    if features:
        print_line()
        print_table(
            ("feature", "share of the gain", "AUC alone"),
            [
                (
                    row["name"],
                    f"{row['gain']:.1%}",
                    "" if row["auc_alone"] is None else f"{row['auc_alone']:.3f}",
                )
                for row in features
            ],
        )
    evaluation = tried.evaluation
    print_line(f"\nverdict: {evaluation.verdict}")
    for reason in evaluation.reasons:
        print_line(f"- {reason}")
    if any("`" in reason for reason in evaluation.reasons):
        print_line(
            f"Put a line into {file}; where its block stands there already, put its field into that"
        )
    if optional(evaluation.report):
        print_line(f"report: {evaluation.report}")
    print_line(f"to undo: evergreen reset {tried.use_case}")


def _facts(tried: Tried) -> Iterator[tuple[str, str]]:
    """Yield the numbers of a judgement in words."""
    from include.evaluation.report import duration

    metrics = _numbers(tried)
    auc, baseline = metrics.get("auc"), metrics.get("yardstick_auc")
    low, high = metrics.get("auc_low"), metrics.get("auc_high")
    if auc is not None:
        span = "" if low is None or high is None else f" (95 %: {low:.4f} to {high:.4f})"
        yield "AUC", f"{auc:.4f}{span}"
        yield "AUC of the baseline", "unknown" if baseline is None else f"{baseline:.4f}"
    counts = tried.training.counts
    for name in PARTS:
        part = getattr(counts, name)
        if part is not None:
            share = f", {part.positive / part.rows:.1%}" if part.rows else ""
            yield f"{name} rows", f"{part.rows} ({part.positive} of class 1{share})"
    for name, what in (
        ("embargoed", "between train and evaluation"),
        ("immature", "younger than label.delay"),
        ("censored", "without an outcome"),
    ):
        if count := getattr(counts, name):
            yield f"{name} decisions", f"{count} ({what})"
    split = optional(tried.training.split)
    if split is not None:
        by_time = split.by == "time"
        gap = duration(split.gap_when_judged) if by_time else "none: divided by entity, not time"
        yield "age of the model when judged", gap
        yield "age of the model when serving", duration(split.gap_when_serving)


def _numbers(tried: Tried) -> dict[str, float]:
    """Return the metrics of a judgement; without those that could not be computed."""
    metrics = optional(tried.evaluation.metrics) or {}
    return {
        name: value for name, value in metrics.items() if value is not None and math.isfinite(value)
    }


def _features(tried: Tried) -> Iterator[dict[str, Any]]:
    from include.installation.try_use_case import strongest

    for name, gain, auc in strongest(tried, TOP):
        known = auc is not None and math.isfinite(auc)
        yield {"name": name, "gain": gain, "auc_alone": auc if known else None}


def _as_json(tried: Tried) -> dict[str, Any]:
    """Return what a trial came to, with `KEYS`; what is unknown is null."""
    metrics = _numbers(tried)
    counts, split = tried.training.counts, optional(tried.training.split)
    parts = {name: getattr(counts, name) for name in PARTS}
    values = (
        tried.use_case,
        tried.key,
        tried.evaluation.verdict,
        tried.evaluation.reasons,
        *(metrics.get(name) for name in ("auc", "auc_low", "auc_high", "yardstick_auc")),
        {
            name: {"rows": part.rows, "positive": part.positive}
            for name, part in parts.items()
            if part is not None
        },
        list(_features(tried)),
        None if split is None else split.gap_when_judged,
        None if split is None else split.gap_when_serving,
        [
            {
                "stage": stage.stage,
                "partitions": stage.partitions,
                "reused": stage.reused,
                "seconds": round(stage.seconds, 3),
            }
            for stage in tried.stages
        ],
        tried.reused,
        tried.notes,
        optional(tried.evaluation.version),
        optional(tried.evaluation.report),
    )
    return dict(zip(KEYS, values, strict=True))
