"""Try a use case on its data in a throw-away folder: what its training frame would look like, and what will not work."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import SecretStr

from include import featuresets, frames, partitions, runner
from include.clock import utc_now
from include.config import Settings
from include.durations import format_duration, period_start
from include.errors import ConfigError, EvergreenError
from include.lake import Lake, connect, quote
from include.records import Records
from include.tables import label_schema, label_table
from include.usecase import UseCase

HEAD, SAMPLE = 5, 20_000
MOST = 200
PERIODS = 30  # partitions of decisions to look at, besides what they look back on and wait for
DAY = timedelta(days=1)


@dataclass
class Tried:
    """What was found: a line a column (name, null share, its first values), facts, and what has to be changed first."""

    key: str
    rows: int
    columns: list[tuple[Any, ...]] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def refuse(self) -> None:
        """Raise ConfigError with all problems, if there are any."""
        if self.problems:
            raise ConfigError("\n".join(self.problems))


def try_data(use_case: UseCase, settings: Settings) -> Tried:
    """Run the data stages over the newest partitions in a folder of its own and look at the training frame.

    Raises:
        EvergreenError: a stage refuses; the message is its own.
    """
    newest = partitions.newest_complete(use_case, utc_now())
    if newest is None:
        raise ConfigError(f"{use_case.name} has no complete partition yet; its history begins on {use_case.history.first}")
    with tempfile.TemporaryDirectory(prefix="evergreen-check-") as folder:
        here = settings.model_copy(
            update={
                "home": Path(folder),
                "usecases": str(use_case.folder),
                "lake_uri": "",
                "records_url": SecretStr(""),
                "mlflow_uri": SecretStr(""),
            }
        )
        records = Records.open(here.records_address)
        records.migrate()
        try:
            facts, problems = _run(use_case, here, records, partitions.lookback(use_case, newest, _span(use_case))[-MOST:])
            return _look(use_case, here, records, newest, facts, problems)
        finally:
            records.close()


def _span(use_case: UseCase) -> timedelta:
    """Return how far back the sample goes: outcomes that can be known, of decisions whose features can be known."""
    back = max([use_case.label.lookback, *(max(view.lookback, view.ttl) for view in use_case.features.values())])
    first, period = use_case.history.first, {"day": DAY, "week": 7 * DAY, "month": 31 * DAY}[use_case.cadence]
    most = timedelta(days=(utc_now().date() - period_start(use_case.cadence, first)).days + 40_000)
    return min(use_case.label.delay + back + PERIODS * period, most)


def _run(use_case: UseCase, settings: Settings, records: Records, keys: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Run the data stages; return facts of what came in, and the refusals."""
    now = utc_now()
    problems: list[str] = []
    for key in keys:
        records.raise_partition(use_case.name, key, mode="backfill", target="data", actor="check", at=now)
    facts = [("partitions", f"{len(keys)}, {keys[0]} to {keys[-1]}")]
    for stage in ("ingestion", "validation", "features"):
        going = []
        for report in runner.run_range(stage, use_case.name, keys, settings=settings, actor="check"):
            if report.state == "done":
                going.append(report.key)
            elif len(problems) < 5:
                problems.append(f"{use_case.name}: {stage} of {report.key} is {report.state}: {report.reason}")
        if not going:
            raise EvergreenError("\n".join(problems) or f"{use_case.name}: {stage} gave nothing")
        keys = going
    results = records.results(use_case.name, stage="validation", keys=keys)
    for name, source in use_case.sources.items():
        counted = results[-1:] if source.kind == "static" else results  # each partition of a static source is all of it
        totals = [row.outputs["sources"].get(name, {}) for row in counted]
        rows, bad = (sum(int(one.get(what, 0)) for one in totals) for what in ("rows", "quarantined"))
        facts.append((f"source {name}", f"{rows} rows, {bad} in quarantine"))
    return facts, problems


def _look(
    use_case: UseCase, settings: Settings, records: Records, key: str, facts: list[tuple[str, str]], problems: list[str]
) -> Tried:
    as_of = partitions.period(use_case, key).as_of
    lake, current = Lake(settings.lake_root), featuresets.current(use_case)
    spine = frames.spine(lake, use_case, as_of)
    found = Tried(key, len(spine.rows), facts=facts, problems=problems)
    past = len(spine.rows) + spine.censored
    found.facts += [
        ("mature rows", f"{len(spine.rows)}, restated {spine.restated}"),
        ("immature rows", f"{spine.immature}, younger than label.delay ({format_duration(use_case.label.delay)})"),
        ("censored rows", f"{spine.censored}" + (f" ({spine.censored / past:.1%} of those past the delay)" if past else "")),
    ]
    found.problems += _lag(use_case, lake, found)
    if not len(spine.rows):
        found.problems.append(f"{use_case.name}: no mature row as of {as_of:%Y-%m-%d}; lengthen history, or shorten label.delay")
        return found
    rows = frames.answerable(records, use_case, current, spine.rows)  # the oldest look back on what was not loaded here
    rows = rows if len(rows) else spine.rows  # where none can, the frame says what is missing
    rows = rows.slice(max(0, len(rows) - SAMPLE))
    frame = frames.training_frame(settings, use_case, current, rows, frames.pins(lake, use_case, current), records=records)
    for name in frame.column_names:
        column = frame.column(name)
        found.columns.append((name, f"{column.null_count / len(frame):.1%}", *column.slice(0, HEAD).to_pylist()))
    found.facts.append(("label rate", f"{pc.mean(spine.rows.column('label')).as_py():.2%} of {len(spine.rows)} rows"))
    found.problems += _nulls(use_case, frame)
    return found


def _nulls(use_case: UseCase, frame: pa.Table) -> Iterator[str]:
    for name in use_case.feature_types:
        if frame.column(name).null_count == len(frame):
            view = next(view for view, spec in use_case.features.items() if name in spec.columns)
            yield f"{use_case.name}: feature {name} is null on every row; see the SQL, the times and the ttl of view {view}"


def _lag(use_case: UseCase, lake: Lake, found: Tried) -> Iterator[str]:
    """Compare label.delay with the time that outcomes take: of each decision, the first time that any outcome was known."""
    key = quote(use_case.entity.key)
    with connect() as con:
        lake.scan(con, "labels", label_table(lake, use_case), schema=label_schema(use_case))
        known = "epoch_us(greatest(label_timestamp, created_timestamp)) - epoch_us(event_timestamp)"
        first = f"SELECT min({known}) AS lag FROM labels WHERE label IS NOT NULL GROUP BY {key}, event_timestamp"
        latest, usual = con.execute(f"SELECT max(lag), quantile_cont(lag, 0.95) FROM ({first})").fetchone() or (None, None)
    if latest is None:
        yield f"{use_case.name}: no label at all; see label.source or label.sql, and sources.*.path"
        return
    late, shown = timedelta(microseconds=int(latest)), f"95 % within {float(usual or 0) / 86.4e9:.1f}"
    found.facts.append(("outcomes known", f"at the latest {late / DAY:.1f} days after the decision, {shown}"))
    if late > use_case.label.delay:
        right = format_duration(timedelta(days=-(-late // DAY)))
        yield (
            f"{use_case.name}: label.delay is {format_duration(use_case.label.delay)}, but an outcome was known only"
            f" {late / DAY:.1f} days after its decision ({shown}); the newest rows would hold early outcomes alone."
            f" Write delay: {right}"
        )
