"""A small installation with labels and features in its lake: what training and evaluation read,
without the stages before.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from include.config.settings import Settings
from include.config.use_case import UseCase
from include.config.use_case_file import find, parse
from include.features import feature_sets
from include.lake.digests import digest
from include.lake.sql import TIMESTAMP
from include.lake.tables import Lake
from include.models import mlflow_registry
from include.pipeline import execution, runner
from include.point_in_time.curated import label_schema
from include.records.records import AuditEntry, Mode, Model, Records, StageResult, Target
from include.records.schema import ResultRow
from tests.builders import stored
from tests.builders.mlflow_database import copy_database

NAME = "visits"
FIRST = date(2026, 1, 1)
DAYS = 40
# Keys of partitions that each train on other days, for a day is never divided.
EARLY, MIDDLE, LATE = "2026-02-04", "2026-02-06", "2026-02-07"
KEY = "2026-02-05"
ROWS = 90
NOW = datetime(2026, 6, 1, tzinfo=UTC)
YAML = """name: visits
title: Visits <b>& more</b>
history: {{first: 2026-01-01, last: 2026-03-31}}
entity: {{name: customer, key: customer_id}}
sources:
  events:
    path: events/*.csv
    key: [customer_id, event_timestamp]
    columns: {{customer_id: {{type: int64}}, income: {{type: float64}}, visits: {{type: int64}},
        region: {{type: string}},
               came: {{type: int64}}, label_timestamp: {{type: timestamp}}}}
label: {{source: events, column: came, delay: 2d, max_censored: {max_censored}}}
features:
  facts: {{grain: event, source: events, columns: {{income: float64, visits: int64,
      region: string{more}}}}}
training: {{rounds: {rounds}, early_stopping: 10, params: {{min_data_in_leaf: 20,
    learning_rate: 0.1}}}}
gates: {{min_rows: {min_rows}, min_auc: {min_auc}, max_calibration_error: {max_error},
    margin: 0.03, over_baseline: -0.1}}
"""
KNOBS = {
    "max_censored": 0.05,
    "rounds": 40,
    "min_rows": 20,
    "min_auc": 0.6,
    "max_error": 0.15,
    "more": "",
}


Change = Callable[[dict[str, Any]], None]


class Bench:
    """One home; `write` fills the lake as the data stages would, `train` and `judge` run the
    real stages.
    """

    def __init__(self, home: Path, **settings: Any) -> None:
        self.home = home
        (home / "usecases").mkdir(parents=True, exist_ok=True)
        self.settings = Settings(home=home, usecases=str(home / "usecases"), **settings)
        self.records = Records.open(self.settings.records_address)
        self.lake = Lake(self.settings.lake_root)

    def configure(self, **knobs: Any) -> None:
        """Write the use case's file."""
        (self.home / "usecases" / f"{NAME}.yaml").write_text(YAML.format(**{**KNOBS, **knobs}))

    @property
    def use_case(self) -> UseCase:
        """The use case as its file says now."""
        return find(NAME, self.settings.usecase_dirs)

    def write(
        self,
        change: Change = lambda columns: None,
        *,
        days: int = DAYS,
        seed: int = 1,
        recorded: int = DAYS,
    ) -> None:
        """Write features and labels of all days and record so many; `change` may alter the
        columns first.
        """
        columns = simulate(days, seed)
        change(columns)
        current = feature_sets.current(self.use_case)
        view = current.views[0]
        moments, known = columns.pop("event_timestamp"), columns.pop("known")
        label = pa.array(columns.pop("label"), pa.float64())
        entity = pa.array(columns.pop("customer_id"), pa.int64())
        event = pa.array(moments, TIMESTAMP)
        features = pa.table(
            {"customer_id": entity, "event_timestamp": event, "created_timestamp": event}
            | {name: pa.array(columns[name], view.schema.field(name).type) for name in view.columns}
        )
        times = pa.array(known, TIMESTAMP)
        labels = pa.table([entity, event, times, times, label], schema=label_schema(self.use_case))
        self._put(view.table(NAME), features, moments)
        self._put(f"{NAME}/labels", labels, known)
        self._record(
            current,
            view,
            [
                row.isoformat()
                for row in (FIRST + timedelta(days=number) for number in range(recorded))
            ],
        )

    def ask(self, key: str, mode: Mode = "live", target: Target = "deployed") -> None:
        """Record that a partition is wanted."""
        self.records.partitions.raise_to(NAME, key, mode=mode, target=target, actor="test", at=NOW)

    def run(self, stage: str, key: str, mode: Mode = "live", **options: Any) -> execution.Report:
        """Run one stage for one partition."""
        self.ask(key, mode)
        return runner.run(stage, NAME, key, settings=self.settings, **options)

    def judged(self, key: str, mode: Mode = "live") -> dict[str, Any]:
        """Train and judge a partition and return the evaluation's outputs."""
        self.run("train_model", key, mode)
        return self.run("evaluate_model", key, mode).outputs

    def model(self, key: str) -> Model:
        """Return the newest model of a partition."""
        return max(
            (model for model in self.records.models.of(NAME) if model.partition == key),
            key=lambda model: model.version,
        )

    def result_counts(self, key: str) -> dict[str, Any]:
        """Return the counts of a partition's training."""
        result = self.records.results.get(NAME, key, "train_model")
        assert result is not None
        counts: dict[str, Any] = result.outputs["counts"]
        return counts

    def forget_result(self, stage: str, key: str) -> None:
        """Remove a stage's record, as a kill right before it would."""
        with self.records.transaction() as session:
            session.delete(session.get_one(ResultRow, (NAME, key, stage)))

    def edit_result(self, stage: str, key: str, **parts: Any) -> None:
        """Change parts of a stage's recorded outputs, and nothing else of it."""
        with self.records.transaction() as session:
            row = session.get_one(ResultRow, (NAME, key, stage))
            changed = {name: {**row.outputs[name], **value} for name, value in parts.items()}
            row.outputs = {**row.outputs, **changed}

    def forget_features(self, version: str, keys: Sequence[str]) -> dict[str, Any]:
        """Take a feature set out of the records of partitions and return what they said."""
        taken = {}
        with self.records.transaction() as session:
            for key in keys:
                row = session.get_one(ResultRow, (NAME, key, "materialize_features"))
                sets = dict(row.outputs["feature_sets"])
                taken[key] = sets.pop(version)
                row.outputs = {**row.outputs, "feature_sets": sets}
        return taken

    def release(self, version: int, key: str) -> None:
        """Make a model champion, as deployment would."""
        route = self.records.routes.get(NAME)
        entry = AuditEntry("release.promoted", NAME, str(version), "test", {}, at=NOW)
        change = {"champion": version, "previous": route.champion, "challenger": None}
        route = self.records.routes.change(NAME, set=change, entry=entry, partition=key)
        waiting = mlflow_registry.waiting_challenger(self.records.models.of(NAME), route)
        mlflow_registry.mirror_aliases(self.settings, NAME, route, challenger=waiting)

    def copy(self, home: Path) -> Bench:
        """Return a copy of this installation in another folder."""
        self.records.close()
        shutil.copytree(self.home, home)
        return Bench(home)

    def _put(self, table: str, rows: pa.Table, arrived: np.ndarray) -> None:
        keys = [value.date().isoformat() for value in arrived.astype("datetime64[us]").tolist()]
        body = rows.append_column("partition", pa.array(keys))
        write_deltalake(
            f"{self.settings.lake_root}/{table}", body, partition_by=["partition"], mode="overwrite"
        )

    def _record(
        self, current: feature_sets.FeatureSet, view: feature_sets.FeatureView, keys: list[str]
    ) -> None:
        def result(stage: str, key: str, outputs: dict[str, Any]) -> ResultRow:
            one = StageResult(
                NAME,
                key,
                stage,
                "done",
                f"sha256:{stage}",
                "",
                outputs,
                [],
                "",
                "live",
                NOW,
                NOW,
                0.0,
                "none",
                1,
            )
            return ResultRow(**vars(one))

        order = ["customer_id", "event_timestamp", "created_timestamp"]
        self.records.feature_sets.add(NAME, current.version, current.to_dict())
        with self.records.transaction() as session:
            for key in keys:
                labels = self.lake.read(stored.table(self.lake, f"{NAME}/labels"), keys=[key])
                label_table = {"digest": digest(labels, sort_by=order), "rows": len(labels)}
                rows = digest(self.lake.read(view.table(NAME), keys=[key]), sort_by=order)
                made = {
                    "table": view.table(NAME),
                    "version": view.version,
                    "rows": ROWS,
                    "digest": rows,
                }
                session.merge(
                    result(
                        "validate_data",
                        key,
                        {"verdict": "pass", "sources": {}, "labels": label_table},
                    )
                )
                before = self.records.results.get(NAME, key, "materialize_features")
                known = {} if before is None else before.outputs["feature_sets"]
                sets = {
                    "feature_sets": {**known, current.version: {view.name: made}},
                    "current": current.version,
                }
                session.merge(result("materialize_features", key, sets))


def simulate(days: int, seed: int) -> dict[str, Any]:
    """Return columns of decisions at noon of each day; outcomes are known a day later."""
    generator = np.random.default_rng(seed)
    count = days * ROWS
    income = generator.normal(size=count)
    visits = generator.integers(0, 8, count)
    region = generator.integers(0, 4, count)
    chance = 1 / (1 + np.exp(-(1.2 * income + 0.4 * visits - 1.5 + (region == 2))))
    start = np.datetime64(FIRST.isoformat(), "us") + np.timedelta64(12, "h")
    moments = start + np.repeat(np.arange(days), ROWS) * np.timedelta64(1, "D")
    return {
        "customer_id": np.tile(np.arange(ROWS), days),
        "event_timestamp": moments,
        "known": moments + np.timedelta64(1, "D"),
        "income": [None if generator.random() < 0.03 else float(value) for value in income],
        "visits": visits,
        "region": [f"r{number}" for number in region],
        "label": (generator.random(count) < chance).astype(float),
    }


def new_bench(home: Path, **settings: Any) -> Bench:
    """Return an empty installation with its databases made."""
    bench = Bench(home, **settings)
    bench.configure()
    bench.records.migrate()
    copy_database(home)
    return bench


def make_worse(bench: Bench) -> None:
    """Release a good model, and leave the next one nothing to learn from but the region."""
    bench.judged(EARLY)
    bench.release(1, EARLY)
    path = bench.home / "usecases" / f"{NAME}.yaml"
    text = path.read_text().replace("training: {", "training: {exclude: [income, visits], ")
    path.write_text(text.replace("min_auc: 0.6", "min_auc: 0.4"))


def visits_use_case(**knobs: Any) -> UseCase:
    """Return the use case without an installation."""
    return parse(YAML.format(**{**KNOBS, **knobs}))


def visits_frame(
    change: Callable[[dict[str, Any]], None] = lambda columns: None, days: int = 20
) -> pa.Table:
    """Return a training frame; `change` may alter the columns first."""
    columns = simulate(days, 1)
    change(columns)
    moments = pa.array(columns.pop("event_timestamp"), pa.timestamp("us", tz="UTC"))
    columns.pop("known")
    return pa.table({"event_timestamp": moments, **columns})
