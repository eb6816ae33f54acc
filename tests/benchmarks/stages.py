"""Seconds inside the stages of one day's chain over the libraries' own calls, and of a rerun over
the first run.

Each measured day is one repeat: stage and script run one after the other (who begins alternates),
in one warm process, on the same data; then the unchanged day runs again. Ratios are of medians over
the days; what the first day warms is not counted.
"""

from __future__ import annotations

import gc
import os
import re
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from include.clock import utc_now
from include.config.settings import ROOT, Settings
from include.config.use_case import UseCase
from include.config.use_case_file import find
from include.pipeline import execution, ranges, runner
from include.pipeline.history import DATA_STAGES
from include.point_in_time import partitions
from include.records.records import Records

USE_CASE = "repayment"
CHAIN = (
    "ingest_data",
    "validate_data",
    "materialize_features",
    "train_model",
    "evaluate_model",
    "package_model",
    "check_drift",
)
LIMIT_STAGES, AIM_STAGES, LIMIT_RERUN = 1.5, 1.1, 0.1


@dataclass
class Measured:
    """What one thing cost, once a day: wall seconds and CPU seconds (children among them)."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The median of the wall seconds."""
        return statistics.median(self.wall)

    @property
    def context(self) -> float:
        """The median of the CPU seconds."""
        return statistics.median(self.cpu)


class Portfolio:
    """An installation of its own with the repayment portfolio, so many customers and days."""

    def __init__(self, home: Path, customers: int, small: bool) -> None:
        folder = home / "usecases"
        folder.mkdir(parents=True, exist_ok=True)
        text = (ROOT / "include" / "usecases" / f"{USE_CASE}.yaml").read_text()
        text = re.sub(
            r"simulator: \{stream: (\w+)\}",
            rf"simulator: {{stream: \1, customers: {customers}}}",
            text,
        )
        if small:  # few rows: the chain is what is measured, not the model
            text = re.sub(r"simulator: (\{.*\})", r"simulator: \1\n    max_bad: 0.3", text)
            text = re.sub(
                r"^gates:.*$",
                "gates: {min_auc: 0.6, min_rows: 20, max_calibration_error: 0.4}",
                text,
                flags=re.MULTILINE,
            )
        path = folder / f"{USE_CASE}.yaml"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
        self.settings = Settings(
            home=home, usecases=str(folder), lake_uri="", records_url="", mlflow_uri=""
        )
        self.records = Records.open(self.settings.records_address)
        self.records.migrate()

    @property
    def use_case(self) -> UseCase:
        """The use case as its file says."""
        return find(USE_CASE, self.settings.usecase_dirs)

    def load(self, days: int) -> dict[str, Any]:
        """Load so many days in one pass a stage; return seconds a day by stage."""
        first = self.use_case.history.first
        keys = partitions.between(
            self.use_case, first.isoformat(), (first + timedelta(days=days - 1)).isoformat()
        )
        have = {
            row.key
            for row in self.records.results.of(USE_CASE, stage=DATA_STAGES[-1])
            if row.state == "done"
        }
        keys = [key for key in keys if key not in have]
        if not keys:
            return {}
        for key in keys:
            self.records.partitions.raise_to(
                USE_CASE, key, mode="backfill", target="data", actor="benchmark", at=utc_now()
            )
        told: dict[str, Any] = {}
        for stage in DATA_STAGES:
            began = _clock()
            ended = list(
                ranges.run_range(stage, USE_CASE, keys, settings=self.settings, actor="benchmark")
            )
            wall, cpu = (now - before for now, before in zip(_clock(), began, strict=True))
            bad = [report for report in ended if report.state != "done"]
            if bad:
                raise RuntimeError(f"{stage} of {bad[0].key}: {bad[0].state}, {bad[0].reason}")
            told[stage] = {
                "days": len(keys),
                "wall": wall,
                "cpu": cpu,
                "wall_per_day": wall / len(keys),
                "cpu_per_day": cpu / len(keys),
            }
        return told

    def next_days(self, count: int) -> list[str]:
        """Return the partitions after the newest one that is loaded."""
        newest = max(
            row.key for row in self.records.results.of(USE_CASE, stage="materialize_features")
        )
        first = partitions.period(self.use_case, newest).end.date()
        return partitions.between(
            self.use_case, first.isoformat(), (first + timedelta(days=count - 1)).isoformat()
        )

    def events(self) -> int:
        """Return how many events are recorded."""
        rows = self.records.results.of(USE_CASE, stage="ingest_data")
        return sum(
            fact["rows"]
            for row in rows
            for fact in row.outputs["sources"].values()
            if "version" not in fact
        )

    def run(self, stage: str, key: str) -> execution.Report:
        """Run a stage for a live day, as the chain does."""
        return runner.run(stage, USE_CASE, key, settings=self.settings, actor="benchmark")


def measure(
    portfolio: Portfolio, home: Path, repeats: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure the chain on `repeats` days after one that warms up; return the figures."""
    os.environ["BENTOML_HOME"] = str(home / "bentoml")  # read when bentoml is imported
    os.environ |= {
        "BENTOML_DO_NOT_TRACK": "True",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    from tests.benchmarks.bare import Script

    script = Script(portfolio.settings, portfolio.use_case, home)
    home.mkdir(parents=True, exist_ok=True)
    script.copy_lake()
    ours = {stage: Measured() for stage in CHAIN}
    theirs, again = ({stage: Measured() for stage in CHAIN} for _ in range(2))
    read = Measured()
    rows: dict[str, Any] = {}
    for number, key in enumerate(portfolio.next_days(repeats + 1)):
        counted = number > 0
        say(f"  {key}: {'measured' if counted else 'warms up'}")
        portfolio.records.partitions.raise_to(
            USE_CASE, key, mode="live", target="deployed", actor="benchmark", at=utc_now()
        )
        for stage in CHAIN:
            report, done = _both(
                portfolio, script, stage, key, number, ours[stage], theirs[stage], counted
            )
            rows[stage] = {"script": done, "stage": _told(report)}
        for stage in CHAIN:
            _timed(
                again[stage] if counted else Measured(),
                partial(_rerun_stage, portfolio, stage, key),
            )
            if stage == "ingest_data":
                _timed(read if counted else Measured(), partial(script.read_source, key))
    return {"chain": _chain(ours, theirs), "rerun": _rerun(ours, again, read), "rows": rows}


def _both(
    portfolio: Portfolio,
    script: Any,
    stage: str,
    key: str,
    number: int,
    ours: Measured,
    theirs: Measured,
    counted: bool,
) -> tuple[execution.Report, dict[str, int]]:
    """Run a stage and the script's part, who begins alternates; only Bento's part of the script
    needs the stage's bundle.
    """
    found: dict[str, Any] = {}

    def run_stage() -> None:
        found["report"] = portfolio.run(stage, key)

    def run_script() -> None:
        arguments: tuple[Any, ...] = ()
        if stage == "package_model":
            model = max(portfolio.records.models.of(USE_CASE), key=lambda model: model.version)
            arguments = (Path(model.bundle), model.model_digest, model.version)
        found["done"] = getattr(script, stage)(key, *arguments)

    order = [(run_stage, ours), (run_script, theirs)]
    for act, into in order if number % 2 else reversed(order):
        _timed(into if counted else Measured(), act)
    report: execution.Report = found["report"]
    if report.state not in ("done", "held") or report.reused:
        raise RuntimeError(
            f"{stage} {key}: {report.state} (reused: {report.reused}), {report.reason}"
        )
    return report, found["done"]


def _rerun_stage(portfolio: Portfolio, stage: str, key: str) -> None:
    report = portfolio.run(stage, key)
    if not report.reused:
        raise RuntimeError(
            f"{stage} {report.key} was computed again; was a file of include/ changed while this "
            "ran?"
        )


def _timed(into: Measured, act: Callable[[], object]) -> None:
    gc.collect()
    began = _clock()
    act()
    wall, cpu = (now - before for now, before in zip(_clock(), began, strict=True))
    into.wall.append(wall)
    into.cpu.append(cpu)


def _clock() -> tuple[float, float]:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in used)


def _told(report: execution.Report) -> dict[str, Any]:
    outputs = report.outputs
    names = ("verdict", "metrics", "labels", "training_set", "counts")
    told = {name: outputs[name] for name in names if name in outputs}
    if "sources" in outputs:
        told["rows"] = {name: fact["rows"] for name, fact in outputs["sources"].items()}
    if "feature_sets" in outputs:
        told["rows"] = {
            name: fact["rows"] for name, fact in outputs["feature_sets"][outputs["current"]].items()
        }
    return told


def _chain(ours: dict[str, Measured], theirs: dict[str, Measured]) -> dict[str, Any]:
    stages = {
        stage: {
            "seconds": ours[stage].seconds,
            "bare": theirs[stage].seconds,
            "ratio": ours[stage].seconds / theirs[stage].seconds,
            "cpu_ratio": ours[stage].context / theirs[stage].context,
            "runs": ours[stage].wall,
            "bare_runs": theirs[stage].wall,
        }
        for stage in CHAIN
    }
    seconds, bare = (sum(one[name] for one in stages.values()) for name in ("seconds", "bare"))
    cpu = sum(ours[stage].context for stage in CHAIN) / sum(
        theirs[stage].context for stage in CHAIN
    )
    return {
        "stages": stages,
        "seconds": seconds,
        "bare": bare,
        "ratio": seconds / bare,
        "cpu_ratio": cpu,
        "limit": LIMIT_STAGES,
        "aim": AIM_STAGES,
        "passed": seconds / bare <= LIMIT_STAGES,
    }


def _rerun(ours: dict[str, Measured], again: dict[str, Measured], read: Measured) -> dict[str, Any]:
    """Return reruns over first runs; ingestion looks at its sources again, so one read of them
    is taken off its rerun.
    """
    rest = [stage for stage in CHAIN if stage != "ingest_data"]
    first, second = (
        sum(ours[stage].seconds for stage in rest),
        sum(again[stage].seconds for stage in rest),
    )
    own = again["ingest_data"].seconds
    beyond, over = max(own - read.seconds, 0.0) / ours["ingest_data"].seconds, own / read.seconds
    return {
        "stages": {
            stage: {
                "first": ours[stage].seconds,
                "again": again[stage].seconds,
                "ratio": again[stage].seconds / ours[stage].seconds,
            }
            for stage in CHAIN
        },
        "first": first,
        "again": second,
        "ratio": second / first,
        "limit": LIMIT_RERUN,
        "passed": max(second / first, beyond) <= LIMIT_RERUN,
        "ingest_data": {
            "again": own,
            "read": read.seconds,
            "over_read": over,
            "beyond_read_over_first": beyond,
        },
    }
