"""Try a use case on its data, in a folder that is thrown away: its training frame, its problems."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import SecretStr

from include.clock import utc_now
from include.config.durations import format_duration
from include.config.remedies import remedy
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.errors import ConfigError, EvergreenError
from include.features import feature_sets, frames, pii, visibility
from include.features.spine import build_spine
from include.lake.sql import connect, quote
from include.lake.tables import Lake
from include.onboarding import cohorts, time_periods
from include.onboarding.cohorts import Cohorts
from include.onboarding.early_outcomes import MOST, describe_early, find_early
from include.onboarding.frame_profile import FrameProfile, profile_frame
from include.onboarding.trial_facts import (
    DAY,
    SHOWN,
    describe_copies,
    describe_first_training,
    describe_moved,
    describe_sources,
    keys_by_stage,
    label_rates,
)
from include.pipeline import ranges
from include.pipeline.engines import translated
from include.pipeline.flow import DATA_STAGES
from include.pipeline.lakes import open_lake
from include.point_in_time import partitions
from include.point_in_time.curated import EVENT, label_schema, label_table
from include.records.records import Records
from include.training import leaks
from include.training.carrier_leaks import evenly_spread
from include.training.leak_findings import Finding, exclude
from include.training.training_rows import describe_maturing

HEAD = 5  # rows of the training frame that are shown
SAMPLE = 20_000  # newest decisions of which the frame is made


@dataclass
class Trial:
    """What a use case's data are like, and what has to be changed first.

    `columns` has for each column of the training frame its name, the share of nulls and the first
    values; `facts` what, and its value; `rates` for each period its first day, the number of
    decisions, and the label's rate. `found` is what the leak gate finds; `profile` and `cohorts`
    are there where there is a frame.
    """

    key: str
    rows: int
    columns: list[tuple[Any, ...]] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    rates: list[tuple[str, int, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    found: tuple[Finding, ...] = ()
    rate: float | None = None
    immature: int | None = None
    censored: int | None = None
    profile: FrameProfile | None = None
    cohorts: Cohorts | None = None

    def refuse(self) -> None:
        """Refuse the use case if there are problems.

        Raises:
            ConfigError: with all of them, one a line.
        """
        if self.problems:
            raise ConfigError("\n".join(self.problems))


def try_data(use_case: UseCase, settings: Settings) -> Trial:
    """Run the data stages over the newest partitions, in a folder of its own.

    Raises:
        EvergreenError: a stage refuses; the message is its own.
    """
    newest = partitions.newest_complete(use_case, utc_now())
    if newest is None:
        raise ConfigError(
            f"{use_case.name} has no complete partition yet; its history begins on "
            f"{use_case.history.first}"
        )
    with tempfile.TemporaryDirectory(prefix="evergreen-check-") as folder:
        aside = settings.model_copy(
            update={
                "home": Path(folder),
                "usecases": str(use_case.folder),
                "lake_uri": "",
                "records_url": SecretStr(""),
                "mlflow_uri": SecretStr(""),
            }
        )
        records = Records.open(aside.records_address)
        records.migrate()
        try:
            facts, problems = _run(use_case, aside, records, keys_by_stage(use_case, newest))
            with translated(f"{use_case.name}: the training frame"):
                return _examine(use_case, aside, records, newest, facts, problems)
        finally:
            records.close()


def _run(
    use_case: UseCase, settings: Settings, records: Records, keys: Mapping[str, list[str]]
) -> tuple[list[tuple[str, str]], list[str]]:
    """Run the data stages; return facts of what came in, and the refusals."""
    now, ingested = utc_now(), keys["ingest_data"]
    problems: list[str] = []
    records.partitions.add(
        use_case.name, ingested, mode="backfill", target="data", actor="check", at=now
    )
    facts = [("partitions", f"{len(ingested)}, {ingested[0]} to {ingested[-1]}")]
    stopped: set[str] = set()
    for stage in DATA_STAGES:
        going = [key for key in keys[stage] if key not in stopped]
        reports = (
            ranges.run_range(stage, use_case.name, going, settings=settings, actor="check")
            if going
            else ()
        )
        done, failed = 0, 0
        for report in reports:
            if report.state == "done":
                done += 1
                continue
            stopped.add(report.key)
            failed += 1
            if failed <= SHOWN:
                reason = report.reason.removeprefix(f"{report.state}: ")
                problems.append(
                    f"{use_case.name}: {stage} of {report.key} is {report.state}: {reason}"
                )
        if failed > SHOWN:
            problems.append(
                f"{use_case.name}: {stage} of {failed - SHOWN} further partitions ends like that"
            )
        if not done:
            raise EvergreenError("\n".join(problems) or f"{use_case.name}: {stage} gave nothing")
    facts += describe_sources(
        use_case,
        records.results.of(use_case.name, stage="validate_data", keys=keys["validate_data"]),
    )
    return facts, problems


def _examine(
    use_case: UseCase,
    settings: Settings,
    records: Records,
    key: str,
    facts: list[tuple[str, str]],
    problems: list[str],
) -> Trial:
    """Return what the training frame of the newest partition would be like."""
    as_of = partitions.period(use_case, key).as_of
    lake, current = open_lake(settings), feature_sets.current(use_case)
    spine = build_spine(lake, use_case, as_of)
    trial = Trial(key, len(spine.rows), facts=facts, problems=problems)
    trial.immature, trial.censored = spine.immature, spine.censored
    past = len(spine.rows) + spine.censored
    trial.facts += [
        ("mature rows", f"{len(spine.rows)}, restated {spine.restated}"),
        (
            "immature rows",
            f"{spine.immature}, younger than label.delay ({format_duration(use_case.label.delay)})",
        ),
        (
            "censored rows",
            f"{spine.censored}"
            + (f" ({spine.censored / past:.1%} of those past the delay)" if past else ""),
        ),
    ]
    if use_case.caveat:
        trial.facts.append(("time", use_case.caveat))
    trial.facts += describe_copies(use_case, lake)
    trial.facts += describe_moved(use_case, lake)
    trial.facts += visibility.describe_visibility(use_case)
    trial.facts += pii.describe_log(use_case)
    trial.problems += _lag(use_case, lake, trial)
    trial.problems += _early(use_case, lake, trial)
    if not len(spine.rows):
        trial.problems.append(
            f"{use_case.name}: no mature row as of {as_of:%Y-%m-%d}: {describe_maturing(use_case)}"
        )
        return trial
    # The oldest look back on what was not loaded here.
    rows = frames.keep_answerable(records, use_case, current, spine.rows)
    rows = rows if len(rows) else spine.rows  # where none can, the frame says what is missing
    whole = rows
    first = pc.min(rows.column(EVENT)).as_py()
    decided = cohorts.first_outcomes(use_case, lake, since=first, until=as_of)
    trial.cohorts = cohorts.build_cohorts(use_case, decided, spine.rows, as_of)
    if len(trial.cohorts.periods) or len(rows) <= SAMPLE:
        # The newest: at the sample's beginning SQL sees only outcomes, or none.
        rows = rows.slice(max(0, len(rows) - SAMPLE))
    else:
        # Without a time rows stand in order of their key, which may tell of the outcome.
        rows = rows.take(evenly_spread(len(rows), SAMPLE))
    frame = frames.training_frame(
        settings,
        use_case,
        current,
        rows,
        frames.table_versions(lake, use_case, current),
        records=records,
    )
    for name in frame.column_names:
        column = frame.column(name)
        trial.columns.append(
            (name, f"{column.null_count / len(frame):.1%}", *column.slice(0, HEAD).to_pylist())
        )
    trial.rate = rate = float(pc.mean(whole.column("label")).as_py())
    trial.profile = profile_frame(
        frame, use_case.feature_types, time_periods.divide(frame.column(EVENT))
    )
    trial.facts.append(("label rate", f"{rate:.2%} of {len(whole)} rows"))
    trial.rates = label_rates(use_case, whole)
    if 0 < rate < 1:
        trial.facts.append(("first training", describe_first_training(use_case, key, whole, rate)))
        _leaks(use_case, frame, trial)
    else:
        trial.problems.append(
            f"{use_case.name}: every label is {rate:g}, and a model needs both; name the value "
            "that counts as 1, such as `label: {positive: 'yes'}`, or see label.sql"
        )
        trial.problems += _nulls(use_case, frame)
    trial.problems += visibility.find_unseen_rows(lake, use_case, current, frame)
    return trial


def _leaks(use_case: UseCase, frame: pa.Table, trial: Trial) -> None:
    """Add what the leak gate says of the frame: refusals as problems, questions as facts."""
    verdict = leaks.check(frame, use_case)
    trial.found = verdict.found
    trial.problems += _nulls(use_case, frame)
    trial.problems += [
        f"{use_case.name}: {leak}" for leak in verdict.refusals if leak.kind != "null"
    ]
    trial.facts += [("question", leak.evidence) for leak in verdict.questions]


def _nulls(use_case: UseCase, frame: pa.Table) -> Iterator[str]:
    for name in use_case.feature_types:
        if frame.column(name).null_count == len(frame):
            view = next(view for view, spec in use_case.features.items() if name in spec.columns)
            yield (
                f"{use_case.name}: feature {name} is null on every row; see keys, SQL, times "
                f"and ttl of view {view}, or write {exclude(use_case, name)}"
            )


def _early(use_case: UseCase, lake: Lake, trial: Trial) -> Iterator[str]:
    """Yield that many outcomes were known before their decision; of few it is asked."""
    early = find_early(use_case, lake)
    for said in describe_early(use_case, early):
        if early.share > MOST:
            yield f"{use_case.name}: {said}"
        else:
            trial.facts.append(("question", said))


def _lag(use_case: UseCase, lake: Lake, trial: Trial) -> Iterator[str]:
    """Compare label.delay with the time in which the first outcome of each decision was known."""
    key = quote(use_case.entity.key)
    with connect() as con:
        lake.scan(con, "labels", label_table(lake, use_case), schema=label_schema(use_case))
        lag = "epoch_us(greatest(label_timestamp, created_timestamp)) - epoch_us(event_timestamp)"
        first = (
            f"SELECT min({lag}) AS lag FROM labels WHERE label IS NOT NULL GROUP BY {key}, "
            "event_timestamp"
        )
        latest, usual = con.execute(
            f"SELECT max(lag), quantile_cont(lag, 0.95) FROM ({first})"
        ).fetchone() or (None, None)
    if latest is None:
        yield f"{use_case.name}: no label at all; see label.source or label.sql, and sources.*.path"
        return
    late, shown = (
        timedelta(microseconds=int(latest)),
        f"95 % within {float(usual or 0) / 86.4e9:.1f}",
    )
    trial.facts.append(
        ("outcomes known", f"at the latest {late / DAY:.1f} days after the decision, {shown}")
    )
    if late > use_case.label.delay:
        right = format_duration(timedelta(days=-(-late // DAY)))
        yield (
            f"{use_case.name}: label.delay is {format_duration(use_case.label.delay)}, but an "
            f"outcome was known only {late / DAY:.1f} days after its decision ({shown}); the "
            f"newest rows would hold only early outcomes. Write {remedy(('label', 'delay'), right)}"
        )
