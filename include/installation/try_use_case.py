"""Try a use case on this installation: from its file to a judged model, without Airflow.

The stages are those of every night, run for one partition that is recorded as a backfill to be
judged: nothing is packaged, released or shown to the serving node. What is on record and unchanged
is reused. `evergreen reset NAME` undoes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.compute as pc

from include.clock import utc_now
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.errors import ConfigError, EvergreenError, RestatementRefused, SourceError, Unavailable
from include.features.spine import build_spine
from include.pipeline import history, runner
from include.pipeline.evaluation_outputs import EvaluationOutputs
from include.pipeline.execution import Execution, Report, outcome_of
from include.pipeline.flow import DATA_STAGES, UP_TO_JUDGED
from include.pipeline.lakes import open_lake
from include.pipeline.outputs import optional
from include.pipeline.ranges import run_range
from include.pipeline.training_outputs import TrainingOutputs
from include.point_in_time import partitions
from include.point_in_time.curated import EVENT
from include.records.records import Records

SHOWN = 3  # partitions whose reasons are told, of those that a stage refused

Progress = Callable[[str, int, int], None]
"""Told of a stage, how many of its partitions are done, and how many there are."""


@dataclass(frozen=True)
class StageTime:
    """What a stage came to: how many partitions, how many answered from the record, how long."""

    stage: str
    partitions: int
    reused: int
    seconds: float


@dataclass
class Tried:
    """A judged model, with what a person wants to know of it; `notes` are about the trial."""

    use_case: str
    key: str
    stages: list[StageTime] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    training: TrainingOutputs = field(default_factory=TrainingOutputs)
    evaluation: EvaluationOutputs = field(default_factory=EvaluationOutputs)

    @property
    def reused(self) -> bool:
        """Whether everything was on record already."""
        return all(stage.reused == stage.partitions for stage in self.stages)


def with_folder_of(settings: Settings, path: Path) -> Settings:
    """Return settings that find the use case of a file, wherever it lies.

    Raises:
        ConfigError: its name is that of another file, or it could not be found by its name.
    """
    folder = path.parent.resolve()  # not of what a link points to, which may have another name
    for known in settings.usecase_dirs:
        other = known / path.name
        if known == folder:
            return settings
        if other.is_file():
            raise ConfigError(
                f"{path}: {other} has the name {path.stem} already, and everything of a use case "
                f"is kept by its name; give this one another, in its `name:` and as its file"
            )
    if ":" in str(folder):  # what divides the folders of the setting
        raise ConfigError(f"{folder}: a folder of use cases has no ':' in its name; rename it")
    if path.suffix != ".yaml":
        raise ConfigError(f"{path}: a use case file ends in .yaml; rename it to {path.stem}.yaml")
    return settings.model_copy(update={"usecases": f"{folder}:{settings.usecases}"})


def choose_key(use_case: UseCase, partition: str | None, now: datetime) -> str:
    """Return the partition to try: the one that is asked for, or the newest complete one.

    Raises:
        ConfigError: there is none, or it is not complete yet.
    """
    newest = partitions.newest_complete(use_case, now)
    if newest is None:
        raise ConfigError(
            f"{use_case.name} has no complete partition yet; its history begins on "
            f"{use_case.history.first}"
        )
    if partition is None:
        return newest
    if partitions.period(use_case, partition).as_of > now:
        raise ConfigError(f"partition {partition} is not complete yet; the newest is {newest}")
    return partition


def try_use_case(
    use_case: UseCase,
    settings: Settings,
    *,
    partition: str | None = None,
    actor: str,
    progress: Progress = lambda stage, done, wanted: None,
    now: datetime | None = None,
) -> Tried:
    """Load what a training of the partition looks back on, train, and judge.

    Not given, the partition is the newest complete one; where none of its decisions can be trained
    on, the newest of which some can.

    Raises:
        EvergreenError: a stage refuses, or the use case is live here.
    """
    now = now or utc_now()
    records = Records.open(settings.records_address)
    key = choose_key(use_case, partition, now)
    if is_live(records, use_case.name):
        return _on_record(use_case, settings, records, key)
    tried = Tried(use_case.name, key)
    _load(tried, use_case, settings, records, now=now, actor=actor, progress=progress)
    if partition is None:
        tried.key = newest_trainable(use_case, settings, key)
        if tried.key != key:
            tried.notes.append(
                f"{key} is the newest partition, but no decision of its training.window has an "
                f"outcome yet; {tried.key} is the newest of which some have"
            )
            # It looks back further than the newest does.
            _load(tried, use_case, settings, records, now=now, actor=actor, progress=progress)
    records.partitions.raise_to(
        use_case.name, tried.key, mode="backfill", target="judged", actor=actor, at=now
    )
    for stage in UP_TO_JUDGED[len(DATA_STAGES) :]:
        progress(stage, 0, 1)
        report = runner.run(stage, use_case.name, tried.key, settings=settings, actor=actor)
        progress(stage, 1, 1)
        _take(tried, report)
    return tried


def is_live(records: Records, use_case: str) -> bool:
    """Tell whether a use case is run by the nights, or serves: a trial then computes nothing."""
    route = records.routes.get(use_case)
    return route.champion is not None or any(
        row.mode == "live" for row in records.partitions.of(use_case)
    )


def newest_trainable(use_case: UseCase, settings: Settings, key: str) -> str:
    """Return the newest partition up to `key` whose training.window holds a mature decision.

    An earlier partition knows no outcome that a later one does not; only the window moves on. Where
    there is no outcome at all that is `key` itself, whose judgement says so.
    """
    window, as_of = use_case.training.window, partitions.period(use_case, key).as_of
    if window is None:
        return key
    mature = build_spine(open_lake(settings), use_case, as_of).rows
    if not len(mature):
        return key
    newest: datetime = pc.max(mature.column(EVENT)).as_py()
    if newest >= as_of - window:
        return key
    # The first whose as_of is after the decision's delay: the delay has to have passed.
    known = newest + use_case.label.delay + timedelta(microseconds=1)
    return min(partitions.key_of(use_case, known), key)


def _on_record(use_case: UseCase, settings: Settings, records: Records, key: str) -> Tried:
    """Return the judgement of a live use case as it is recorded, if it is still right.

    Raises:
        ConfigError: it is not there, or the file has changed since.
    """
    tried = Tried(use_case.name, key)
    for stage in UP_TO_JUDGED[1:]:
        execution = Execution.begin(stage, use_case.name, settings=settings, actor="try")
        answer = None
        if records.partitions.get(use_case.name, key) is not None:
            prepared = execution.prepare(execution.context(key))
            answer = execution.find_answers([prepared]).get(key)
        if answer is None:
            raise ConfigError(
                f"{use_case.name} is live in this installation, and {stage} of {key} would be "
                "computed anew, for its nights as well. Copy the file under another name (and "
                "write that as its `name:`), and try the copy"
            )
        _take(tried, execution.report(key, outcome_of(answer), reused=True))
    tried.notes.append("it is live here, so nothing was run: this is what its own run came to")
    return tried


def _load(
    tried: Tried,
    use_case: UseCase,
    settings: Settings,
    records: Records,
    *,
    now: datetime,
    actor: str,
    progress: Progress,
) -> None:
    """Run the data stages up to the partition, in one pass each.

    Raises:
        SourceError: a partition that the training needs was refused.
    """
    first = history.first_of_training(use_case, tried.key)
    steps = history.plan_load(use_case, first, tried.key, now)
    wanted = sorted({key for keys in steps.values() for key in keys})
    records.partitions.add(
        use_case.name, wanted, mode="backfill", target="data", actor=actor, at=now
    )
    for stage in DATA_STAGES:
        began, reports = time.monotonic(), list[Report]()
        progress(stage, 0, len(steps[stage]))
        try:
            for report in run_range(
                stage, use_case.name, steps[stage], settings=settings, actor=actor
            ):
                reports.append(report)
                progress(stage, len(reports), len(steps[stage]))
        except RestatementRefused as error:
            raise RestatementRefused(f"{error}\n{_forget(use_case.name)}") from None
        reused = sum(report.reused for report in reports)
        seconds = time.monotonic() - began
        tried.stages.append(StageTime(stage, len(reports), reused, seconds))
        bad = [one for one in reports if one.state not in ("done", "skipped")]
        if all(source.gaps == "allow" for source in use_case.sources.values()):
            bad = [one for one in bad if one.key == tried.key]  # training passes the others over
        _refuse(use_case, tried.key, stage, bad)


def _refuse(case: UseCase, key: str, stage: str, bad: Sequence[Report]) -> None:
    """Raise an error with the reasons of the partitions that did not end well."""
    if not bad:
        return
    use_case, before = case.name, partitions.earlier(case, key)
    lines = [
        f"{use_case}: {stage} of {one.key} is {one.state}: {one.reason}" for one in bad[:SHOWN]
    ]
    if len(bad) > SHOWN:
        lines.append(f"{use_case}: {stage} of {len(bad) - SHOWN} further partitions ends like that")
    if any(one.outputs.get("error") == RestatementRefused.__name__ for one in bad):
        lines.append(_forget(use_case))
    elif before is not None and {one.key for one in bad} == {key}:
        lines.append(f"The partitions before it are sound: try one of them, --partition {before}")
    raise SourceError("\n".join(lines))


def _forget(use_case: str) -> str:
    """Return how to begin anew, where an earlier trial recorded what the file no longer says."""
    return f"To forget what was tried before: evergreen reset {use_case}"


def _take(tried: Tried, report: Report) -> None:
    """Take what a stage of one partition came to.

    Raises:
        EvergreenError: it could not be reached.
    """
    tried.stages.append(StageTime(report.stage, 1, int(report.reused), report.seconds))
    if report.state not in ("done", "held"):
        error = Unavailable if report.state == "unreadable" else EvergreenError
        raise error(
            f"{report.use_case}: {report.stage} of {report.key} is {report.state}: {report.reason}"
        )
    if report.stage == "train_model":
        tried.training = TrainingOutputs.of(report)
    if report.stage == "evaluate_model":
        tried.evaluation = EvaluationOutputs.of(report)


def strongest(tried: Tried, count: int) -> Iterator[tuple[str, float, float | None]]:
    """Yield the features that weigh most in the model: name, share of the gain, AUC by itself."""
    own = optional(tried.training.feature_auc) or {}
    weights = optional(tried.training.weights) or {}
    for name in sorted(weights, key=lambda name: (-weights[name], name))[:count]:
        yield name, weights[name], own.get(name)
