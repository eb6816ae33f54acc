"""A small installation whose features are written by the test: what the drift stage reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from include.config.settings import Settings
from include.config.use_case import UseCase
from include.config.use_case_file import find
from include.features import feature_sets
from include.lake.sql import TIMESTAMP
from include.lake.tables import Lake
from include.pipeline import execution, runner
from include.records.records import Model, Records, StageResult

KEYS = [f"2026-01-{day:02}" for day in range(1, 8)]
AT = datetime(2026, 2, 1, tzinfo=UTC)
YAML = """\
name: shop
history: {first: 2026-01-01}
entity: {name: customer, key: customer_id}
sources:
  orders: {path: x.csv, key: [customer_id],
    columns: {customer_id: {type: int64}, channel: {type: string}}}
label: {sql: "select 1", delay: 1d}
features:
  spend:
    sql: select customer_id, 1.0 as amount, 'a' as kind from orders
    ttl: 2d
    columns: {amount: float64, kind: string}
  visits:
    grain: event
    source: orders
    columns: {channel: string}
monitoring: {sample: 2000, report_rows: 200}
"""


class House:
    """One installation, whose features are written by the test."""

    def __init__(self, folder: Path) -> None:
        (folder / "shop.yaml").write_text(YAML)
        self.settings = Settings(home=folder / "var", usecases=str(folder))
        self.settings.home.mkdir()
        self.records = Records.open(self.settings.records_address)
        self.records.migrate()
        self.lake = Lake(self.settings.lake_root)
        self.use_case: UseCase = find("shop", [folder])
        self.feature_set = feature_sets.current(self.use_case)
        self.records.feature_sets.add("shop", self.feature_set.version, self.feature_set.to_dict())

    def day(
        self,
        key: str,
        *,
        mean: float = 50.0,
        kinds: str = "ab",
        channels: str = "xy",
        opponent: int | None = None,
    ) -> None:
        """Write the features of 400 customers and 200 visits, and record the day as judged."""
        rng = np.random.default_rng(int(key[-2:]))
        as_of = datetime.fromisoformat(key).replace(tzinfo=UTC) + timedelta(days=1)
        amount = rng.normal(mean, 10, 400)
        amount[:5] = np.inf
        kind = rng.choice(list(kinds), 400).astype(object)
        kind[5:10] = None
        self.view("spend", key, as_of, list(range(400)), {"amount": amount, "kind": kind})
        self.view(
            "visits",
            key,
            as_of - timedelta(hours=1),
            list(range(200)),
            {"channel": rng.choice(list(channels), 200)},
        )
        made = {
            view.name: {
                "table": view.table("shop"),
                "version": view.version,
                "rows": 1,
                "digest": f"{view.name} {key} {mean}",
            }
            for view in self.feature_set.views
        }
        outputs = {
            "feature_sets": {self.feature_set.version: made},
            "current": self.feature_set.version,
        }
        self.records.partitions.raise_to(
            "shop", key, mode="backfill", target="judged", actor="test", at=AT
        )
        self.record(key, "materialize_features", outputs)
        self.record(key, "evaluate_model", {"verdict": "pass", "opponent": opponent})

    def view(
        self, name: str, key: str, at: datetime, entities: list[int], columns: dict[str, Any]
    ) -> None:
        view = next(view for view in self.feature_set.views if view.name == name)
        times = pa.array([at] * len(entities), TIMESTAMP)
        rows = pa.table(
            {
                "customer_id": entities,
                "event_timestamp": times,
                "created_timestamp": times,
                **columns,
            }
        )
        self.lake.replace(view.table("shop"), key, rows.cast(view.schema))

    def record(self, key: str, stage: str, outputs: dict[str, Any]) -> None:
        with self.records.leases.claim(
            "shop", stage, key, owner="test", attempt=1, ttl=30
        ) as lease:
            made = StageResult(
                "shop",
                key,
                stage,
                "done",
                f"{stage} {outputs}",
                "",
                outputs,
                [],
                "m",
                "backfill",
                AT,
                AT,
                0,
                "none",
            )
            self.records.results.commit(lease, made)

    def model(self, version: int, key: str) -> None:
        """Record a model of a day with the sample that training keeps."""
        rng = np.random.default_rng(99)
        path = self.settings.home / f"reference-{version}.parquet"
        sample = {
            "customer_id": np.arange(400),
            "amount": rng.normal(50, 10, 400),
            "kind": rng.choice(["a", "b"], 400),
        }
        pq.write_table(pa.table({**sample, "channel": pa.array(["x"] * 400)}), path)
        manifest = {"reference": {"path": str(path), "rows": 400}}
        named = {
            "use_case": "shop",
            "version": version,
            "model_digest": f"sha256:{version}",
            "partition": key,
            "as_of": AT,
        }
        self.records.models.add(
            Model(
                **named,
                mode="live",
                feature_set=self.feature_set.version,
                bundle="",
                manifest=manifest,
            )  # type: ignore[arg-type]
        )

    def run(self, key: str) -> execution.Report:
        return runner.run("check_drift", "shop", key, settings=self.settings)
